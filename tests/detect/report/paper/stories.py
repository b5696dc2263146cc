"""Stories that are made by hand: one holds every block, and every string in it is hostile."""

from __future__ import annotations

from dataclasses import replace

from detect.report.closing import cell, code, digest_cell, e_cell, name_cell, p_cell, plotted
from detect.report.paper import plots, svg
from detect.report.runs import Run, Runs, p_value, runs, said
from detect.report.story import (
    Cell,
    Code,
    Column,
    Details,
    Fact,
    Heading,
    Item,
    Items,
    Leaf,
    Pairs,
    Quote,
    Section,
    Story,
    Table,
    Text,
    Token,
    Tokens,
    formula,
    heading,
    lines,
    text,
)

HOSTILE = "<script>alert(1)</script> & \x1b[31mred\x07 \u202eevil\u202c | `tick` *star* _line_ [a](javascript:b) #if"
"""Markup of every medium, an escape sequence of terminals, a bell and marks that turn the direction of text."""
NAME = "a/very/long/folder/" * 12 + "documents-0001.jsonl:42"
DIGEST = "0123456789abcdef" * 4
PLAIN = "A line that every reader must see."


def everything(hostile: str = HOSTILE, name: str = NAME) -> Story:
    """A story with every block; ``hostile`` stands wherever words from outside can stand."""
    return Story(
        kind="corpus scan",
        title="Corpus scan report",
        tone="marked",
        headline=f"The mark is there, says {hostile}.",
        lead=[runs("A chance of at most <b>$p</b>, says $who.", p=p_value(-38.2), who=hostile)],
        facts=[Fact("Documents", "1,234"), Fact("Strength", "1.82", "against 1.00"), Fact("From", hostile, hostile)],
        parts=[
            ("What was tested", [runs("$n documents from <code>$name</code>.", n=1234, name=hostile)]),
            ("How sure the answer is", [said(PLAIN), runs("A <i>level</i> of $p.", p=p_value(-6))]),
            ("What it does not show", [said("That is it.")]),
        ],
        sections=[
            Section("Documents", "documents", [*_first(hostile), _table(hostile, name)], in_brief=True),
            Section("Evidence", "details", [_details(hostile, name, "d1"), _details(hostile, name, "d2")]),
            Section("Controls", "controls", _controls(hostile), short="Checks"),
            Section("Method", "method", _method(hostile)),
            Section("Briefly", "briefly", [said_text("Only in the whole.")], True, brief=[said_text("Only in brief.")]),
        ],
        program="dyetrace 0.1.0, 2026-11-29 17:16 UTC",
        made=f"Examiner: {hostile}; case: 7",
        footer="dyetrace 0.1.0, corpus scan report; key 0123",
        created="2026-11-29T17:16:05+00:00",
        foot=[said(f"key 0123, says {hostile}")],
    )


def without_brief() -> Story:
    """The same with an answer in other words for terminals."""
    return replace(everything(), brief=[said("Mark found in 3 of 4 documents"), runs("p = $p", p=p_value(-38.2))])


def said_text(given: str) -> Text:
    """A paragraph of one string."""
    return Text(said(given))


def _first(hostile: str) -> list[Leaf]:
    return [
        text("$n documents, strongest first: $who.", n=3, who=hostile),
        text("A soft note.", soft=True),
    ]


def _table(hostile: str, name: str) -> Table:
    columns = [
        Column(runs("Document"), width=3),
        Column(runs("Verdict"), rank=1),
        Column(runs("p"), "r"),
        Column(runs("p, 10<sup>2</sup> documents"), "r", rank=3),
        Column(runs("e-value"), "r", rank=4),
        Column(runs("Tuples"), "r", rank=5),
        Column(runs("SHA-256"), width=3, rank=6),
    ]
    rows = [
        [
            name_cell(given, link=link),
            Cell(said("marked" if link else "no mark"), tone="marked" if link else "unmarked"),
            p_cell(-38.2),
            p_cell(None),
            e_cell(12.3),
            cell(1234567),
            digest_cell(DIGEST),
        ]
        for given, link in ((name, "d1"), (hostile, "d2"), ("-", ""))
    ]
    return Table(f"Verdicts, says {hostile}", columns, rows)


def _details(hostile: str, name: str, ident: str) -> Details:
    columns = [Column(runs("Key")), Column(runs("Tuples"), "r"), Column(runs("Sub-key"), "r"), Column(runs("p"), "r")]
    rows = [
        [name_cell("global", rows=2), cell(100, rows=2), cell(0), p_cell(-3.2)],
        [cell(1), p_cell(-0.2)],
        [name_cell(name, rows=2), cell(90, rows=2), cell(0), p_cell(-0.1)],
        [cell(1), p_cell(0.0)],
    ]
    tokens = [
        Token("The ", 0, "p = 0.5"),
        Token("dye\n", 3, "p = 0.01"),
        Token("\there ", 5, f"p = {hostile}"),
        Token(hostile, -1),
        Token(" and", -1),
        Token(" there", 1),
    ]
    return Details(
        said(name),
        ident,
        [
            text("p = $p, says $who.", p=p_value(-12), who=hostile),
            Heading(said("Keys tested"), f"{ident}k", 4),
            Table("Keys", columns, rows),
            *plotted([(plots.decoy_strip([-0.1, -0.4, -1.2], -9.0, f"{ident}s"), "Every key."), (None, "Not drawn.")]),
            Tokens(tokens, [(1, "p ≤ 0.3"), (3, "p ≤ 0.1"), (-1, "not counted")]),
            Quote(hostile),
        ],
    )


def _controls(hostile: str) -> list[Leaf]:
    return [
        Items(
            [
                Item(said("Decoys agree with chance"), "good"),
                Item(said(f"Names, says {hostile}"), "odd"),
                Item(said("No control corpus"), "absent"),
            ]
        ),
        *plotted(
            [
                (svg.figure("named", hostile, hostile, []), "A drawing."),
                (plots.decoy_curve([-0.1, -0.4, -1.2], -9.0, "c"), "Of decoys."),
            ]
        ),
    ]


def _method(hostile: str) -> list[Leaf]:
    return [
        heading("The score", "score"),
        Heading(said("Is it chance?"), "chance", 3, "not answered by this report"),
        formula("<i>T</i> = Σ <i>w</i><sub><i>i</i></sub> · λ<sup>2</sup> ≤ $p", p=p_value(-6)),
        lines([said("A. Author, “A paper”, 2020."), said(hostile)], small=True),
        Code(f"dyetrace scan data/\n  --case {hostile}\n\tend"),
        Pairs("This run", [("SHA-256", code(DIGEST)), (f"Argument {hostile}", said(hostile)), ("Level", _level())]),
    ]


def _level() -> Runs:
    return (*p_value(-6), Run(" in all"))
