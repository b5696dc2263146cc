"""A scan's record as PDF/A: the answer on the first page, then documents, keys, controls, method and manifest.

What is said is what the page says (`scan_text`, `scan_method`); `typeset` sets it.
"""

from __future__ import annotations

from typing import Any

from detect.records.scan import ScanRecord
from detect.records.written import clean, format_time, key_label, percent
from detect.report.checking import made_facts
from detect.report.detection.page import shown_argument
from detect.report.paper import plots, typeset
from detect.report.runs import Run, Runs, e_value, level, p_value, to_data
from detect.report.scan import plots as scan_plots
from detect.report.scan.method import method, references
from detect.report.scan.page import beside
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

DOCUMENTS = 40  # of the list
PLOTTED = 6
KEYS = 40
INPUTS = 1000


def render_pdf(record: ScanRecord) -> bytes:
    """Render the record as a PDF; the same record gives the same bytes.

    Raises
    ------
    DyetraceError
        The PDF compiler isn't installed, or can't set this record.
    """
    return typeset.compile_pdf(_content(record), "scan")


def _content(record: ScanRecord) -> dict[str, Any]:
    sections = [
        ("Documents", _documents(record)),
        ("Keys", _keys(record)),
        ("Distribution and shares", _distribution(record)),
        ("Controls", _controls(record)),
        ("Method", typeset.method_blocks(method(record), references())),
        *typeset.closing(record, "Record and recomputation", _manifest(record)),
    ]
    return typeset.document(record, "corpus scan", "Corpus scan report", summary(record), sections)


def _documents(record: ScanRecord) -> list[dict[str, Any]]:
    found = record.discoveries
    if record.refused is not None:
        return [typeset.text("No document is listed, since no answer is given.")]
    if not record.hits:
        return [
            typeset.text("No document reaches the list at a false-discovery rate of $rate.", rate=percent(found.rate))
        ]
    rows = [
        [
            typeset.name(place(record, hit)),
            typeset.name(hit.id or "", 60),
            typeset.plain(hit.tokens),
            p_value(hit.log10_pvalue),
            p_value(hit.log10_pvalue_adjusted),
            (Run("0"),) if hit.log10_evalue is None else e_value(hit.log10_evalue),
            typeset.name(named_in(record, hit), 60),
            typeset.plain(", ".join(f"{s.start:,} to {s.end:,}" for s in hit.segments[:3]) or "none"),
        ]
        for hit in record.hits[:DOCUMENTS]
    ]
    head = ["Place", "Id", "Tokens", "p", "p, all doc.", "e-value", "Key", "Segments"]
    drawn = [
        typeset.plot(
            scan_plots.positions(hit, unit_name(spec_of(record, hit.key)), f"h{i}"),
            f"{clean(place(record, hit), 80)}: mean score ({unit_name(spec_of(record, hit.key))}) by token.",
        )
        for i, hit in enumerate(record.hits[:PLOTTED])
        if hit.scores
    ]
    return [
        typeset.text(
            "$n of $all tested documents are listed at a false-discovery rate of $rate, $e by e-values; the $shown "
            "strongest are shown here, and hits.jsonl has all. “p” pays for all sub-keys and keys, “p, all doc.” for "
            "the choice among documents as well.",
            n=found.benjamini_hochberg,
            all=found.tested,
            rate=percent(found.rate),
            e=found.e_benjamini_hochberg,
            shown=len(rows),
        ),
        typeset.table(head, "llrrrrll", [3, 2, 0, 0, 0, 0, 2, 2], rows),
        typeset.heading("Where the mark is in the strongest documents"),
        typeset.text(
            "Dashed: the mean without the key. Shaded: marked segments, all stretches of their document paid for."
        ),
        {"kind": "plots", "plots": drawn},
    ]


def _keys(record: ScanRecord) -> list[dict[str, Any]]:
    if record.refused is not None:
        return [typeset.text("No p-value is given. The totals of every key are in the JSON record.")]
    rows = [
        [
            typeset.name(key_label(k.key)),
            p_value(k.log10_pvalue_adjusted),
            p_value(k.log10_pvalue_pooled),
            p_value(k.log10_pvalue_rare),
            typeset.plain(k.tuples),
            typeset.plain(k.documents),
            typeset.plain(k.pointed),
        ]
        for k in strongest_keys(record)[:KEYS]
    ]
    head = ["Key", "p", "p, pooled", "p, rare documents", "Tuples", "Documents", "Points to it"]
    text = (
        "“p” pays for both tests and for all $n keys (Holm). $shown of them are shown, the strongest first. “Points to "
        "it”: listed documents in which this key alone is found ($pointing)."
    )
    return [
        typeset.text(text, n=len(record.hypotheses), shown=len(rows), pointing=pointing_note(record)),
        typeset.table(head, "lrrrrrr", [3, 0, 0, 0, 0, 0, 0], rows),
    ]


