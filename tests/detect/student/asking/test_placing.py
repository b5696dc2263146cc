"""Where texts stand in the tokens that have log-probabilities, as engines send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.answers import Position, TokenLogprob
from detect.student.asking.message_texts import Said
from detect.student.asking.placing import places_of


def tokens(*words: str | bytes) -> list[Position]:
    raws = [word.encode() if isinstance(word, str) else word for word in words]
    return [Position(TokenLogprob(raw.decode("utf-8", "replace"), raw, None, -1.0), ()) for raw in raws]


def place(text: str, *words: str | bytes) -> object:
    return places_of([Said("answer", text)], tokens(*words))[0]


@pytest.mark.parametrize(
    ("text", "words", "found"),
    [
        ("one two", ["one", " two"], {0: 0, 3: 1}),
        ("one two", ["one", " two", "<|im_end|>"], {0: 0, 3: 1}),
        ("one two", [" one", " two"], {3: 1}),  # a blank was taken away: what stands before it is no place of the text
        (" one two", ["one", " two"], {1: 0, 4: 1}),
        ("one two\n", ["one", " two"], {0: 0, 3: 1}),
        ("one two", ["<think>", "one", " two", " hm", "</think>", "one", " two"], {0: 5, 3: 6}),  # hidden reasoning
        ("one two, thr", ["one", " two", ", three"], {0: 0, 3: 1, 7: 2}),
        ("shown before: one two", [" one", " two", "<eos>"], {13: 0, 17: 1}),  # the prompt's end is repeated
        ("\u00e9", [b"\xc3", b"\xa9"], {0: 0, 1: 1}),
        ("a \u00e9 b", ["a", " ", " b"], {0: 0, 1: 1, 4: 2}),  # tokens within a character are left out,
        ("a \u00e9 b", ["a", " \ufffd", "\ufffd", " b"], {0: 0, 1: 1, 4: 3}),  # or shown as no character,
        ("a \u65e5\u672c b", ["a", " ", "", "\u65e5", "\u672c", " b"], {0: 0, 1: 1, 5: 4, 8: 5}),  # or as nothing
        ("a \u65e5\ufffd", ["a", " \u65e5", b"\xe6"], {0: 0, 1: 1}),  # cut off within a character
        ("one two", ["\u0120one", "\u0120two"], None),
        ("one two", ["on", "two"], None),
        ("one\ntwo", ["<|im_start|>", "one", "<|im_end|>", "\n", "two"], {0: 1, 3: 3, 4: 4}),  # vLLM leaves marks out
        ("\u00e9 two", ["\u00e9", "</s>", "<s>", " two", "<|im_end|>"], {0: 0, 2: 3}),
        ("a <b> c", ["a", " ", "<b>", " c"], {0: 0, 1: 1, 2: 2, 5: 3}),
        ("a c", ["a", "<b> ", " c"], None),
        ("one two", [], None),
        ("\ufffd", [b"\xc3"], {}),
        (" ", [" "], {}),
    ],
)
def test_a_text_is_found_among_its_tokens(text: str, words: list[str | bytes], found: object) -> None:
    assert place(text, *words) == found


def test_reasoning_and_answer_are_found_one_after_the_other() -> None:
    words = ["<think>", "4", " two", "</think>", "\n", "4", " two", "<eos>"]
    said = [Said("reasoning", "4 two"), Said("answer", "4 two")]
    assert places_of(said, tokens(*words)) == [{0: 1, 1: 2}, {0: 5, 1: 6}]
    assert places_of([said[0], Said("answer", "no")], tokens(*words)) == [{0: 1, 1: 2}, None]
    hidden = [Said("reasoning", "summed up by another model"), Said("answer", "4 two")]
    assert places_of(hidden, tokens(*words[5:])) == [None, {0: 0, 1: 1}]


def test_alternatives_to_the_end_of_a_character_are_of_no_use() -> None:
    """llama.cpp's server shows the whole character with the id and the alternatives of its last byte."""
    whole = TokenLogprob("\u00e9", "\u00e9".encode(), 7, -1.0)
    last = TokenLogprob("\ufffd", b"\xa9", 7, -1.0)
    found = [*tokens("a"), Position(whole, (last, TokenLogprob("x", b"x", 8, -2.0))), *tokens("b")]
    assert places_of([Said("answer", "a\u00e9b")], found) == [{0: 0, 3: 2}]


def at(word: str, *others: str | bytes) -> Position:
    """A token with its alternatives, the likeliest first, as llama.cpp's server gave them."""
    raws = [other.encode() if isinstance(other, str) else other for other in others]
    top = [TokenLogprob(raw.decode("utf-8", "replace"), raw, n, -1.0 - n) for n, raw in enumerate(raws)]
    return Position(TokenLogprob(word, word.encode(), 99, -3.0), tuple(top))


def test_alternatives_to_the_end_of_a_character_are_known_by_what_they_say() -> None:
    """The word itself is not among them, where it is none of the likeliest: its id tells nothing."""
    dog, cat, comma = "\U0001f436", "\U0001f431", "\uff0c"
    found = [
        at("a", "b"),
        at(dog, b"\xb1", b"\xb5"),
        at(comma, b"\xef\xbc", ","),
        at(cat, cat, b"\xb5"),
        at(cat, "I", b"\xb5"),
        at(f" {dog}", b"\xb1", "x"),
        at(" b", b"\xb1"),
    ]
    text = f"a{dog}{comma}{cat}{cat} {dog} b"
    assert places_of([Said("answer", text)], found) == [{0: 0, 5: 2, 8: 3, 12: 4, 21: 6}]


def test_a_text_of_which_all_alternatives_belong_elsewhere_is_spelled_and_has_no_places() -> None:
    dog = at("\U0001f436", b"\xb1", b"\xb5")
    assert places_of([Said("answer", "\U0001f436" * 2)], [dog, dog]) == [{}]


@given(st.text(max_size=12), st.lists(st.text(max_size=4) | st.binary(max_size=3), max_size=8))
def test_places_are_where_the_tokens_stand(text: str, words: list[str | bytes]) -> None:
    sound = text.encode("utf-8", "replace").decode()
    found = place(sound, *(word.encode("utf-8", "replace") if isinstance(word, str) else word for word in words))
    assert found is None or isinstance(found, dict)
    for at, number in (found or {}).items():
        assert 0 <= at < len(sound.encode()) and 0 <= number < len(words)


@given(st.lists(st.text(alphabet="ab \u00e9\u65e5", min_size=1, max_size=4), min_size=1, max_size=8))
def test_tokens_that_spell_a_text_are_all_found(words: list[str]) -> None:
    text = "".join(words)
    if text.strip() != text:
        return
    starts = [len("".join(words[:n]).encode()) for n in range(len(words))]
    assert place(text, *words) == {start: n for n, start in enumerate(starts)}
