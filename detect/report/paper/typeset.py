"""What the PDFs of all reports share: blocks of data for `report.typ`, and the compiler.

Strings of a record go to the compiler as JSON, never as markup, and it sees no network and no fonts but its own.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import msgspec

from detect.records.written import clean, format_time
from detect.report.checking import TITLE, AnyRecord, how_to_check
from detect.report.method import Part
from detect.report.runs import Run, Runs, runs, to_data
from detect.report.story import Fact
from detect.report.wording import assumption_lines
from watermark.errors import DyetraceError, MachineError
from watermark.spec import WatermarkSpec


@dataclass(frozen=True, slots=True)
class Summary:
    """The first page: the answer, then what stands behind it, a list of sentences for each heading."""

    kind: str
    headline: str
    lead: list[Runs]
    facts: list[Fact]
    parts: Sequence[tuple[str, Sequence[Runs]]]
    limits: list[Runs]


STANDARDS = ["a-2a", "ua-1"]
"""PDF/A-2a holds all of PDF/A-2b and is tagged for screen readers, as PDF/UA-1 asks."""

# The compiler's fonts have these; anything else would be a box, which PDF/A forbids, and is written as an escape.
UNKNOWN = re.compile(
    "[^\t\n -~\u00a0-\u017f\u0391-\u03a1\u03a3-\u03c9\u0400-\u045f\u2003\u2013\u2014\u2018-\u201e\u2022\u2026\u2032"
    "\u2190-\u2193\u2212\u221e\u2248\u2260\u2264\u2265\u03a3\u00bd\u2713\u25b3\u200b]"
)
_BREAK = "\u200b"  # where a line may break
_SHORT = 32  # characters that need no break
_BROKEN = re.compile(r"(\S{16})(?=\S)")
_SENTENCE = 600  # characters of one
Sections = list[tuple[str, list[dict[str, Any]]]]
_STYLE = """<style>
text { font-family: "Libertinus Serif"; font-size: 11px; fill: #56606d } .up { font-size: 8px }
.grid { stroke: #d9dfe5; stroke-width: .6 } .axis { stroke: #56606d; stroke-width: .8 } .area { fill: #e9edf2 }
.chance { stroke: #56606d; stroke-width: 1; stroke-dasharray: 4 3; fill: none } .bar { fill: #5c6f86 }
.decoys { stroke: #5c6f86; stroke-width: 1.8; fill: none } .decoy-dot { fill: #5c6f86; fill-opacity: .6 }
.true { stroke: #b3261e; stroke-width: 1.4 } .true-mark, .true-label { fill: #b3261e }
.segment { fill: #b5dedf } .whisker { stroke: #1b2430; stroke-width: 1.8 } .open { stroke-dasharray: 4 3 }
.whisker-end { fill: #1b2430 } .estimate, .found-dot, .found-bar { fill: #0a6b52 }
.limit { stroke: #b3261e; stroke-width: 1; stroke-dasharray: 2 2 }
.by-p { stroke: #0a6b52; stroke-width: 2; fill: none } .by-e { stroke: #5c6f86; stroke-width: 1.6; fill: none }
</style>"""


def compile_pdf(content: dict[str, Any], extra: str) -> bytes:
    """Set the content as PDF/A; the same content gives the same bytes.

    Parameters
    ----------
    content
        What `report.typ` shows.
    extra
        The optional dependencies that bring the compiler ("scan").

    Raises
    ------
    DyetraceError
        The PDF compiler isn't installed, or can't set this content.
    """
    try:
        import typst
    except ImportError:
        raise MachineError(f"a PDF needs typst: pip install 'dyetrace[{extra}]'") from None
    source = (files("detect.report") / "report.typ").read_bytes()
    data = msgspec.json.encode(known(content)).decode()
    fonts = typst.Fonts(include_system_fonts=False)
    try:
        compiler = typst.Compiler(source, font_paths=fonts, ignore_system_fonts=True, sys_inputs={"data": data})
        pdf = compiler.compile(format="pdf", pdf_standards=STANDARDS, timestamp=0)  # type: ignore[arg-type]
    except typst.TypstError as error:
        raise DyetraceError(f"the PDF could not be made ({' '.join(error.message.split())}); this is a bug") from None
    assert isinstance(pdf, bytes)
    return pdf


def known(given: Any) -> Any:
    """The same with every character that the fonts lack written as an escape; `plot` does so for drawings."""
    if isinstance(given, str):
        return UNKNOWN.sub(_escaped, given)
    if isinstance(given, dict):
        return {key: item if key == "svg" else known(item) for key, item in given.items()}
    return [known(item) for item in given] if isinstance(given, list) else given


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def document(record: AnyRecord, kind: str, name: str, first: Summary, sections: Sections) -> dict[str, Any]:
    """A whole report: what stands on every page, the first page and the sections.

    Parameters
    ----------
    kind
        For the title: "corpus scan".
    name
        For the reader: "Corpus scan report".
    """
    program = f"dyetrace {clean(record.versions.get('dyetrace', ''), 40)}"
    who = [f"{what}: {clean(said, 200)}" for what, said in _said(record)]
    when = clean(format_time(record.created), 40) if record.created else ""
    return {
        "title": f"dyetrace {kind}: {first.headline}",
        "name": name,
        "program": ", ".join(part for part in (program, when) if part),
        "who": "; ".join(who),
        "footer": f"{program}, {name[:1].lower()}{name[1:]}; key {clean(record.key_fingerprint, 64)}",
        "created": moment(record.created),
        **first_page(first),
        "sections": [{"title": title, "blocks": blocks} for title, blocks in sections],
    }


def _said(record: AnyRecord) -> list[tuple[str, str]]:
    """Who made the report and what for, as far as it says."""
    if record.made is None:
        return []
    said = {"Examiner": record.made.examiner, "Case": record.made.case}
    return [(what, text) for what, text in said.items() if text is not None]


def moment(created: str) -> str:
    """A record's time in UTC; the beginning of 1970 where it has none: a PDF must have a date."""
    try:
        found = datetime.fromisoformat(created)
        return found.astimezone(UTC).isoformat(timespec="seconds") if found.tzinfo else found.isoformat("T", "seconds")
    except (ValueError, OverflowError):
        return datetime(1970, 1, 1, tzinfo=UTC).isoformat()


def closing(record: AnyRecord, title: str, manifest: list[dict[str, Any]]) -> Sections:
    """The last sections of every report: how it is checked, its manifest, and what it assumes."""
    sections = [(TITLE, [listing(how_to_check(record))]), (title, manifest)]
    if record.assumptions:
        lines = [plain(line, _SENTENCE) for line in assumption_lines(record.assumptions)]
        sections.append(("What this verdict assumes", [listing(lines)]))
    return sections


def listing(lines: Sequence[Runs]) -> dict[str, Any]:
    """A list of sentences."""
    return {"kind": "list", "items": [to_data(breakable(line)) for line in lines]}


def breakable(given: Runs) -> Runs:
    """The same with breaks in its long values, so that they stay in their column."""
    return tuple(Run(_BROKEN.sub(rf"\1{_BREAK}", run.text), run.tags) if "code" in run.tags else run for run in given)


def first_page(first: Summary) -> dict[str, Any]:
    """The answer, its facts and the lists of sentences under it."""
    parts = [*first.parts, ("What it does not show", first.limits)]
    return {
        "kind": first.kind,
        "headline": first.headline,
        "lead": [to_data(line) for line in first.lead],
        "facts": [{"name": fact.name, "value": fact.value, "note": fact.note} for fact in first.facts],
        "parts": [{"title": title, "lines": [to_data(line) for line in lines]} for title, lines in parts],
    }


def method_blocks(sections: list[Part], papers: list[str]) -> list[dict[str, Any]]:
    """The method with its references."""
    blocks: list[dict[str, Any]] = []
    for section in sections:
        blocks.append(heading(section.title))
        blocks += [{"kind": block.kind, "runs": to_data(block.text)} for block in section.blocks]
    return [*blocks, heading("References"), {"kind": "list", "items": [to_data(plain(p, 400)) for p in papers]}]


def spec_blocks(ident: str, spec: WatermarkSpec) -> list[dict[str, Any]]:
    """A spec as JSON, under its id."""
    pretty = msgspec.json.format(msgspec.json.encode(spec, order="sorted"), indent=2).decode()
    return [
        text("Spec <code>$id</code>", id=ident),
        code("\n".join(clean(line, 500) for line in pretty.split("\n"))),
    ]


def text(template: str, **values: str | int | Runs) -> dict[str, Any]:
    """A paragraph (see `runs`)."""
    return {"kind": "text", "runs": to_data(runs(template, **values))}


def heading(title: str) -> dict[str, Any]:
    """A heading of the third level."""
    return {"kind": "heading", "text": title}


def code(lines: str) -> dict[str, Any]:
    """Lines of a command or a file."""
    return {"kind": "code", "text": lines}


def table(head: list[str], align: str, widths: list[int], rows: list[list[Runs]]) -> dict[str, Any]:
    """A table: a letter of ``align`` for each column, "l" or "r"; widths are shares, 0 as wide as needed."""
    cells = [[{"runs": to_data(cell)} for cell in row] for row in rows]
    return {"kind": "table", "head": head, "align": list(align), "widths": widths, "rows": cells}


def plain(given: str | int, limit: int = 120) -> Runs:
    """A string or a whole number as it stands."""
    return (Run(f"{given:,}" if isinstance(given, int) else clean(given, limit)),)


def name(given: str, limit: int = 200) -> Runs:
    """A name; a long one may break after its punctuation, and anywhere where it has none for long."""
    given = clean(given, limit)
    return (Run(given if len(given) <= _SHORT else re.sub(r"([/._:-]|[^/._:\s-]{20})", f"\\1{_BREAK}", given)),)


def digest(given: str) -> Runs:
    """A hash in groups of 16 digits: what is copied has spaces that can be seen."""
    given = clean(given, 300)
    return (Run(" ".join(given[i : i + 16] for i in range(0, len(given), 16)), ("code",)),)


def value(given: str) -> Runs:
    """A value as it stands; a long one may break."""
    given = clean(given, 300)
    return (Run(given if len(given) <= _SHORT else _BROKEN.sub(rf"\1{_BREAK}", given), ("code",)),)


def plot(drawing: str, caption: str) -> dict[str, str]:
    """A drawing of the page with its colours in it, as XML; names in it may have any character."""
    alt = re.search(r"<desc[^>]*>(.*?)</desc>", drawing, re.DOTALL)
    described = "" if alt is None else html.unescape(alt[1])
    svg = str(drawing).replace("&minus;", "\N{MINUS SIGN}")
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace("<title", f"{_STYLE}<title", 1)
    svg = UNKNOWN.sub(_escaped, svg)
    return {"svg": svg, "alt": described, "caption": caption}
