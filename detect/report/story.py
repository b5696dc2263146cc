"""What a report says, before it is known on what: a record becomes a story, and a story becomes a page, a PDF or lines.

A story is made once for each kind of record (`detect.report.kinds`). What draws it (`detect.report.paper`) knows blocks
and no record, so that every kind has every form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from detect.report.runs import Runs, runs

Standing = Literal["", "good", "odd", "absent"]

STANDING: dict[Standing, str] = {"": "", "good": "As it should be: ", "odd": "Take note: ", "absent": "Not there: "}
"""What stands before the line of a control where its colour can't be seen."""

Tone = Literal["marked", "unmarked", "refused"]
"""Colour of an answer: the mark is found, it isn't, or no answer is given."""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; a soft one is a note that some readers may pass over, and one with a tone is a verdict."""

    text: Runs
    soft: bool = False
    tone: Tone | None = None


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading inside a section; links lead to its ``ident``, and a ``badge`` stands beside it."""

    text: Runs
    ident: str = ""
    level: Literal[3, 4] = 3
    badge: str = ""


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula on a line of its own."""

    text: Runs


@dataclass(frozen=True, slots=True)
class Item:
    """A line of a list; of a control, whether it is as it should be."""

    text: Runs
    standing: Standing = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences."""

    items: Sequence[Item]
    small: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """Lines of a command or a file."""

    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name
        Its head.
    align
        "l" for words, "r" for numbers.
    width
        Its share of the room on paper; 0: as wide as needed.
    rank
        Where there is no room for all (a terminal), columns of higher rank go first; those of rank 0 always stay.
    """

    name: Runs
    align: Literal["l", "r"] = "l"
    width: int = 0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a table at one place.

    Attributes
    ----------
    text
        Its words; hashes and names stand in ``code`` runs where they are to be copied.
    link
        The ``ident`` of a heading of the same story.
    tone
        Colour, of a verdict.
    rows
        How many rows it takes; the rows below have no cell there.
    name
        Whether it is a name from outside: of a file, an account, a model (cut or broken where there is no room).
    """

    text: Runs
    link: str = ""
    tone: Tone | None = None
    rows: int = 1
    name: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the first cell of a row names it.

    Attributes
    ----------
    caption
        What the table shows, for those who hear the page.
    on_paper, on_screen
        Rows that a PDF and a terminal show at most; a line says how many there are.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    on_paper: int = 60
    on_screen: int = 40


@dataclass(frozen=True, slots=True)
class Pairs:
    """A table of two columns without a head: what something is called, and what it is."""

    caption: str
    pairs: Sequence[tuple[str, Runs]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing that says in words what it shows (its ``desc``)."""

    svg: Markup
    caption: Runs


@dataclass(frozen=True, slots=True)
class Plots:
    """Drawings side by side where there is room."""

    plots: Sequence[Plot]


@dataclass(frozen=True, slots=True)
class Token:
    """A stretch of a suspect text; ``tint`` 0 to 5 by how surprising its score is, -1 where it is not counted."""

    text: str
    tint: int
    title: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A suspect text, tinted; and what each tint means."""

    tokens: Sequence[Token]
    legend: Sequence[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of a suspect, quoted."""

    text: str


Leaf = Text | Heading | Formula | Items | Code | Table | Pairs | Plots | Tokens | Quote


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that belong together, of one document: a page may fold them, and a PDF keeps their head with them."""

    title: Runs
    ident: str
    blocks: Sequence[Leaf]


Block = Leaf | Details


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report under a heading of its own.

    Attributes
    ----------
    ident
        Where links lead; ASCII letters.
    in_brief
        Whether a terminal shows it when nobody asks for the whole report.
    short
        Its name among the links at the top of a page, where that is shorter.
    brief
        What a terminal shows of it then, where that is less than all its blocks.
    on_paper
        Details that a PDF shows at most; a line says how many more there are.
    """

    title: str
    ident: str
    blocks: Sequence[Block]
    in_brief: bool = False
    short: str = ""
    brief: Sequence[Block] = ()
    on_paper: int = 60


@dataclass(frozen=True, slots=True)
class Fact:
    """A number with its name, and what it stands beside."""

    name: str
    value: str
    note: str = ""

    @property
    def line(self) -> str:
        """The number and what it stands beside, where they share a line."""
        return f"{self.value} ({self.note})" if self.note else self.value


@dataclass(frozen=True, slots=True)
class Story:
    """What a report says.

    Attributes
    ----------
    kind
        For titles of files: "corpus scan".
    title
        For the reader: "Corpus scan report".
    tone, headline, lead
        The answer: its colour, one line, and the sentences that belong to it.
    facts
        The numbers that a reader looks for first.
    parts
        Lists of sentences under headings of their own, on the first page.
    brief
        The answer in a terminal where it is told in other words: lines in plain ASCII, the first one in the tone's
        colour. Empty: the whole first page, that is headline, lead, facts and parts.
    program, made, footer, created
        What wrote the report and when, by whom and for which case, what stands at the foot of each page of paper, and
        the time of making as ISO 8601 ("" where there is none).
    foot
        In a terminal, the last lines: which key, whose code.
    """

    kind: str
    title: str
    tone: Tone
    headline: str
    lead: Sequence[Runs]
    facts: Sequence[Fact]
    parts: Sequence[tuple[str, Sequence[Runs]]]
    sections: Sequence[Section]
    program: str = ""
    made: str = ""
    footer: str = ""
    created: str = ""
    brief: Sequence[Runs] = ()
    foot: Sequence[Runs] = ()


def text(template: str, *, soft: bool = False, **values: str | int | Runs) -> Text:
    """Write a paragraph (see `detect.report.runs.runs`)."""
    return Text(runs(template, **values), soft)


def formula(template: str, **values: str | int | Runs) -> Formula:
    """Write a formula (see `detect.report.runs.runs`)."""
    return Formula(runs(template, **values))


def column(name: str, align: Literal["l", "r"] = "l", *, width: int = 0, rank: int = 0) -> Column:
    """Write a column; its name may have markup (see `detect.report.runs.runs`)."""
    return Column(runs(name), align, width, rank)


def heading(title: str, ident: str = "", level: Literal[3, 4] = 3) -> Heading:
    """Write a heading of fixed words."""
    return Heading(runs("$title", title=title), ident, level)


def lines(given: Sequence[Runs], *, small: bool = False) -> Items:
    """Write a list of sentences."""
    return Items([Item(line) for line in given], small)
