"""A story as one HTML page: no scripts, no network, nothing but the story in it.

Every string is cleaned (jinja2's finalize, `to_html`) and escaped (autoescape); what is built here as markup is built
from fixed words and escaped strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby, pairwise
from typing import Any

import jinja2
from markupsafe import Markup, escape

from detect.records.written import clean
from detect.report.paper.layout import Row, labels, placed, stretches
from detect.report.runs import Runs, plain, to_html
from detect.report.story import STANDING, Cell, Column, Story, Table, Token

_LONGEST = 300  # characters of a name among the facts and the headings
_SENTENCE = 60  # characters from which on a cell is read from the left, where cells stand below each other


def page(story: Story) -> str:
    """Draw a story as one self-contained page; the same story gives the same page."""
    return _template().render(story=story, standing=STANDING)


def _bodies(table: Table) -> Markup:
    """All rows; those that share their first cell have a body of theirs."""
    rows = placed(table)
    grouped = any(row[0] is None for row in rows)
    starts = [i for i, row in enumerate(rows) if not i or (grouped and row[0] is not None)]
    names = [escape(clean(label)) for label in labels(table)]
    written = ["".join(_row(row, table.columns, names) for row in rows[i:j]) for i, j in pairwise([*starts, len(rows)])]
    return Markup("\n").join(Markup(f"<tbody>\n{body}</tbody>") for body in written)


def _row(row: Row, columns: Sequence[Column], names: Sequence[Markup]) -> str:
    """Each cell bears its column's name, for screens on which there is no room for columns."""
    cells = [_cell(cell, i, columns[i].align == "r", names[i]) for i, cell in enumerate(row) if cell is not None]
    part = ' class="part"' if row[-1] is None else ""
    return f"<tr{part}>{''.join(cells)}</tr>\n"


def _cell(cell: Cell, number: int, right: bool, name: Markup) -> str:
    scope = "rowgroup" if cell.rows > 1 else "row"
    tag, what = ("td", f'data-label="{name}"') if number else ("th", f'scope="{scope}"')
    long = not right and not cell.name and len(plain(cell.text)) > _SENTENCE
    kinds = [
        *(["key" if number else "name"] if cell.name else []),
        *(["r"] if right else []),
        *(["long"] if long else []),
    ]
    classes = " ".join(kinds)
    given = f' class="{classes}"' if classes else ""
    reach = f' rowspan="{cell.rows}"' if cell.rows > 1 else ""
    return f"<{tag} {what}{given}{reach}>{_words(cell.text, cell.tone, cell.link)}</{tag}>"


def _words(text: Runs, tone: str | None, link: str = "") -> Markup:
    """Runs with the colour of a verdict, or as a link."""
    if link:
        return Markup('<a href="#{}">{}</a>').format(link, to_html(text))
    return Markup('<span class="verdict {}">{}</span>').format(tone, to_html(text)) if tone else to_html(text)


def _pieces(tokens: Sequence[Token]) -> Markup:
    """The text as spans; neighbours that aren't counted are one."""
    written = []
    for alike, found in groupby(tokens, lambda token: None if token.tint < 0 and not token.title else token):
        if alike is None:
            written.append(Markup('<span class="skip">{}</span>').format(_piece("".join(t.text for t in found))))
        else:
            written += [_span(token) for token in found]
    return Markup("").join(written)


def _span(token: Token) -> Markup:
    title = Markup(' title="{}"').format(clean(token.title)) if token.title else ""
    return Markup('<span class="{}"{}>{}</span>').format(_tint(token.tint), title, _piece(token.text))


def _tint(tint: int) -> str:
    return "skip" if tint < 0 else f"t{tint}"


def _piece(text: str) -> Markup:
    """Escape a token, its line breaks and tabs kept and line breaks made visible."""
    lines = text.replace("\r\n", "\n").split("\n")
    escaped = [Markup("\t").join(escape(clean(part)) for part in line.split("\t")) for line in lines]
    return Markup('<i class="nl">↵</i>\n').join(escaped)


def _lines(text: str) -> Markup:
    """Escape lines of a command or a file."""
    return Markup("\n").join(escape(clean(line)) for line in text.split("\n"))


def _finalize(value: Any) -> Any:
    """Clean every string that the template puts out, other than finished markup."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(name: str) -> str:
    return (files("detect.report.paper") / name).read_text("utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_finalize,
        loader=jinja2.FunctionLoader(_source),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bodies": _bodies,
        "kind": lambda block: type(block).__name__,
        "lines": _lines,
        "pieces": _pieces,
        "runs": to_html,
        "short": lambda text: clean(text, _LONGEST),
        "stretches": stretches,
        "tint": _tint,
        "words": _words,
    }
    return environment.get_template("story.html.j2")
