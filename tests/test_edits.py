# ruff: noqa: RUF001 (quotation marks that look alike are the subject)

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.edits import (
    edit_words,
    lower_case,
    one_space,
    plain_markdown,
    plain_unicode,
    sentences,
    words,
)

OTHERS = ("zebra", "quagga", "okapi", "it's")
TEXT = "The keeper said: “don't go out (again)!”\n\n* He went,  all the same, and saw 3 ships. " * 20

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
marked_up = st.text(st.sampled_from("ab *_#`>-[]()!~1.\n"), max_size=60)


@given(texts, st.floats(0, 1), st.integers(0, 9))
def test_word_edits_are_as_many_as_asked_and_leave_the_rest(text: str, share: float, seed: int) -> None:
    edited = edit_words(text, share, OTHERS, np.random.default_rng(seed))
    assert abs(len(words(edited)) - len(words(text))) <= round(share * len(words(text)))
    if round(share * len(words(text))) == 0:
        assert edited == text


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_word_edits_come_in_equal_parts(share: float) -> None:
    before = words(TEXT)
    after = words(edit_words(TEXT, share, OTHERS, np.random.default_rng(1)))
    edits = round(share * len(before))
    new = sum(word in OTHERS for word in after)
    gone = len(before) + new - len(after)
    # One third each: new words are substitutes and insertions, lost ones are substituted and deleted.
    assert new == pytest.approx(edits * 2 / 3, abs=1)
    assert gone == pytest.approx(edits * 2 / 3, abs=1)
    assert len(after) == pytest.approx(len(before), abs=1)


def test_word_edits_keep_punctuation_and_line_ends() -> None:
    def skeleton(text: str) -> str:
        return re.sub(r"[\w'’ ]+", "", text)

    edited = edit_words(TEXT, 0.5, OTHERS, np.random.default_rng(2))
    assert skeleton(edited) == skeleton(TEXT)
    assert edited == edit_words(TEXT, 0.5, OTHERS, np.random.default_rng(2))
    assert edited != edit_words(TEXT, 0.5, OTHERS, np.random.default_rng(3))


def test_a_substitute_is_another_word() -> None:
    text = "okapi " * 300
    with pytest.raises(ValueError, match="no word to put in the place of 'okapi'; give more than 1 words"):
        edit_words(text, 1, ("okapi",), np.random.default_rng(0))
    # A third each: 100 substitutes that are no okapi, 100 deletions, 100 insertions of either.
    assert words(edit_words(text, 1, ("okapi", "zebra"), np.random.default_rng(0))).count("zebra") >= 100


@given(texts)
def test_normal_forms_are_normal(text: str) -> None:
    assert one_space(one_space(text)) == one_space(text)
    assert one_space(text).split() == text.split()
    assert plain_unicode(plain_unicode(text)) == plain_unicode(text)
    assert lower_case(text) == text.lower()


def test_unicode_and_white_space() -> None:
    assert plain_unicode("“ﬁne” ‘x’ … \u00a0Å") == "\"fine\" 'x' ...  Å"
    assert one_space(" a\n\n b\t c\u00a0d ") == "a b c d"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("# Bread\n\n## How *not* to\n", "Bread\n\nHow not to\n"),
        ("1. **Flour**: white\n2) __Salt__\n- a\n* b\n  + c", "Flour: white\nSalt\na\nb\nc"),
        ("```python\nx = 1\n```\nand `y`", "x = 1\nand y"),
        ("see [the map](http://a/b) and ![a ship](s.png)", "see the map and a ship"),
        ("> quoted\n\n---\n\nafter", "quoted\n\n\nafter"),
        ("***both***", "both"),
        ("2 * 3 * 4, snake_case_name, 5*6*7, #1", "2 * 3 * 4, snake_case_name, 5*6*7, #1"),
    ],
)
def test_markdown_is_stripped_and_other_text_is_not(text: str, plain: str) -> None:
    assert plain_markdown(text) == plain


@given(marked_up)
def test_markdown_marks_alone_are_lost(text: str) -> None:
    kept = iter(text)
    assert all(character in kept for character in plain_markdown(text))  # a subsequence: nothing is added


@given(texts)
def test_sentences_hold_all_of_a_text(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_sentences() -> None:
    text = 'He asked me "Where is the old map?" I did not know it. No.\n\nThen we went to the sea: 3.5 miles'
    assert sentences(text) == [
        'He asked me "Where is the old map?"',
        "I did not know it. No.",
        "Then we went to the sea: 3.5 miles",
    ]
