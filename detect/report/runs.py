"""Text with a little markup (italic, powers, code), written once for the pages and the PDF.

The markup is the project's own; values are put in after it was read, cleaned, so that nothing in them is markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup

from detect.records.written import clean, format_e, format_level, format_p

_TOKEN = re.compile(r"<(/?)(i|b|sub|sup|code|n)>|\$([a-z_]+)")
_SINGLE = re.compile(r"[-\w.]+")
_LONGEST = 300  # characters kept of a value


class Run(NamedTuple):
    """A stretch of text and the tags it stands in, outermost first: i, b, sub, sup, code, n (not broken over lines)."""

    text: str
    tags: tuple[str, ...] = ()


Runs = tuple[Run, ...]


def runs(template: str, **values: str | int | Runs) -> Runs:
    """Read ``<i>``, ``<b>``, ``<sub>``, ``<sup>``, ``<code>``, ``<n>`` and put in values for ``$name``.

    Parameters
    ----------
    template
        The project's own text.
    values
        Untrusted strings (cleaned and cut here), whole numbers (written with commas) or other runs.

    Examples
    --------
    >>> runs("<i>n</i> is $n", n=1000)
    (Run(text='n', tags=('i',)), Run(text=' is ', tags=()), Run(text='1,000', tags=()))
    """
    found: list[Run] = []
    tags: tuple[str, ...] = ()
    end = 0
    for match in _TOKEN.finditer(template):
        if match.start() > end:
            found.append(Run(template[end : match.start()], tags))
        end = match.end()
        closing, tag, name = match.groups()
        if name:
            found += [Run(run.text, tags + run.tags) for run in _value(values[name])]
        else:
            tags = tags[:-1] if closing else (*tags, tag)
    if end < len(template):
        found.append(Run(template[end:], tags))
    return tuple(found)


def _value(value: str | int | Runs) -> Runs:
    if isinstance(value, tuple):
        return value
    return (Run(f"{value:,}" if isinstance(value, int) else clean(value, _LONGEST)),)


def said(given: str | int, limit: int = _LONGEST) -> Runs:
    """A string, cleaned and cut, or a whole number with commas, as it stands: nothing in it is markup."""
    return (Run(f"{given:,}" if isinstance(given, int) else clean(given, limit)),)


def commanded(given: str, limit: int) -> Runs:
    """As `said`, and what stands between two backticks is code."""
    pieces = clean(given, limit).split("`")
    if len(pieces) % 2 == 0:
        return said(given, limit)
    return tuple(Run(piece, ("code",) if i % 2 else ()) for i, piece in enumerate(pieces) if piece)


def p_value(log10_p: float | None) -> Runs:
    """Write a p-value, rounded up."""
    return power(format_p(log10_p))


def e_value(log10_e: float) -> Runs:
    """Write an e-value, rounded down."""
    return power(format_e(log10_e))


def level(alpha: float) -> Runs:
    """Write a level such as 1e-6."""
    return power(format_level(alpha))


def power(text: str) -> Runs:
    """Write "10^-38.2" with a raised exponent; leave anything else as it is."""
    base, separator, exponent = text.partition("^")
    if not separator:
        return (Run(text),)
    return Run(base, ("n",)), Run(exponent.replace("-", "\N{MINUS SIGN}"), ("n", "sup"))


def listed(parts: Sequence[Runs]) -> Runs:
    """Write "a, b and c"."""
    joined: list[Run] = []
    for i, part in enumerate(parts):
        if i:
            joined.append(Run(" and " if i == len(parts) - 1 else ", "))
        joined += part
    return tuple(joined)


def plain(text: Runs) -> str:
    """The text without its markup; what is raised keeps a "^", what is lowered a "_"."""
    written = []
    for sign, found in groupby(text, lambda run: "^" if "sup" in run.tags else "_" if "sub" in run.tags else ""):
        inner = "".join(run.text for run in found)
        if sign:
            inner = inner.replace("\N{MINUS SIGN}", "-")
            inner = sign + (inner if _SINGLE.fullmatch(inner) else f"({inner})")
        written.append(inner)
    return "".join(written)


def to_html(text: Runs) -> Markup:
    """Write as escaped HTML, every string cleaned."""
    return Markup("").join(_html(text, 0))


def _html(text: Iterable[Run], depth: int) -> Iterator[Markup]:
    """Neighbours in the same tag share it."""
    for tag, found in groupby(text, lambda run: run.tags[depth] if depth < len(run.tags) else ""):
        if not tag:
            yield from (Markup("{}").format(clean(run.text)) for run in found)
            continue
        inner = Markup("").join(_html(found, depth + 1))
        yield Markup('<span class="num">{}</span>' if tag == "n" else f"<{tag}>{{}}</{tag}>").format(inner)


def to_data(text: Runs) -> list[list[str]]:
    """Write as lists of text and its tags, joined by spaces, for the PDF's template."""
    return [[run.text, " ".join(run.tags)] for run in text]
