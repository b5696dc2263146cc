"""A scan's record as PDF/A: the answer on the first page, then documents, keys, controls, method and manifest.

The layout is `scan.typ`; what is said is what the page says (`scan_text`, `scan_method`). Strings of the record go to
the compiler as JSON, never as markup, and the compiler sees no network and no fonts but its own.
"""

from __future__ import annotations

import html
import re
from importlib.resources import files
from typing import Any

import msgspec

from detect.corpus.record import ScanRecord
from detect.report import plots, scan_plots
from detect.report.html import shown_argument
from detect.report.runs import Run, Runs, e_value, level, p_value, runs, to_data
from detect.report.scan_method import method, references
from detect.report.scan_text import summary
from detect.report.scan_wording import (
    control_lines,
    percent,
    place,
    recompute_command,
    scan_key_label,
    spec_of,
    strongest_keys,
    unit_name,
)
from detect.report.wording import clean, format_time
from watermark.errors import DyetraceError

DOCUMENTS = 40  # of the list
PLOTTED = 6
KEYS = 40
INPUTS = 1000
STANDARDS = ["a-2a", "ua-1"]
"""PDF/A-2a holds all of PDF/A-2b and is tagged for screen readers, as PDF/UA-1 asks."""

# The compiler's fonts have these; anything else would be a box, which PDF/A forbids, and is written as an escape.
_UNKNOWN = re.compile(
    "[^\t\n -~\u00a0-\u017f\u0391-\u03a1\u03a3-\u03c9\u0400-\u045f\u2003\u2013\u2014\u2018-\u201e\u2022\u2026\u2032"
    "\u2190-\u2193\u2212\u221e\u2248\u2260\u2264\u2265\u03a3\u00bd\u2713\u25b3\u200b]"
)
_BREAK = "\u200b"  # where a line may break
_SHORT = 32  # characters that need no break
_STYLE = """<style>
text { font-family: "Libertinus Serif"; font-size: 11px; fill: #56606d } .up { font-size: 8px }
.grid { stroke: #d9dfe5; stroke-width: .6 } .axis { stroke: #56606d; stroke-width: .8 } .area { fill: #e9edf2 }
.chance { stroke: #56606d; stroke-width: 1; stroke-dasharray: 4 3; fill: none } .bar { fill: #5c6f86 }
.decoys { stroke: #5c6f86; stroke-width: 1.8; fill: none } .decoy-dot { fill: #5c6f86; fill-opacity: .6 }
.true { stroke: #b3261e; stroke-width: 1.4 } .true-mark, .true-label { fill: #b3261e }
.segment { fill: #b5dedf } .whisker { stroke: #1b2430; stroke-width: 1.8 } .open { stroke-dasharray: 4 3 }
.whisker-end { fill: #1b2430 } .estimate { fill: #0a6b52 }
</style>"""


def render_pdf(record: ScanRecord) -> bytes:
    """Render the record as a PDF; the same record gives the same bytes.

    Raises
    ------
    DyetraceError
        The PDF compiler isn't installed, or can't set this record.
    """
    try:
        import typst
    except ImportError:
        raise DyetraceError("a PDF needs typst: pip install 'dyetrace[scan]'") from None
    source = (files("detect.report") / "scan.typ").read_bytes()
    data = msgspec.json.encode(_known(_content(record))).decode()
    fonts = typst.Fonts(include_system_fonts=False)
    try:
        compiler = typst.Compiler(source, font_paths=fonts, ignore_system_fonts=True, sys_inputs={"data": data})
        pdf = compiler.compile(format="pdf", pdf_standards=STANDARDS, timestamp=0)  # type: ignore[arg-type]
    except typst.TypstError as error:
        raise DyetraceError(f"the PDF could not be made ({' '.join(error.message.split())}); this is a bug") from None
    assert isinstance(pdf, bytes)
    return pdf


