"""Where one token is asked for is decided by what stands before the place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from detect.models.reading import ReadingDocument, ReadingText, positions
from detect.race.cuts import cuts, first_of_runs

END = 0
LEAD = 2


def byte_tokenizer() -> Tokenizer:
    """Bytes, a merge ("a", "b") and an end: text that ends in "a", "b" apart is read as "ab"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": END} | {letter: 1 + place for place, letter in enumerate(alphabet)}
    vocabulary["ab"] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


TOKENIZER = byte_tokenizer()


def ids_of(*words: str) -> list[int]:
    """The ids of tokens, by their names."""
    vocabulary = TOKENIZER.get_vocab()
    return [vocabulary[word] for word in words]


LETTERS = ids_of(*"abcdefghijklmnopqrst")
PROMPT = ids_of("?", "!")


def text_of(*answers: list[int], before: int = 0) -> ReadingText:
    documents = [
        ReadingDocument(
            f"served.jsonl, line {number + 1}",
            np.array([*PROMPT, *answer], dtype=np.uint32),
            LEAD,
            0,
            before=np.array(LETTERS[:before], dtype=np.uint32),
        )
        for number, answer in enumerate(answers)
    ]
    return ReadingText("served.jsonl", "0" * 64, documents, True)


def places(text: ReadingText, spread: float | np.ndarray = 0.9, held: np.ndarray | None = None, **more: Any) -> list:
    where = positions(text, 1, 10**6)
    spreads = np.broadcast_to(spread, len(where))
    mine = np.ones(len(where), dtype=bool) if held is None else held
    rows = cuts(text, where, mine, spreads, TOKENIZER, **more)
    return list(zip(where.document[rows].tolist(), where.position[rows].tolist(), strict=True))


def test_of_each_answer_the_first_places_are_taken_that_are_spread_and_held() -> None:
    text = text_of(LETTERS[2:10], LETTERS[10:18])
    where = positions(text, 1, 10**6)
    assert places(text, per_answer=2) == [(0, 2), (0, 3), (1, 11 - 9 + 1), (1, 4)]
    spread = np.where(where.position < 5, 0.2, 0.9)
    assert places(text, spread, per_answer=2, least_spread=0.5) == [(0, 5), (0, 6), (1, 5), (1, 6)]
    held = where.position % 2 == 0
    assert places(text, held=held, per_answer=2) == [(0, 2), (0, 4), (1, 4), (1, 6)]
    assert places(text, 0.49) == []


def test_a_place_whose_beginning_is_read_as_other_tokens_is_left_out() -> None:
    c, a, b, d = ids_of("c", "a", "b", "d")
    assert places(text_of([c, a, b, d])) == [(0, 2), (0, 3), (0, 4)]


def test_nothing_is_asked_after_an_answers_end_or_inside_of_a_character() -> None:
    c, d = ids_of("c", "d")
    assert places(text_of([c, d, END])) == [(0, 2), (0, 3), (0, 4)]
    first, second = TOKENIZER.encode("é", add_special_tokens=False).ids
    assert places(text_of([c, first, second, d]), per_answer=4) == [(0, 2), (0, 3), (0, 5), (0, 6)]


def test_a_later_piece_of_a_long_answer_is_not_asked_about() -> None:
    assert places(text_of(LETTERS[2:8], before=1)) == []


def test_no_place_in_an_answer_is_no_plan() -> None:
    with pytest.raises(ValueError, match="per_answer"):
        places(text_of(LETTERS), per_answer=0)


def test_places_behind_a_cut_come_with_it_as_far_as_its_reply_reaches_and_the_next_request_is_behind_them() -> None:
    text = text_of(LETTERS[2:12])
    where = positions(text, 1, 10**6)
    spread = np.where(np.isin(where.position, [3, 4, 6, 9]), 0.9, 0.1)
    taken = places(text, spread, per_answer=2, least_spread=0.5, run=3)
    assert taken == [(0, 3), (0, 4), (0, 5), (0, 6), (0, 7), (0, 8)]
    columns = (np.array([number for number, _ in taken]), np.array([place for _, place in taken]))
    assert first_of_runs(*columns, run=3).tolist() == [0, 3]
    assert first_of_runs(*columns, run=1).tolist() == [0, 1, 2, 3, 4, 5]


@given(st.data())
def test_what_follows_a_place_has_no_say_in_whether_it_is_asked(data: st.DataObject) -> None:
    tokens = st.sampled_from([*LETTERS[:6], END])
    answers = data.draw(st.lists(st.lists(tokens, min_size=1, max_size=12), min_size=1, max_size=4))
    number = data.draw(st.integers(0, len(answers) - 1))
    cut = data.draw(st.integers(0, len(answers[number])))
    # Another end of one answer, and other answers after it; spreads go by what stands before.
    other = [*answers[:number], answers[number][:cut] + data.draw(st.lists(tokens, max_size=6))]
    other += data.draw(st.lists(st.lists(tokens, max_size=6), max_size=2))

    run = data.draw(st.integers(1, 4))

    def taken(given: list[list[int]]) -> list[tuple[int, int]]:
        text = text_of(*given)
        where = positions(text, 1, 10**6)
        spread = np.array(
            [
                sum(text.documents[document].sequence[:place].tolist()) % 7 / 7
                for document, place in zip(where.document.tolist(), where.position.tolist(), strict=True)
            ]
        )
        chosen = places(text, spread, per_answer=3, least_spread=0.3, run=run)
        return [one for one in chosen if one <= (number, LEAD + cut)]

    assert taken(answers) == taken(other)
