"""A story in a terminal: the answer and what a reader looks for first, or all of it but drawings.

Everything is shown through `rich.text.Text` objects of cleaned strings: nothing in them is read as markup, and no
control character reaches the terminal. The project's own words are ASCII, so that they survive any encoding.
"""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Literal

from rich.cells import set_cell_size
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text as Shown

from detect.records.written import clean
from detect.report.paper.layout import ELSEWHERE, labels, placed
from detect.report.runs import Run, Runs, plain, said
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
    Leaf,
    Pairs,
    Plots,
    Quote,
    Section,
    Story,
    Table,
    Text,
    Tokens,
)

_TONES = {"marked": "bold green", "unmarked": "bold", "refused": "bold yellow"}
_CELLS = {"marked": "bold green", "unmarked": "", "refused": "bold yellow"}
_STANDINGS = {"": "", "good": "dim", "odd": "yellow", "absent": "yellow"}
_ASCII = str.maketrans({
    "‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-", "…": "...", "′": "'", "·": "*", "×": "x",
    "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "infinity", "½": "1/2", "→": "->", "←": "<-", "Σ": "sum",
    "\u00a0": " ", "\u2003": "  ", "λ": "lambda",
})  # fmt: skip
_GREEK = re.compile("GREEK SMALL LETTER [A-Z]+")
_WIDTH = 100  # of a text file
_FIRST = 18  # columns that the first cell of a row gets at least,
_OTHER = 24  # and every other cell of words at most where they are cut, at least where they may go on below
_HEAD = 9  # columns of a number that its name may fill


def print_story(story: Story, console: Console, *, whole: bool = False) -> None:
    """Print a story.

    Parameters
    ----------
    whole
        All of it but drawings and tinted texts. Else the answer as terminals have it (`Story.brief`, or the first page
        where there is none) and the sections that are shown in brief.
    """
    if console.is_terminal:
        _print(story, console, whole)
        return
    with console.capture() as shown:
        _print(story, console, whole)
    # Lines are filled up with blanks, which a terminal does not show and nobody wants in a file.
    console.file.write("\n".join(line.rstrip() for line in shown.get().split("\n")))
    console.file.flush()


def text(story: Story) -> str:
    """A whole story as a text file."""
    lines = StringIO()
    print_story(story, Console(file=lines, width=_WIDTH, force_terminal=False), whole=True)
    return lines.getvalue()


def _print(story: Story, console: Console, whole: bool) -> None:
    for line in _Paper(console, whole).story(story):
        copied = isinstance(line, Shown) and bool(line.no_wrap)
        console.print(line, highlight=False, crop=False, soft_wrap=copied)


def _ascii(text: str) -> str:
    """Project's typography in ASCII; letters of other alphabets stay, but for Greek ones of formulas."""
    return "".join(c if c.isascii() else _greek(c) for c in text.translate(_ASCII))


def _greek(letter: str) -> str:
    name = unicodedata.name(letter, "")
    return name.removeprefix("GREEK SMALL LETTER ").lower() if _GREEK.fullmatch(name) else letter


