"""A story as Markdown, as GitHub reads it: tables with pipes, and every string escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from detect.records.written import clean
from detect.report.paper.layout import ELSEWHERE, description, placed
from detect.report.runs import Runs, said
from detect.report.story import (
    STANDING,
    Block,
    Code,
    Details,
    Formula,
    Heading,
    Items,
    Leaf,
    Pairs,
    Plots,
    Quote,
    Story,
    Table,
    Text,
    Tokens,
)

_SPECIAL = re.compile(r"[\\`*_\[\]<>#|~$&@]|(?<=[a-z]):(?=//)|(?<=\bwww)\.", re.IGNORECASE)
_AT_START = re.compile(r"^(\d*)([-+=.:])")
_TAGS = {"i": "i", "b": "b", "sub": "sub", "sup": "sup"}


def markdown(story: Story) -> str:
    """Write a story as one Markdown document; the same story gives the same text."""
    return "\n\n".join(_parts(story)) + "\n"


def _parts(story: Story) -> Iterator[str]:
    yield f"# {_plain(story.title)}"
    yield from (_plain(line) for line in (story.program, story.made) if line)
    yield f"**{_plain(story.headline)}**"
    yield from map(_paragraph, story.lead)
    if story.facts:
        yield _pairs([(fact.name, said(fact.line)) for fact in story.facts])
    for title, lines in story.parts:
        yield f"### {_plain(title)}"
        yield _list(lines)
    for section in story.sections:
        yield f"## {_plain(section.title)}"
        yield from _blocks(section.blocks)
    yield from map(_paragraph, story.foot)


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    level = 4 if any(isinstance(block, Heading) for block in blocks) else 3
    for block in blocks:
        if isinstance(block, Details):
            yield f"{'#' * level} {_words(block.title)}"
            yield from (written for inner in block.blocks for written in _leaf(inner))
        else:
            yield from _leaf(block)


def _leaf(block: Leaf) -> Iterator[str]:
    match block:
        case Text():
            yield _paragraph(block.text)
        case Heading():
            badge = f" ({_plain(block.badge)})" if block.badge else ""
            yield f"{'#' * block.level} {_words(block.text)}{badge}"
        case Formula():
            yield f"> {_words(block.text)}"
        case Items():
            yield _list([(*said(STANDING[item.standing]), *item.text) for item in block.items])
        case Code():
            fence = _fence(block.text, 3)
            yield "\n".join([fence, *(clean(line) for line in block.text.split("\n")), fence])
        case Table():
            yield _table(block)
        case Pairs():
            yield _pairs(block.pairs)
        case Plots():
            for plot in block.plots:
                yield f"> Drawing: {_plain(description(plot))} {_words(plot.caption)}".rstrip()
        case Tokens():
            yield _plain(ELSEWHERE)
        case Quote():
            yield f"> {_paragraph(said(block.text))}"


def _table(table: Table) -> str:
    heads = [_words(column.name, True) for column in table.columns]
    rows = [["" if cell is None else _words(cell.text, True) for cell in row] for row in placed(table)]
    return _rows(heads, ["---:" if column.align == "r" else "---" for column in table.columns], rows)


def _pairs(pairs: Sequence[tuple[str, Runs]]) -> str:
    return _rows(["", ""], ["---", "---"], [[_plain(name), _words(value, True)] for name, value in pairs])


def _rows(heads: Sequence[str], rules: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rules, *rows])


def _list(lines: Sequence[Runs]) -> str:
    return "\n".join(f"- {_paragraph(line)}" for line in lines)


def _paragraph(given: Runs) -> str:
    """Runs at the start of a line, where some characters begin a list or a heading."""
    return _AT_START.sub(r"\1\\\2", _words(given))


def _plain(given: str) -> str:
    """A string of which nothing is markup."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", clean(given))


def _words(given: Runs, in_table: bool = False) -> str:
    """Runs in one line; in a table even what is code escapes its pipes."""
    written = []
    for tags, found in groupby(given, lambda run: run.tags):
        text = clean("".join(run.text for run in found))
        if "code" in tags:
            written.append(_code(text.replace("|", "\\|") if in_table else text))
        else:
            written.append(_tagged(_plain(text), tags))
    return "".join(written)


def _tagged(text: str, tags: Sequence[str]) -> str:
    for tag in reversed(tags):
        if tag in _TAGS:
            text = f"<{tag}>{text}</{tag}>"
    return text


def _code(text: str) -> str:
    """A code span, which no backtick in it ends."""
    fence = _fence(text, 1)
    pad = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def _fence(text: str, least: int) -> str:
    return "`" * max([least, *(len(found) + 1 for found in re.findall("`+", text))])