def _known(value: Any) -> Any:
    """The same with every character that the fonts lack written as an escape; drawings have none."""
    if isinstance(value, str):
        return _UNKNOWN.sub(lambda match: match[0].encode("unicode_escape").decode(), value)
    if isinstance(value, dict):
        return {key: item if key == "svg" else _known(item) for key, item in value.items()}
    return [_known(item) for item in value] if isinstance(value, list) else value


def _content(record: ScanRecord) -> dict[str, Any]:
    first = summary(record)
    program = f"dyetrace {clean(record.versions.get('dyetrace', ''), 40)}"
    parts = [*first.parts, ("What it does not show", first.limits)]
    sections = [
        ("Documents", _documents(record)),
        ("Keys", _keys(record)),
        ("Distribution and shares", _distribution(record)),
        ("Controls", _controls(record)),
        ("Method", _method(record)),
        ("Record and recomputation", _manifest(record)),
    ]
    return {
        "title": f"dyetrace corpus scan: {first.headline}",
        "name": "Corpus scan report",
        "program": program,
        "footer": f"{program}, corpus scan report; key {clean(record.key_fingerprint, 64)}",
        "kind": first.kind,
        "headline": first.headline,
        "lead": [to_data(line) for line in first.lead],
        "facts": [{"name": fact.name, "value": fact.value, "note": fact.note} for fact in first.facts],
        "parts": [{"title": title, "lines": [to_data(line) for line in lines]} for title, lines in parts],
        "sections": [{"title": title, "blocks": blocks} for title, blocks in sections],
    }


def _text(template: str, **values: str | int | Runs) -> dict[str, Any]:
    return {"kind": "text", "runs": to_data(runs(template, **values))}


def _heading(text: str) -> dict[str, Any]:
    return {"kind": "heading", "text": text}


def _code(text: str) -> dict[str, Any]:
    return {"kind": "code", "text": text}


def _table(head: list[str], align: str, widths: list[int], rows: list[list[Runs]]) -> dict[str, Any]:
    """A table: a letter of ``align`` for each column, "l" or "r"; widths are shares, 0 as wide as needed."""
    cells = [[{"runs": to_data(cell)} for cell in row] for row in rows]
    return {"kind": "table", "head": head, "align": list(align), "widths": widths, "rows": cells}


def _plain(text: str | int, limit: int = 120) -> Runs:
    return (Run(f"{text:,}" if isinstance(text, int) else clean(text, limit)),)


def _name(text: str, limit: int = 200) -> Runs:
    """A name; a long one may break after its punctuation, and anywhere where it has none for long."""
    text = clean(text, limit)
    return (Run(text if len(text) <= _SHORT else re.sub(r"([/._:-]|[^/._:\s-]{20})", f"\\1{_BREAK}", text)),)


def _hash(text: str) -> Runs:
    """A hash in groups of 16 digits: what is copied has spaces that can be seen."""
    text = clean(text, 300)
    return (Run(" ".join(text[i : i + 16] for i in range(0, len(text), 16)), ("code",)),)


def _value(text: str) -> Runs:
    """A value as it stands; a long one may break."""
    text = clean(text, 300)
    return (Run(text if len(text) <= _SHORT else re.sub(r"(\S{16})(?=\S)", f"\\1{_BREAK}", text), ("code",)),)


def _plot(drawing: str, caption: str) -> dict[str, str]:
    """A drawing of the page with its colours in it, as XML."""
    alt = re.search(r"<desc[^>]*>(.*?)</desc>", drawing, re.DOTALL)
    described = "" if alt is None else html.unescape(alt[1])
    svg = str(drawing).replace("&minus;", "\N{MINUS SIGN}")
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace("<title", f"{_STYLE}<title", 1)
    return {"svg": svg, "alt": described, "caption": caption}