class _Paper:
    """How blocks look in one console, whose encoding must carry them."""

    def __init__(self, console: Console, whole: bool) -> None:
        self.encoding = console.encoding
        self.width = console.width
        self.whole = whole

    def story(self, story: Story) -> Iterator[RenderableType]:
        if self.whole or not story.brief:
            yield from self._first_page(story)
        else:
            yield from self._answer(story.tone, story.brief[0], story.brief[1:])
        for section in story.sections:
            blocks = self._of(section)
            if blocks:
                yield ""
                yield self._line(section.title, "bold")
                yield from self._blocks(blocks, self.width)
        if story.foot:
            yield ""
        yield from (self.words(line, "dim") for line in story.foot)

    def _of(self, section: Section) -> Sequence[Block]:
        if self.whole:
            return section.blocks
        return (section.brief or section.blocks) if section.in_brief else ()

    def _first_page(self, story: Story) -> Iterator[RenderableType]:
        if self.whole:
            yield self._line(story.title, "bold")
            yield from (self._line(line, "dim") for line in (story.program, story.made) if line)
            yield ""
        yield from self._answer(story.tone, said(story.headline, 600), story.lead)
        if story.facts:
            yield ""
            facts = [(fact.name, said(fact.line)) for fact in story.facts]
            yield self._pairs(facts)
        for title, lines in story.parts:
            yield ""
            yield self._line(title, "bold")
            yield from (self._item(Item(line)) for line in lines)

    def _answer(self, tone: str, first: Runs, rest: Sequence[Runs]) -> Iterator[RenderableType]:
        yield self.words(first, _TONES[tone])
        yield from (Padding(self.words(line), (0, 0, 0, 2)) for line in rest)

    def _blocks(self, blocks: Sequence[Block], width: int) -> Iterator[RenderableType]:
        before: Block | None = None
        for block in _followed([block for block in blocks if not isinstance(block, Plots)]):
            if isinstance(block, Details | Table) and isinstance(before, Details | Table | Pairs | Items):
                yield ""
            before = block
            if isinstance(block, Details):
                yield self._name(block.title, width, "bold")
                yield Padding(Group(*self._blocks(block.blocks, width - 2)), (0, 0, 0, 2))
            else:
                yield from self._leaf(block, width)

    def _leaf(self, block: Leaf, width: int) -> Iterator[RenderableType]:
        match block:
            case Text():
                tone = _CELLS[block.tone] if block.tone else ""
                yield self.words(block.text, "dim" if block.soft else tone)
            case Heading():
                if self.whole:
                    yield ""
                title = self.words(block.text, "bold")
                if block.badge:
                    title.append(f" ({self._safe(block.badge)})", "yellow")
                yield title
            case Formula():
                yield Padding(self.words(block.text), (0, 0, 0, 4))
            case Items():
                yield from (self._item(item) for item in block.items)
            case Code():
                yield from (self._as_it_is(line) for line in block.text.split("\n"))
            case Table():
                yield from self._table(block, width)
            case Pairs():
                yield self._pairs(block.pairs)
            case Quote():
                yield Padding(Shown(self._carried(f'"{clean(block.text)}"'), "dim", overflow="fold"), (0, 0, 0, 2))
            case Tokens():
                yield self.words(said(ELSEWHERE), "dim")

    def _item(self, item: Item) -> RenderableType:
        style = _STANDINGS[item.standing]
        before = "" if item.standing == "good" else STANDING[item.standing]
        grid = Grid.grid()
        grid.add_row(Shown("- ", style), self.words((*said(before), *item.text), style))
        return Padding(grid, (0, 0, 0, 2))

    def _as_it_is(self, line: str) -> RenderableType:
        """A line to be copied, which no end of a line may break."""
        return Shown(self._carried(line), no_wrap=True)

    def _pairs(self, pairs: Sequence[tuple[str, Runs]]) -> RenderableType:
        grid = Grid.grid(padding=(0, 2))
        grid.add_column(style="dim", max_width=_OTHER, overflow="fold")
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(self._line(name), self.words(value))
        return Padding(grid, (0, 0, 0, 2))

    def _table(self, table: Table, width: int) -> Iterator[RenderableType]:
        rows = placed(table, None if self.whole else table.on_screen)
        cells = [[self._cell(cell) for cell in row] for row in rows]
        heads = [self._safe(name) for name in labels(table)]
        natural = [_breadth(head, [row[i] for row in cells]) for i, head in enumerate(heads)]
        room = _room(table.columns, natural, width)
        grid = Grid(box=None, padding=(0, 1), header_style="dim")
        for i, most in room.items():
            words = table.columns[i].align == "l"
            head = Shown(textwrap.fill(heads[i], most))
            justify: Literal["left", "right"] = "left" if words else "right"
            grid.add_column(head, justify=justify, no_wrap=not words, overflow="fold", width=most)
        for row, shown in zip(rows, cells, strict=True):
            grid.add_row(*(self._fitted(row[i], shown[i], most, not i) for i, most in room.items()))
        yield grid
        if len(table.rows) > len(rows):
            note = f" The first {len(rows):,} of {len(table.rows):,} rows; the JSON record has all."
            yield Shown(note, "dim", overflow="fold")

    def _cell(self, cell: Cell | None) -> Shown:
        if cell is None:
            return Shown()
        return Shown(self._text(cell.text, named=cell.name), _CELLS[cell.tone] if cell.tone else "")

    def _fitted(self, cell: Cell | None, shown: Shown, room: int, front: bool) -> Shown:
        """A name is cut in brief; other words go on below."""
        return shown if self.whole or cell is None or not cell.name else _cut(shown, room, front)

    def _name(self, title: Runs, width: int, style: str) -> Shown:
        """A document's name on a line of its own, whole or cut at its front."""
        shown = Shown(self._text(title, named=True), style, overflow="fold")
        return shown if self.whole else _cut(shown, width, True)

    def words(self, given: Runs, style: str = "") -> Shown:
        """Runs as lines, as many as they take."""
        return Shown(self._text(given), style, overflow="fold")

    def _line(self, given: str, style: str = "") -> Shown:
        return Shown(self._safe(given), style, overflow="fold")

    def _text(self, given: Runs, *, named: bool = False) -> str:
        """What runs say; a name, and what stands there to be copied, keeps its own typography."""
        if not named:
            given = tuple(run if "code" in run.tags else Run(_ascii(run.text), run.tags) for run in given)
        return self._carried(plain(given))

    def _safe(self, given: str) -> str:
        return self._carried(_ascii(clean(given)))

    def _carried(self, given: str) -> str:
        return clean(given).encode(self.encoding, "backslashreplace").decode(self.encoding)


