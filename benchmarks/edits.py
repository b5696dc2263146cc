"""What happens to a text between the model and a corpus: edits as pure functions, text in and text out.

Random edits take a numpy generator, so that a run can be repeated.
"""

# ruff: noqa: RUF001 (quotation marks that look alike are the subject)

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_SENTENCE = re.compile(r".+?(?:[.!?]+[\"'”’)]*(?=\s)|$)", re.MULTILINE)
_STRAIGHT = str.maketrans(
    {"‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "‟": '"', "«": '"', "»": '"'}
)

# In this order: a fence goes before the backticks inside a line, an image before a link, bold before italics.
_MARKDOWN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^[ \t]*(```|~~~).*\n?", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*([-*_])([ \t]*\1){2,}[ \t]*$\n?", re.MULTILINE), ""),
    (re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE), ""),
    (re.compile(r"^[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t]+", re.MULTILINE), ""),
    (re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"(\*\*|__)(?=\S)([^\n]*?\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])([*_])(?=[^\s*_])([^\n*_]*[^\s*_])\1(?![\w*])"), r"\2"),
    (re.compile(r"`+([^`\n]+)`+"), r"\1"),
)


def words(text: str) -> list[str]:
    """The words of a text, without the punctuation around them."""
    return _WORD.findall(text)


def edit_words(text: str, share: float, others: Sequence[str], generator: np.random.Generator) -> str:
    """Edit a share of a text's words: substitutions, deletions and insertions in equal parts, at random places.

    Parameters
    ----------
    text
        What to edit; whatever stands between its words stays, but for the space before a deleted word.
    share
        Of the words, 0 to 1; the number of edits is rounded.
    others
        Where new words are drawn from, those of a corpus as often as they occur there.
    generator
        Chooses the places, the kinds and the words.
    """
    pieces = _pieces(text)
    count = len(pieces) // 2
    edits = round(share * count)
    places = generator.choice(count, edits, replace=False) if edits else ()
    turn = int(generator.integers(3))  # so that few edits are not always substitutions
    for number, word in enumerate(places):
        place = 2 * int(word) + 1
        kind = (turn + number) % 3
        if kind == 0:
            pieces[place] = _other(pieces[place], others, generator)
        elif kind == 1:
            pieces[place] = ""
            pieces[place - 1] = pieces[place - 1].removesuffix(" ")
        else:
            pieces[place] += " " + _other("", others, generator)
    return "".join(pieces)


def _pieces(text: str) -> list[str]:
    """What stands between words at even places, the words at odd ones; joined they are the text."""
    found, end = [], 0
    for match in _WORD.finditer(text):
        found += [text[end : match.start()], match.group()]
        end = match.end()
    return [*found, text[end:]]


def _other(word: str, others: Sequence[str], generator: np.random.Generator) -> str:
    """A word that is not this one."""
    for _ in range(100):
        drawn = others[int(generator.integers(len(others)))]
        if drawn != word:
            return drawn
    raise ValueError(f"there is no word to put in the place of {word!r}; give more than {len(set(others))} words")


def lower_case(text: str) -> str:
    """All letters small."""
    return text.lower()


def one_space(text: str) -> str:
    """Every run of white space, line ends too, becomes one space; none at the ends."""
    return " ".join(text.split())


def plain_unicode(text: str) -> str:
    """Compatibility forms are composed (NFKC) and curly quotation marks become straight."""
    return unicodedata.normalize("NFKC", text).translate(_STRAIGHT)


def plain_markdown(text: str) -> str:
    """Headings, emphasis, code marks, lists, quotations, rules and links lose their marks and keep their words."""
    for pattern, kept in _MARKDOWN:
        text = pattern.sub(kept, text)
    return text


def sentences(text: str, least: int = 5) -> list[str]:
    """Cut a text into its sentences and lines; one of fewer than ``least`` words is joined to its neighbour."""
    found: list[str] = []
    for part in filter(None, map(str.strip, _SENTENCE.findall(text))):
        if found and min(len(words(part)), len(words(found[-1]))) < least:
            found[-1] += " " + part
        else:
            found.append(part)
    return found