def _documents(record: ScanRecord) -> list[dict[str, Any]]:
    found = record.discoveries
    if record.refused is not None:
        return [_text("No document is listed, since no answer is given.")]
    if not record.hits:
        return [_text("No document reaches the list at a false-discovery rate of $rate.", rate=percent(found.rate))]
    rows = [
        [
            _name(place(record, hit)),
            _name(hit.id or "", 60),
            _plain(hit.tokens),
            p_value(hit.log10_pvalue),
            p_value(hit.log10_pvalue_adjusted),
            (Run("0"),) if hit.log10_evalue is None else e_value(hit.log10_evalue),
            _name(scan_key_label(hit.key), 60),
            _plain(", ".join(f"{s.start:,} to {s.end:,}" for s in hit.segments[:3]) or "none"),
        ]
        for hit in record.hits[:DOCUMENTS]
    ]
    head = ["Place", "Id", "Tokens", "p", "p, all doc.", "e-value", "Key", "Segments"]
    drawn = [
        _plot(
            scan_plots.positions(hit, unit_name(spec_of(record, hit.key)), f"h{i}"),
            f"{clean(place(record, hit), 80)}: mean score ({unit_name(spec_of(record, hit.key))}) by token.",
        )
        for i, hit in enumerate(record.hits[:PLOTTED])
        if hit.scores
    ]
    return [
        _text(
            "$n of $all tested documents are listed at a false-discovery rate of $rate, $e by e-values; the $shown "
            "strongest are shown here, and hits.jsonl has all. “p” pays for all sub-keys and keys, “p, all doc.” for "
            "the choice among documents as well.",
            n=found.benjamini_hochberg,
            all=found.tested,
            rate=percent(found.rate),
            e=found.e_benjamini_hochberg,
            shown=len(rows),
        ),
        _table(head, "llrrrrll", [3, 2, 0, 0, 0, 0, 2, 2], rows),
        _heading("Where the mark is in the strongest documents"),
        _text("Dashed: the mean without the key. Shaded: marked segments, all stretches of their document paid for."),
        {"kind": "plots", "plots": drawn},
    ]


def _keys(record: ScanRecord) -> list[dict[str, Any]]:
    if record.refused is not None:
        return [_text("No p-value is given. The totals of every key are in the JSON record.")]
    rows = [
        [
            _name(scan_key_label(k.key)),
            p_value(k.log10_pvalue_adjusted),
            p_value(k.log10_pvalue_pooled),
            p_value(k.log10_pvalue_rare),
            _plain(k.tuples),
            _plain(k.documents),
            _plain(k.pointed),
        ]
        for k in strongest_keys(record)[:KEYS]
    ]
    head = ["Key", "p", "p, pooled", "p, rare documents", "Tuples", "Documents", "Points to it"]
    text = "“p” pays for both tests and for all $n keys (Holm). $shown of them are shown, the strongest first."
    return [
        _text(text, n=len(record.hypotheses), shown=len(rows)),
        _table(head, "lrrrrrr", [3, 0, 0, 0, 0, 0, 0], rows),
    ]


def _distribution(record: ScanRecord) -> list[dict[str, Any]]:
    drawn = []
    if record.refused is None and any(record.histogram):
        drawn.append(_plot(scan_plots.histogram(record.histogram, "a", "Documents"), "The tested keys."))
    if any(record.controls.null_key_histogram):
        bins = record.controls.null_key_histogram
        drawn.append(_plot(scan_plots.histogram(bins, "b", "Documents"), "The same under a key that nobody used."))
    if record.refused is None:
        drawn.append(_plot(scan_plots.shares(record.shares, "c"), "Marked shares; an arrow sets no upper limit."))
    note = "Dashed: what chance gives. Without any mark the bars lie within the shaded band or grow to the right."
    return [_text(note), {"kind": "plots", "plots": drawn}]


