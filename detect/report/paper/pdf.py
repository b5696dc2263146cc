"""A story as PDF/A: blocks as data for `report.typ`, and the compiler.

Strings of a story go to the compiler as JSON, never as markup, and it sees no network and no fonts but its own. Texts
of documents are not in it: the page shows them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import msgspec

from detect.records.written import clean
from detect.report.paper.layout import ELSEWHERE, description, placed, stretches
from detect.report.runs import Run, Runs, plain, runs, said, to_data
from detect.report.story import (
    STANDING,
    Block,
    Cell,
    Code,
    Column,
    Details,
    Formula,
    Heading,
    Item,
    Items,
    Pairs,
    Plot,
    Plots,
    Quote,
    Section,
    Story,
    Table,
    Text,
    Tokens,
    text,
)
from watermark.errors import DyetraceError, MachineError

STANDARDS = ["a-2a", "ua-1"]
"""PDF/A-2a holds all of PDF/A-2b and is tagged for screen readers, as PDF/UA-1 asks."""

# The compiler's fonts have these; anything else would be a box, which PDF/A forbids, and is written as an escape.
UNKNOWN = re.compile(
    "[^\t\n -~\u00a0-\u017f\u0391-\u03a1\u03a3-\u03c9\u0400-\u045f\u2003\u2013\u2014\u2018-\u201e\u2022\u2026\u2032"
    "\u2190-\u2193\u2212\u221e\u2248\u2260\u2264\u2265\u03a3\u00bd\u2713\u25b3\u200b]"
)
_BREAK = "\u200b"  # where a line may break
_SHORT = 32  # characters that need no break
_LONG = re.compile(r"(\S{16})(?=\S)")
_IN_NAMES = re.compile(r"([/._:-]|[^/._:\s-]{20})")
_HASH = re.compile(r"[0-9a-f]{33,}")
_GROUP = 16  # digits of a hash: what is copied has spaces that can be seen
_LINE = 90  # characters of a table on a line, or a little more
_WHOLE = 14.0  # centimetres of a table up to which no page ends within it: estimated, and well below a page's 25
_HEAD = 9  # characters of a number's column that its name may fill
_STYLE = """<style>
text { font-family: "Libertinus Serif"; font-size: 11px; fill: #56606d } .up { font-size: 8px }
.grid { stroke: #d9dfe5; stroke-width: .6 } .axis { stroke: #56606d; stroke-width: .8 } .area { fill: #e9edf2 }
.chance { stroke: #56606d; stroke-width: 1; stroke-dasharray: 4 3; fill: none } .bar { fill: #5c6f86 }
.decoys { stroke: #5c6f86; stroke-width: 1.8; fill: none } .decoy-dot { fill: #5c6f86; fill-opacity: .6 }
.true { stroke: #b3261e; stroke-width: 1.4 } .true-mark, .true-label { fill: #b3261e }
.segment { fill: #b5dedf } .whisker { stroke: #1b2430; stroke-width: 1.8 } .open { stroke-dasharray: 4 3 }
.whisker-end { fill: #1b2430 } .estimate, .found-dot, .found-bar { fill: #0a6b52 }
.unfound-dot { fill: #ffffff; stroke: #5c6f86; stroke-width: 1.1 }
.limit { stroke: #b3261e; stroke-width: 1; stroke-dasharray: 2 2 }
.by-p { stroke: #0a6b52; stroke-width: 2; fill: none } .by-e { stroke: #5c6f86; stroke-width: 1.6; fill: none }
</style>"""


def pdf(story: Story) -> bytes:
    """Set a story as PDF/A; the same story gives the same bytes.

    Raises
    ------
    DyetraceError
        The PDF compiler isn't installed, or can't set this story.
    """
    try:
        import typst
    except ImportError:
        raise MachineError("a PDF needs typst: pip install 'dyetrace[scan]'") from None
    source = (files("detect.report.paper") / "report.typ").read_bytes()
    data = msgspec.json.encode(_known(_content(story))).decode()
    fonts = typst.Fonts(include_system_fonts=False)
    try:
        compiler = typst.Compiler(source, font_paths=fonts, ignore_system_fonts=True, sys_inputs={"data": data})
        made = compiler.compile(format="pdf", pdf_standards=STANDARDS, timestamp=0)  # type: ignore[arg-type]
    except typst.TypstError as error:
        raise DyetraceError(f"the PDF could not be made ({' '.join(error.message.split())}); this is a bug") from None
    assert isinstance(made, bytes)
    return made


def printed(text: str) -> str:
    """A string as it is set, which may be longer: nothing in it is unseen, and what the fonts lack is an escape."""
    return UNKNOWN.sub(_escaped, clean(text))


def _known(given: Any) -> Any:
    """The same with every character that the fonts lack written as an escape; `_plot` does so for drawings."""
    if isinstance(given, str):
        return UNKNOWN.sub(_escaped, given)
    if isinstance(given, dict):
        return {key: item if key == "svg" else _known(item) for key, item in given.items()}
    return [_known(item) for item in given] if isinstance(given, list) else given


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _content(story: Story) -> dict[str, Any]:
    return {
        "title": clean(f"dyetrace {story.kind}: {story.headline}"),
        "name": story.title,
        "program": clean(story.program),
        "who": clean(story.made),
        "footer": clean(story.footer),
        "created": _moment(story.created),
        "kind": story.tone,
        "headline": _words(said(story.headline, 600)),
        "lead": [_words(line) for line in story.lead],
        "facts": [
            {name: _words(said(getattr(fact, name))) for name in ("name", "value", "note")} for fact in story.facts
        ],
        "parts": [{"title": title, "lines": [_words(line) for line in lines]} for title, lines in story.parts],
        "sections": [{"title": section.title, "blocks": _section(section)} for section in story.sections],
    }


def _moment(created: str) -> str:
    """A record's time in UTC; the beginning of 1970 where it has none: a PDF must have a date."""
    try:
        found = datetime.fromisoformat(created)
        return found.astimezone(UTC).isoformat(timespec="seconds") if found.tzinfo else found.isoformat("T", "seconds")
    except (ValueError, OverflowError):
        return datetime(1970, 1, 1, tzinfo=UTC).isoformat()


def _section(section: Section) -> list[dict[str, Any]]:
    """The blocks of a section, and how many details more than these there are."""
    details = [block for block in section.blocks if isinstance(block, Details)]
    beyond = {id(block) for block in details[section.on_paper :]}
    shown = [block for block in section.blocks if id(block) not in beyond]
    more = [text("$n more are on the page (report.html).", soft=True, n=len(beyond))] if beyond else []
    return _blocks([*shown, *more])


def _blocks(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """The blocks as data, those of details under their heading; small details stand side by side."""
    found: list[dict[str, Any]] = []
    level = 4 if any(isinstance(block, Heading) for block in blocks) else 3
    for small, stretch in stretches(blocks):
        drawn = [_details(block, level) if isinstance(block, Details) else _leaf(block) for block in stretch]
        found += [{"kind": "columns", "columns": drawn}] if small else [one for blocks in drawn for one in blocks]
    return found


def _details(details: Details, level: int) -> list[dict[str, Any]]:
    return [_heading(details.title, level), *(one for block in details.blocks for one in _leaf(block))]


def _leaf(block: Block) -> list[dict[str, Any]]:
    match block:
        case Text():
            return [{"kind": "text", "runs": _words(block.text), "soft": block.soft, "tone": block.tone}]
        case Heading():
            return [_heading(block.text, block.level, block.badge)]
        case Formula():
            return [{"kind": "formula", "runs": _words(block.text)}]
        case Items():
            return [{"kind": "list", "items": [_words(_item(item)) for item in block.items], "small": block.small}]
        case Code():
            return [{"kind": "code", "text": "\n".join(clean(line) for line in block.text.split("\n"))}]
        case Table():
            return list(_table(block))
        case Pairs():
            head = Table(block.caption, [Column(runs("What"), width=1), Column(runs("Value"), width=3)], [])
            return [_sheet(head, [[Cell(said(name, 80), name=True), Cell(value)] for name, value in block.pairs])]
        case Plots():
            return [{"kind": "plots", "plots": [_plot(one) for one in block.plots]}]
        case Quote():
            return _leaf(Text((Run("“"), *said(block.text), Run("”")), soft=True))
        case Tokens():
            return _leaf(Text(said(ELSEWHERE), soft=True))
    raise TypeError(block)


def _item(item: Item) -> Runs:
    """A line, and before it how it is with a control; what is as it should be needs no words."""
    return (Run(STANDING[item.standing], ("b",)), *item.text) if item.standing in ("odd", "absent") else item.text


def _heading(given: Runs, level: int, badge: str = "") -> dict[str, Any]:
    return {"kind": "heading", "level": level, "runs": _words(given, name=True), "badge": badge}


def _table(table: Table) -> list[dict[str, Any]]:
    found = [_sheet(table, placed(table, table.on_paper))]
    if len(table.rows) > table.on_paper:
        note = runs(
            "The first $shown of $all rows; the JSON record has all.", shown=table.on_paper, all=len(table.rows)
        )
        found += _leaf(Text(note, soft=True))
    return found


def _sheet(table: Table, rows: Sequence[Sequence[Cell | None]]) -> dict[str, Any]:
    widths = [column.width or int(_is_long(rows, number)) for number, column in enumerate(table.columns)]
    return {
        "kind": "table",
        "head": [_head(column, [row[number] for row in rows]) for number, column in enumerate(table.columns)],
        "whole": _height(widths, rows) <= _WHOLE,
        "align": [column.align for column in table.columns],
        "widths": widths,
        "rows": [[_cell(cell) for cell in row if cell is not None] for row in rows],
    }


def _height(widths: Sequence[int], rows: Sequence[Sequence[Cell | None]]) -> float:
    """About how high a table is, in centimetres: rows, and further lines of their tallest cells."""
    texts = [[0 if cell is None else len(plain(cell.text)) for cell in row] for row in rows]
    taken = sum(max((row[i] for row in texts), default=0) for i, width in enumerate(widths) if not width)
    room = [max(10, _LINE - taken) * width / max(1, sum(widths)) or _LINE for width in widths]
    return sum(0.18 + 0.38 * max(1 + text // most for text, most in zip(row, room, strict=True)) for row in texts)


def _is_long(rows: Sequence[Sequence[Cell | None]], number: int) -> bool:
    return any((cell := row[number]) is not None and len(plain(cell.text)) > _SHORT for row in rows)


def _head(column: Column, cells: Sequence[Cell | None]) -> list[list[str]]:
    """The column's name; over numbers it has lines of its own, so that it makes the column no wider than they do."""
    if column.align == "l":
        return to_data(column.name)
    room = max([_HEAD, *(len(plain(cell.text)) for cell in cells if cell is not None)])
    found: list[Run] = []
    used = 0
    for run in column.name:
        for word in re.split(r"(?<= )", run.text):
            if found and used + len(word.rstrip()) > room:
                found.append(Run("", ("br",)))
                used = 0
            found.append(Run(word, run.tags))
            used += len(word)
    return to_data(tuple(found))


def _cell(cell: Cell) -> dict[str, Any]:
    return {"runs": _words(cell.text, name=cell.name), "rows": cell.rows, "tone": cell.tone}


def _words(given: Runs, *, name: bool = False) -> list[list[str]]:
    """Runs as data, cleaned, with breaks in their long values so that they stay in their column."""
    return to_data(tuple(Run(_breakable(printed(run.text), run.tags, name), run.tags) for run in given))


def _breakable(given: str, tags: Sequence[str], name: bool) -> str:
    if "code" in tags and _HASH.fullmatch(given):
        return " ".join(given[i : i + _GROUP] for i in range(0, len(given), _GROUP))
    if name:
        return given if len(given) <= _SHORT else _IN_NAMES.sub(f"\\1{_BREAK}", given)
    if "code" in tags or any(len(word) > _SHORT for word in given.split()):
        return _LONG.sub(rf"\1{_BREAK}", given)
    return given


def _plot(plot: Plot) -> dict[str, Any]:
    """A drawing of the page with its colours in it, as XML; names in it may have any character."""
    drawing = str(plot.svg)
    svg = drawing.replace("&minus;", "\N{MINUS SIGN}")
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace("<title", f"{_STYLE}<title", 1)
    return {"svg": UNKNOWN.sub(_escaped, svg), "alt": description(plot), "caption": _words(plot.caption)}
