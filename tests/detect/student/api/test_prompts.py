"""Prompts are chosen by the contexts that were served most, and by nothing that a key could have touched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.api.prompts import choose_prompts, read_answers
from watermark.errors import DyetraceError
from watermark.generate import Answer
from watermark.spec import WatermarkSpec


def spec(width: int = 2) -> WatermarkSpec:
    scheme = "gumbel" if width else "green_list"
    return WatermarkSpec(
        scheme=scheme, context_width=width, vocabulary_size=1000, tokenizer="t", key_fingerprint="f" * 32
    )


def answer(number: int, tokens: list[int], prompt: list[int] | None = None, words: str | None = None) -> Answer:
    return Answer(
        id=str(number),
        prompt=words or f"prompt {number}",
        text="",
        prompt_token_ids=[900 + number, 901] if prompt is None else prompt,
        token_ids=tokens,
    )


def contexts(served: Answer, width: int) -> set[tuple[int, ...]]:
    ids = served.prompt_token_ids + served.token_ids
    first = len(served.prompt_token_ids) or width
    missing = [-1] * width + ids
    return {tuple(missing[at : at + width]) for at in range(first, len(ids))}


def greedy(answers: list[Answer], width: int, count: int, kappa: float) -> list[str]:
    """The definition, step by step; gains as exact integers like the real one's."""
    own = {a.prompt: set[tuple[int, ...]]() for a in answers}
    for a in answers:
        own[a.prompt] |= contexts(a, width)
    frequency = Counter(context for a in answers for context in contexts(a, width))
    weight = {context: round(f / (f + kappa) * 2**32) for context, f in frequency.items()}
    covered: set[tuple[int, ...]] = set()
    chosen: list[str] = []
    while len(chosen) < min(count, len(own)):
        left = [prompt for prompt in own if prompt not in chosen]
        best = max(left, key=lambda prompt: sum(weight[c] for c in own[prompt] - covered))
        chosen.append(best)
        covered |= own[best]
    return chosen


rows = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=8)


@given(rows, st.integers(1, 3), st.integers(1, 9), st.sampled_from([0.5, 1.0, 8.0]), st.booleans())
def test_the_choice_is_the_greedy_one(
    tokens: list[list[int]], width: int, count: int, kappa: float, prompted: bool
) -> None:
    answers = [answer(i, ids, None if prompted else [], f"p{i % 5}") for i, ids in enumerate(tokens)]
    found = choose_prompts(answers, spec(width), count, kappa=kappa)
    assert [planned.prompt for planned in found] == greedy(answers, width, count, kappa)


@given(rows, st.lists(st.integers(0, 999), min_size=8, max_size=8))
def test_the_tokens_that_follow_the_contexts_do_not_matter(tokens: list[list[int]], last: list[int]) -> None:
    """An answer's last token stands in no context: whatever it is, the choice is the same."""
    one = [answer(i, [*ids, 0]) for i, ids in enumerate(tokens)]
    other = [answer(i, [*ids, last[i]]) for i, ids in enumerate(tokens)]
    assert choose_prompts(one, spec(), 3) == choose_prompts(other, spec(), 3)


def test_a_context_counts_once_for_each_answer_that_holds_it() -> None:
    often = answer(0, [1, 2] * 50)
    wide = answer(1, [3, 4, 5, 6])
    shared = answer(2, [3, 4, 5, 6])
    assert [planned.prompt for planned in choose_prompts([often, wide, shared], spec(), 2)] == ["prompt 1", "prompt 0"]


def test_a_prompt_is_asked_once_however_often_it_was_answered() -> None:
    answers = [answer(i, [i, i + 1, i + 2, i + 3], words="same") for i in range(5)]
    found = choose_prompts([*answers, answer(9, [1, 2, 3])], spec(), 7)
    assert [(planned.prompt, planned.answer) for planned in found] == [("same", "0"), ("prompt 9", "9")]


def test_no_context_width_leaves_the_order_of_the_answers() -> None:
    assert [p.answer for p in choose_prompts([answer(i, [i, 5]) for i in range(4)], spec(0), 3)] == ["0", "1", "2"]


def test_nothing_to_choose_from_and_broken_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="no served answers"):
        choose_prompts([answer(0, [1, 2], words=" ")], spec(), 1)
    with pytest.raises(DyetraceError, match="served answer 3 has a token id outside"):
        choose_prompts([answer(3, [1, -2])], spec(), 1)
    with pytest.raises(DyetraceError, match="at least 1"):
        choose_prompts([answer(0, [1])], spec(), 0)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(msgspec.json.encode(answer(0, [1])) + b"\n\n{broken\n")
    with pytest.raises(DyetraceError, match="line 3"):
        list(read_answers(path))
    with pytest.raises(DyetraceError, match="cannot read served answers"):
        list(read_answers(tmp_path / "missing"))


def test_served_answers_are_read_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    served = [answer(i, [1, 2, i]) for i in range(3)]
    path.write_bytes(b"".join(msgspec.json.encode(a) + b"\n" for a in served))
    assert list(read_answers(path)) == served