def _controls(record: ScanRecord) -> list[dict[str, Any]]:
    controls = record.controls
    lines = [to_data((Run("" if sound else "Take note: ", ("b",)), *line)) for sound, line in control_lines(record)]
    pooled = min((h.log10_pvalue_pooled for h in record.hypotheses), default=None)
    true = None if record.refused is not None else pooled
    drawn = []
    if controls.decoy_log10_pvalues:
        strip = plots.decoy_strip(controls.decoy_log10_pvalues, true, "d")
        curve = plots.decoy_curve(controls.decoy_log10_pvalues, true, "e")
        drawn += [
            _plot(strip, "Every decoy’s pooled p-value."),  # noqa: RUF001
            _plot(curve, "Sound decoys leave the shaded area in at most 5 of 100 runs."),
        ]
    if any(controls.null_corpus_histogram):
        drawn.append(_plot(scan_plots.histogram(controls.null_corpus_histogram, "f", "Control"), "The control corpus."))
    return [{"kind": "list", "items": lines}, {"kind": "plots", "plots": drawn}]


def _method(record: ScanRecord) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for section in method(record):
        blocks.append(_heading(section.title))
        blocks += [{"kind": block.kind, "runs": to_data(block.text)} for block in section.blocks]
    return [*blocks, _heading("References"), {"kind": "list", "items": [to_data(_plain(r, 400)) for r in references()]}]


def _manifest(record: ScanRecord) -> list[dict[str, Any]]:
    inputs = [
        [
            _name(i.name), _plain(f"{i.form}, {i.column}" if i.column else i.form), _plain(i.records),
            _plain(i.skipped), _plain(i.documents), _plain(i.tokens), _plain(i.bytes), _hash(i.sha256),
        ]
        for i in record.inputs[:INPUTS]
    ]  # fmt: skip
    head = ["Name", "Read as", "Records", "Skipped", "Documents", "Tokens", "Bytes", "SHA-256"]
    rows = [[_name(file.name), _plain(file.bytes), _hash(file.sha256)] for file in record.files]
    commitment = record.commitment
    facts: list[tuple[str, Runs]] = [("Key fingerprint", _value(record.key_fingerprint))]
    if commitment is not None:
        facts += [
            ("Commitment, SHA-256", _hash(commitment.sha256)),
            ("Committed", _plain(f"{format_time(commitment.created)}, by the owner's clock")),
        ]
    facts += [
        ("Level of the report", level(record.alpha)),
        ("Decoy seed", _value(record.controls.decoy_seed)),
        ("Text to token ids", _name(record.encoder)),
        ("Record format", _plain(f"{record.format} {record.version}")),
        *((f"Argument {clean(name, 60)}", _value(shown_argument(v))) for name, v in sorted(record.arguments.items())),
        *((clean(name, 60), _name(version)) for name, version in sorted(record.versions.items())),
        (
            "Date of this file",
            _plain("1970-01-01, fixed: the record holds no clock time, and the same record gives the same PDF"),
        ),
    ]
    blocks = [
        _text("Anyone can check the report without a key, and with the key another party obtains the same totals:"),
        _code(
            "dyetrace report verify report.json --inputs FOLDER --public-key OWNER.pub\n" + recompute_command(record)
        ),
        _heading("Inputs"),
        _table(head, "llrrrrrl", [2, 0, 0, 0, 0, 0, 0, 3], inputs),
        _heading("Files of this report"),
        _table(["Name", "Bytes", "SHA-256"], "lrl", [1, 0, 2], rows),
        _heading("Watermark, key and scan"),
        _table(["What", "Value"], "ll", [1, 3], [[_name(name), value] for name, value in facts]),
        _heading("Specs"),
    ]
    if len(record.inputs) > len(inputs):
        blocks.insert(
            4, _text("The first $n of $all inputs; the JSON record has all.", n=len(inputs), all=len(record.inputs))
        )
    for ident, spec in zip(record.spec_ids, record.specs, strict=True):
        pretty = msgspec.json.format(msgspec.json.encode(spec, order="sorted"), indent=2).decode()
        blocks += [
            _text("Spec <code>$id</code>", id=ident),
            _code("\n".join(clean(line, 500) for line in pretty.split("\n"))),
        ]
    return blocks
