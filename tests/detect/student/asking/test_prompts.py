"""Prompts are chosen by a public seed and by themselves, and by nothing that a key could have touched."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.student.asking.plan import PlannedPrompt
from detect.student.asking.prompts import choose_prompts, prompts_of
from watermark.errors import DyetraceError
from watermark.generate import Answer


def answer(number: int, tokens: list[int], words: str | None = None) -> Answer:
    return Answer(
        id=str(number), prompt=words or f"prompt {number}", text="", prompt_token_ids=[900 + number], token_ids=tokens
    )


def chosen(answers: list[Answer], count: int, seed: str = "2026") -> list[str | list[object]]:
    return [planned.prompt for planned in choose_prompts(prompts_of(answers), count, seed)]  # type: ignore[misc]


rows = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=8)


@given(rows, rows, st.randoms(use_true_random=False), st.integers(1, 9))
def test_nothing_that_was_answered_has_a_say(
    one: list[list[int]], other: list[list[int]], random: object, count: int
) -> None:
    """Neither words, nor lengths, nor how often a prompt was answered, nor the order of the file."""
    first = [answer(i, ids) for i, ids in enumerate(one)]
    second = [answer(i, (other * 8)[i]) for i in range(len(one)) for _ in range(1 + i % 3)]
    random.shuffle(second)  # type: ignore[attr-defined]
    assert chosen(first, count) == chosen(second, count)


def test_every_prompt_has_the_same_chance_over_seeds() -> None:
    answers = [answer(i, [i]) for i in range(10)]
    often = Counter(prompt for seed in range(2000) for prompt in chosen(answers, 3, str(seed)))
    # 600 of each are expected, with a standard deviation of 20.5.
    assert len(often) == 10 and all(520 < count < 680 for count in often.values())


def test_another_seed_gives_another_order() -> None:
    answers = [answer(i, [i]) for i in range(50)]
    assert chosen(answers, 50, "a") != chosen(answers, 50, "b")
    assert sorted(chosen(answers, 50, "a")) == sorted(chosen(answers, 50, "b"))


def test_a_prompt_is_asked_once_however_often_it_was_answered() -> None:
    answers = [answer(i, [i, i + 1], words="same") for i in range(5)]
    found = choose_prompts(prompts_of([*answers, answer(9, [1, 2, 3])]), 7)
    assert {(planned.prompt, planned.answer) for planned in found} == {("same", "0"), ("prompt 9", "9")}


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(DyetraceError, match="no prompts to choose from"):
        choose_prompts([PlannedPrompt(prompt=" ")], 1)
    with pytest.raises(DyetraceError, match="at least 1"):
        choose_prompts(prompts_of([answer(0, [1])]), 0)