def _distribution(record: ScanRecord) -> list[dict[str, Any]]:
    drawn = []
    if record.refused is None and any(record.histogram):
        drawn.append(typeset.plot(scan_plots.histogram(record.histogram, "a", "Documents"), "The tested keys."))
    if any(record.controls.null_key_histogram):
        bins = record.controls.null_key_histogram
        drawn.append(
            typeset.plot(scan_plots.histogram(bins, "b", "Documents"), "The same under a key that nobody used.")
        )
    if record.refused is None:
        drawn.append(
            typeset.plot(scan_plots.shares(record.shares, "c"), "Marked shares; an arrow sets no upper limit.")
        )
    note = "Dashed: what chance gives. Without any mark the bars lie within the shaded band or grow to the right."
    return [typeset.text(note), {"kind": "plots", "plots": drawn}]


def _controls(record: ScanRecord) -> list[dict[str, Any]]:
    controls = record.controls
    lines = [
        to_data((Run("" if standing == "sound" else STANDINGS[standing], ("b",)), *line))
        for standing, line in control_lines(record)
    ]
    pooled = min((h.log10_pvalue_pooled for h in record.hypotheses), default=None)
    true = None if record.refused is not None else pooled
    drawn = []
    if controls.decoy_log10_pvalues:
        strip = plots.decoy_strip(controls.decoy_log10_pvalues, true, "d")
        curve = plots.decoy_curve(controls.decoy_log10_pvalues, true, "e")
        drawn += [
            typeset.plot(strip, "Every decoy’s pooled p-value."),  # noqa: RUF001
            typeset.plot(curve, "Sound decoys leave the shaded area in at most 5 of 100 runs."),
        ]
    if any(controls.null_corpus_histogram):
        drawn.append(
            typeset.plot(scan_plots.histogram(controls.null_corpus_histogram, "f", "Control"), "The control corpus.")
        )
    return [{"kind": "list", "items": lines}, {"kind": "plots", "plots": drawn}]


def _manifest(record: ScanRecord) -> list[dict[str, Any]]:
    inputs = [
        [
            typeset.name(i.name),
            typeset.plain(f"{i.form}, {i.column}" if i.column else i.form),
            *(typeset.plain(count) for count in (i.records, i.skipped, i.documents, i.tokens, i.bytes)),
            typeset.digest(i.sha256),
        ]
        for i in record.inputs[:INPUTS]
    ]
    head = ["Name", "Read as", "Records", "Skipped", "Documents", "Tokens", "Bytes", "SHA-256"]
    rows = [[typeset.name(file.name), typeset.plain(file.bytes), typeset.digest(file.sha256)] for file in record.files]
    commitment = record.commitment
    facts: list[tuple[str, Runs]] = [("Key fingerprint", typeset.value(record.key_fingerprint))]
    if commitment is not None:
        facts += [
            ("Commitment, SHA-256", typeset.digest(commitment.sha256)),
            (
                "Commitment, dated",
                typeset.plain(f"{format_time(commitment.created)}; its file says so, and nothing proves it"),
            ),
        ]
    facts += [
        *((name, typeset.breakable(value)) for name, value in made_facts(record)),
        ("Level of the report", level(record.alpha)),
        ("Decoy seed", typeset.value(record.controls.decoy_seed)),
        ("Text to token ids", typeset.name(record.encoder)),
        ("Record format", typeset.plain(f"{record.format} {record.version}")),
        *(
            (f"Argument {clean(name, 60)}", typeset.value(shown_argument(v)))
            for name, v in sorted(record.arguments.items())
        ),
        *((clean(name, 60), typeset.name(version)) for name, version in sorted(record.versions.items())),
    ]
    blocks = [
        typeset.text("This makes the same record again, but for when and by whom:"),
        typeset.code(recompute_command(record)),
        typeset.heading("Inputs"),
        typeset.table(head, "llrrrrrl", [2, 0, 0, 0, 0, 0, 0, 3], inputs),
        *_beside(record),
        typeset.heading("Files of this report"),
        typeset.table(["Name", "Bytes", "SHA-256"], "lrl", [1, 0, 2], rows),
        typeset.heading("Watermark, key and scan"),
        typeset.table(["What", "Value"], "ll", [1, 3], [[typeset.name(name), value] for name, value in facts]),
        typeset.heading("Specs"),
    ]
    if len(record.inputs) > len(inputs):
        blocks.insert(
            3,
            typeset.text(
                "The first $n of $all inputs; the JSON record has all.", n=len(inputs), all=len(record.inputs)
            ),
        )
    for ident, spec in zip(record.spec_ids, record.specs, strict=True):
        blocks += typeset.spec_blocks(ident, spec)
    return blocks


def _beside(record: ScanRecord) -> list[dict[str, Any]]:
    """Files that were read beside the corpus."""
    blocks = []
    for _, title, files in beside(record):
        rows = [[typeset.name(f.name), typeset.plain(f.bytes), typeset.digest(f.sha256)] for f in files[:INPUTS]]
        blocks += [typeset.heading(title), typeset.table(["Name", "Bytes", "SHA-256"], "lrl", [2, 0, 3], rows)]
    return blocks
