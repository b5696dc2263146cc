"""Log-probabilities of prompts that know what follows are told from those that rounding changes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detect.student.asking.answers import Prompted, TokenLogprob
from detect.student.asking.lookahead import looks_ahead, prompt_looks_ahead

RANDOM = np.random.default_rng(3)
HONEST = RANDOM.normal(-4, 3, 40).clip(max=0)


def test_rounding_is_no_look_ahead() -> None:
    rounded = (HONEST * 8).round() / 8  # half precision, of large numbers
    assert not looks_ahead(HONEST, HONEST) and not looks_ahead(HONEST, rounded)
    assert not looks_ahead(HONEST, rounded, (-0.2, -3.0))


@pytest.mark.parametrize("scale", [0.05, 1.0])
def test_places_that_change_with_what_follows_are_seen_in_flat_models_too(scale: float) -> None:
    """The demo model without its causal mask changes by a sixth of the spread."""
    one = -10.8 + scale * RANDOM.normal(size=30)
    assert looks_ahead(one, one + 0.16 * scale * RANDOM.normal(size=30).clip(-3, 3) / 0.8)


def test_two_words_that_are_both_near_certain_at_one_place_are_seen() -> None:
    """A place that sees its own word alone changes with nothing behind it."""
    assert looks_ahead(HONEST, HONEST, (-0.01, -0.02))
    assert not looks_ahead(HONEST, HONEST, (math.nan, -0.02))


def test_too_few_places_tell_nothing() -> None:
    assert not looks_ahead(np.array([math.nan, -1.0, -2.0]), np.array([math.nan, -9.0, -8.0]))


def prompted(text: str, logs: dict[int, float], written: int = 0) -> Prompted:
    tokens = tuple(TokenLogprob(c, c.encode(), None, logs.get(i, -0.3 * i)) for i, c in enumerate(text))
    return Prompted(tokens, written)


def test_prompts_are_compared_up_to_where_they_part() -> None:
    one = prompted("count to ten: 1, 2", {0: math.nan})
    assert not prompt_looks_ahead(one, prompted("count to ten: one", {0: math.nan}))
    shifted = {0: math.nan} | {place: -0.3 * place - 1 for place in range(1, 14)}
    assert prompt_looks_ahead(one, prompted("count to ten: one", shifted))
    sure = prompted("count to ten: 1, 2", {0: math.nan, 14: -0.01})
    assert prompt_looks_ahead(sure, prompted("count to ten: one", {0: math.nan, 14: -0.01}))
    # What the server wrote itself is no part of the prompt.
    assert not prompt_looks_ahead(prompted("count to", {7: -0.1}, 1), prompted("count tX", {7: -0.1}, 1))
