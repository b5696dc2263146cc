"""An endpoint that never saw the key is not found by asking: whatever it decides, remembers or gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detect.student.endpoint as student_endpoint
from detect.student.asking.plan import PlannedPrompt
from tests.innocents.askings import (
    ASKED,
    LISTS,
    OFFERED,
    Endpoint,
    correcting,
    deterministic,
    of_unmarked_answers,
    own_dice,
    remembering,
    traced,
)
from tests.innocents.paths import assert_no_more_than, replaced
from tests.innocents.readings import PROSE, worlds
from tests.innocents.suspects import END, Prompts, Table, stop_or_go, with_text, written
from watermark.generate import Answer

KEYS = 60
SHORT = stop_or_go(4, go=0.85, words=4)


def assert_innocent(folder: Path, seed: str, count: int, **trace: Any) -> None:
    """Under fresh keys, neither the end nor any moment on the way shows more than chance allows."""
    prompts = trace.pop("prompts", Prompts.of(OFFERED, 3))
    found = [traced(folder, world, prompts, number=number, **trace) for number, world in enumerate(worlds(seed, count))]
    for values in np.array(found).T:
        for level in (0.05, 1e-2, 1e-3):
            assert_no_more_than(values >= -np.log10(level), level, seed)


@pytest.mark.parametrize(
    ("endpoint", "served"), [(own_dice, True), (own_dice, False), (deterministic, True), (remembering, True)]
)
def test_prompts_of_lists_accuse_nobody(endpoint: Callable[[Table], Endpoint], served: bool, tmp_path: Path) -> None:
    """Stop or go: the key decided how long a served answer is, and so which of its contexts there are."""
    suspect = endpoint(LISTS)
    assert_innocent(tmp_path, f"lists {endpoint.__name__}", KEYS, table=LISTS, endpoint=suspect, served=served)


def test_nor_do_their_logprobs(tmp_path: Path) -> None:
    """Of a student of unmarked answers to the same prompts."""
    table = stop_or_go(1, words=2)
    student = table.taught(written(table, Prompts.of(OFFERED, 3), np.random.default_rng(7)))
    suspect = own_dice(student)
    assert_innocent(tmp_path, "logprobs", KEYS // 3, table=table, endpoint=suspect, served=True, shown=student)


def test_nor_does_prose(tmp_path: Path) -> None:
    prompts = Prompts.of(40, 3)
    assert_innocent(
        tmp_path, "prose", KEYS // 6, table=PROSE, prompts=prompts, endpoint=of_unmarked_answers(PROSE), served=True
    )


@pytest.mark.parametrize("endpoint", [correcting, remembering])
def test_prompts_that_hold_marked_text_accuse_nobody_who_gives_it_back(
    endpoint: Callable[[Table], Endpoint], tmp_path: Path
) -> None:
    """Each prompt quotes the marked answer to another. A plan refuses so much of it, and here the check is off."""
    found = []
    for number, world in enumerate(worlds("scraps", KEYS // 3)):
        spec, ring, rng = world
        plain = Prompts.of(ASKED, 3)
        scraps = written(SHORT, plain, rng, mark=(spec, ring), most=8)
        texts = [[i for i in answer.token_ids if i != END] for answer in scraps]
        prompts = with_text(plain, [*texts[1:], texts[0]])
        with replaced(student_endpoint, "check_prompts", lambda *_: 0.0):
            found.append(traced(tmp_path, world, prompts, SHORT, endpoint(SHORT), number=number, served=False))
    for values in np.array(found).T:
        for level in (0.05, 1e-2, 1e-3):
            assert_no_more_than(values >= -np.log10(level), level, endpoint.__name__)


# --- the checks can fail ----------------------------------------------------------------------------------


def longest_first(answers: Sequence[Answer]) -> list[PlannedPrompt]:
    """What a plan must not do: the prompts whose marked answers hold most."""
    ranked = sorted(answers, key=lambda answer: (-len(answer.token_ids), answer.id))
    return [PlannedPrompt(prompt=answer.prompt) for answer in ranked[:ASKED]]


def test_the_check_fails_where_prompts_are_chosen_by_their_marked_answers(tmp_path: Path) -> None:
    suspect, prompts = deterministic(LISTS), Prompts.of(400, 3)
    found = [
        traced(tmp_path, world, prompts, LISTS, suspect, number=number, served=True, choose=longest_first)
        for number, world in enumerate(worlds("longest", 6))
    ]
    assert np.median(found) > 1