def _followed(blocks: Sequence[Block]) -> Iterator[Block]:
    """Blocks without headings that nothing follows before the next one."""
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if not isinstance(block, Heading) or not _ends(after, block.level):
            yield block


def _ends(after: Block | None, level: int) -> bool:
    return after is None or (isinstance(after, Heading) and after.level <= level)


def _breadth(head: str, cells: Sequence[Shown]) -> int:
    """Columns that hold every cell; a long name of theirs may take several lines."""
    widest = max(map(len, head.split()), default=1)
    return max([widest, min(len(head), _HEAD), *(cell.cell_len for cell in cells)])


def _room(columns: Sequence[Column], natural: Sequence[int], width: int) -> dict[int, int]:
    """How broad each column is that there is room for: those of the highest rank go first.

    Numbers have what they take; what is left over goes to words, the first ones first.
    """
    least = [n if columns[i].align == "r" else min(n, _OTHER if i else _FIRST) for i, n in enumerate(natural)]
    kept = list(range(len(columns)))
    while sum(least[i] + 2 for i in kept) > width and any(columns[i].rank for i in kept):
        kept.remove(max(kept, key=lambda i: columns[i].rank))
    left = width - sum(least[i] + 2 for i in kept)
    room = {}
    for i in kept:
        more = max(0, min(natural[i] - least[i], left))
        left -= more
        room[i] = least[i] + more
    return room


def _cut(shown: Shown, room: int, front: bool) -> Shown:
    """Cut to ``room`` columns; a name at its front: its end has the line number or the file."""
    if shown.cell_len <= room:
        return shown
    kept = shown.copy()
    if front:
        kept.plain = "..." + set_cell_size(shown.plain[::-1], room - 3)[::-1].lstrip()
    else:
        kept.plain = set_cell_size(shown.plain, room - 3).rstrip() + "..."
    return kept
