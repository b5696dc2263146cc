"""A scan's record as one HTML page: no scripts, no network, nothing but the record in it (see `html`)."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from detect.records.detection import Input, SubkeyTally
from detect.records.scan import Hit, ScanHypothesis, ScanRecord
from detect.records.written import key_label, percent
from detect.report.detection.page import drawn, pretty_json, shared, shown_argument
from detect.report.paper import plots
from detect.report.scan import plots as scan_plots
from detect.report.scan.method import method, references
from detect.report.scan.text import summary
from detect.report.scan.wording import (
    STANDINGS,
    control_lines,
    named_in,
    place,
    pointing_note,
    recompute_command,
    spec_of,
    strongest_keys,
    unit_name,
)

PLOTTED = 12  # of the strongest documents, the score by position
KEYS = 200  # of the table of keys
SPELT = 3  # of the keys, all sub-keys
INPUTS = 5000  # of the table of inputs


@dataclass(frozen=True, slots=True)
class Entry:
    """What the page says of a listed document."""

    ident: str
    hit: Hit
    place: str
    unit: str
    plot: Markup | None


def render_scan_html(record: ScanRecord) -> str:
    """Render the record as one self-contained HTML page."""
    keys = strongest_keys(record)
    return drawn(
        "scan.html.j2",
        record=record,
        **shared(record),
        summary=summary(record),
        entries=[_entry(record, hit, i) for i, hit in enumerate(record.hits)],
        plotted=min(PLOTTED, len(record.hits)),
        keys=keys[:KEYS],
        spelt=[(key, _subkeys(key)) for key in keys[:SPELT]],
        key_label=key_label,
        percent=percent,
        plots=_plots(record),
        control_lines=control_lines(record),
        standings=STANDINGS,
        pointing=pointing_note(record),
        sections=method(record),
        named=named_in,
        references=references(),
        inputs=record.inputs[:INPUTS],
        beside=beside(record),
        specs=[(ident, pretty_json(spec)) for ident, spec in zip(record.spec_ids, record.specs, strict=True)],
        command=recompute_command(record),
        versions=sorted(record.versions.items()),
        arguments=[(name, shown_argument(value)) for name, value in sorted(record.arguments.items())],
    )


def beside(record: ScanRecord) -> list[tuple[str, str, list[Input]]]:
    """Files that were read beside the corpus: an identifier, a title and the first of them; older reports have none."""
    kinds = [
        ("control-files", "Files of the control corpus", record.controls.null_corpus_inputs),
        ("reference-files", "Files of the marked reference", record.reference_inputs),
    ]
    return [(ident, title, files[:INPUTS]) for ident, title, files in kinds if files]


def _entry(record: ScanRecord, hit: Hit, number: int) -> Entry:
    ident = f"h{number + 1}"
    unit = unit_name(spec_of(record, hit.key))
    plot = scan_plots.positions(hit, unit, f"{ident}p") if number < PLOTTED and hit.scores else None
    return Entry(ident, hit, place(record, hit), unit, plot)


def _subkeys(key: ScanHypothesis) -> list[SubkeyTally]:
    return sorted(key.subkeys, key=lambda tally: tally.log10_pvalue)


def _plots(record: ScanRecord) -> dict[str, Markup | None]:
    """Draw what the record has numbers for; a refused record shows no p-value of the true key."""
    controls = record.controls
    drawn: dict[str, Markup | None] = dict.fromkeys(("true", "shares", "null", "corpus", "strip", "curve"))
    if record.refused is None and any(record.histogram):
        drawn["true"] = scan_plots.histogram(record.histogram, "true", "Documents under the tested keys")
        drawn["shares"] = scan_plots.shares(record.shares, "shares")
    if any(controls.null_key_histogram):
        drawn["null"] = scan_plots.histogram(controls.null_key_histogram, "null", "Documents under a key nobody used")
    if controls.null_corpus is not None and any(controls.null_corpus_histogram):
        title = "Documents of the control corpus under the tested keys"
        drawn["corpus"] = scan_plots.histogram(controls.null_corpus_histogram, "corpus", title)
    if controls.decoy_log10_pvalues:
        pooled = (
            None
            if record.refused is not None
            else min((h.log10_pvalue_pooled for h in record.hypotheses), default=None)
        )
        drawn["strip"] = plots.decoy_strip(controls.decoy_log10_pvalues, pooled, "strip")
        drawn["curve"] = plots.decoy_curve(controls.decoy_log10_pvalues, pooled, "curve")
    return drawn
