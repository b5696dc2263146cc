"""A forecast goes by the owner's chances: a suspect that knows less takes more, and what can't be reached is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detect.race.forecast import ADAPTER, forecast
from detect.records.race import RaceAsk

ANSWERS, CUTS, CANDIDATES = 200, 6, 12


def needed(
    ask: RaceAsk, *, answers: int = ANSWERS, used: float = 1.0, run: int = 1, target: float = 10.0, spread: float = 1.0
) -> int | None:
    """Of answers with a request every ``run`` cuts; a whole answer is one request where such are read."""
    random = np.random.default_rng(3)
    documents = np.repeat(np.arange(answers, dtype=np.int32), CUTS)
    positions = np.tile(np.arange(CUTS, dtype=np.int32), answers)
    whole = ask in ("weights", "prompt-logprobs", "echo")
    steps = documents if whole else (np.arange(len(documents)) // run).astype(np.int32)
    chances = np.exp(spread * random.standard_normal((len(documents), CANDIDATES)))
    chances /= chances.sum(axis=1, keepdims=True)
    return forecast(ask, documents, positions, steps, chances, target, used=used)


def test_the_more_an_ask_tells_the_fewer_requests_it_takes() -> None:
    asks: tuple[RaceAsk, ...] = ("prompt-logprobs", "logprobs", "bias", "greedy")
    taken = [needed(ask) for ask in asks]
    assert None not in taken
    assert taken == sorted(taken) and taken[0] < taken[-1] / 5  # type: ignore[type-var, operator]


def test_words_of_a_reply_behind_the_first_save_requests() -> None:
    one, many = needed("greedy"), needed("greedy", run=CUTS)
    assert one is not None and many is not None and many < one


def test_a_suspect_of_few_answers_takes_more() -> None:
    every, few = needed("logprobs"), needed("logprobs", used=0.2)
    assert every is not None and few is not None and few > every


def test_what_the_planned_cuts_cannot_reach_is_said_to_be_out_of_reach() -> None:
    assert needed("greedy", answers=3) is None
    assert needed("prompt-logprobs", answers=30, spread=12.0, target=50) is None  # the owner was never in doubt
    assert forecast("bias", *(np.empty(0, dtype=np.int32),) * 3, np.empty((0, 5)), 10.0) is None


@pytest.mark.parametrize("ask", ["bias", "greedy", "logprobs"])
def test_a_suspect_without_memory_is_never_forecast_to_be_found(ask: RaceAsk) -> None:
    none = replace(ADAPTER, word=0.0, biased=0.0, share=0.0)
    steps = np.arange(600, dtype=np.int32)
    chances = np.random.default_rng(0).dirichlet(np.ones(8), 600)
    documents = (steps // 4).astype(np.int32)
    assert forecast(ask, documents, steps % 4, steps, chances, 4.0, memory=none) is None
