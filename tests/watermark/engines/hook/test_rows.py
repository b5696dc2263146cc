"""A step of a batch: each row under its own answer's key and epoch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.watermark.engines.operator import KEY, VOCABULARY, spec_of
from watermark.engines.hook.answers import Answer
from watermark.engines.hook.epoch import Epoch
from watermark.engines.hook.rows import Rows

CPU = torch.device("cpu")
OLD, NEW = Epoch(spec_of(global_share=0.3), KEY), Epoch(spec_of(global_share=0.3, epoch=1), KEY)


def _mark(answers: list[Answer | None], logits: torch.Tensor, left: list[bool] | None = None) -> torch.Tensor:
    contexts = torch.tensor([(0, 0) if a is None else a.context() for a in answers], dtype=torch.long)
    skip = None if left is None else torch.tensor(left)
    return Rows(answers, CPU).mark(logits.clone(), contexts, skip)


def _batch() -> tuple[list[Answer | None], torch.Tensor]:
    answers: list[Answer | None] = [
        Answer(OLD, "acme", 0, [1, 2], []),
        None,
        Answer(NEW, "acme", 0, [1, 2], []),
        Answer(OLD, "beta", 3, [4, 5, 6], [7]),
        Answer(NEW, "beta", 1, [], [8]),
    ]
    return answers, torch.randn(len(answers), VOCABULARY, generator=torch.Generator().manual_seed(0))


def test_a_row_is_marked_as_if_it_were_alone() -> None:
    answers, logits = _batch()
    together = _mark(answers, logits)
    for row, answer in enumerate(answers):
        assert torch.equal(together[row], _mark([answer], logits[row : row + 1])[0])


def test_rows_without_an_answer_and_rows_left_out_stay_as_they_are() -> None:
    answers, logits = _batch()
    left = [False, False, True, False, True]
    marked = _mark(answers, logits, left)
    for row, (answer, skip) in enumerate(zip(answers, left, strict=True)):
        assert torch.equal(marked[row], logits[row]) == (answer is None or skip)


def test_epochs_accounts_and_sub_keys_choose_apart() -> None:
    choices = {}
    logits = torch.zeros(1, VOCABULARY)
    for epoch in (OLD, NEW):
        for tenant in ("acme", "beta"):
            for index in range(4):
                tokens = [3]
                answer = Answer(epoch, tenant, index, [1, 2], tokens)
                for _ in range(6):
                    tokens.append(int(_mark([answer], logits).argmax()))
                choices[epoch, tenant, index] = tuple(tokens)
    assert len(set(choices.values())) == 16


def test_marking_is_in_place_in_the_engines_own_buffer() -> None:
    answers, logits = _batch()
    buffer = logits.clone()
    contexts = torch.tensor([(0, 0) if a is None else a.context() for a in answers], dtype=torch.long)
    assert Rows(answers, CPU).mark(buffer, contexts, None).data_ptr() == buffer.data_ptr()
    assert torch.equal(buffer, _mark(answers, logits))


def test_a_batch_with_nothing_to_mark_is_left_alone() -> None:
    logits = torch.randn(2, VOCABULARY)
    assert torch.equal(_mark([None, None], logits), logits)
    assert _mark([], torch.zeros(0, VOCABULARY)).shape == (0, VOCABULARY)


def test_a_forbidden_token_is_never_chosen() -> None:
    answers, logits = _batch()
    logits[:, 10:] = -torch.inf
    assert (_mark(answers, logits)[:, 10:] == -torch.inf).all()


@pytest.mark.parametrize("left", [[False] * 5, [True, False, False, False, True]])
def test_the_choice_is_the_token_that_marking_leaves(left: Any) -> None:
    answers, logits = _batch()
    contexts = torch.tensor([(0, 0) if a is None else a.context() for a in answers], dtype=torch.long)
    choices = Rows(answers, CPU).choose(logits, contexts, left)
    marked = _mark(answers, logits, left)
    for row, answer in enumerate(answers):
        expected = -1 if answer is None or left[row] else int(marked[row].argmax())
        assert int(choices[row]) == expected
