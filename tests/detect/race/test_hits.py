"""The tail of a sum of unequal coins: exact against enumeration and the binomial, at any depth, and never too small."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.laws.tails import log10_sf
from detect.race.hits import log10_tail
from watermark.laws import Bernoulli


@given(chances=st.lists(st.floats(0, 1), max_size=8), hits=st.integers(-1, 9))
def test_it_is_what_counting_every_outcome_gives(chances: list[float], hits: int) -> None:
    total = math.fsum(
        math.prod(p if one else 1 - p for p, one in zip(chances, outcome, strict=True))
        for outcome in itertools.product([0, 1], repeat=len(chances))
        if sum(outcome) >= hits
    )
    found = log10_tail(np.array(chances), hits)
    if total == 0:
        assert found == -math.inf or found < -300
    else:
        assert found == pytest.approx(math.log10(total), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "p", "hits"),
    [(50_000, 0.25, 12_500), (50_000, 0.25, 14_000), (50_000, 0.25, 49_999), (10_000, 0.5, 7_000), (1000, 1e-4, 40)],
)
def test_equal_chances_give_the_binomial_tail(n: int, p: float, hits: int) -> None:
    assert log10_tail(np.full(n, p), hits) == pytest.approx(log10_sf(Bernoulli(p), n, hits), rel=1e-9)


def test_it_is_right_past_the_smallest_float() -> None:
    # Two kinds of coins: the tail is a sum of products of binomials, here in logs of whole numbers.
    few, many = 400, 600
    p, q = 0.02, 0.1
    logs = [
        _log_binomial(few, i, p) + _log_binomial(many, j, q)
        for i in range(few + 1)
        for j in range(max(0, 700 - i), many + 1)
    ]
    top = max(logs)
    exact = (top + math.log(math.fsum(math.exp(one - top) for one in logs))) / math.log(10)
    assert exact < -400
    assert log10_tail(np.concatenate([np.full(few, p), np.full(many, q)]), 700) == pytest.approx(exact, rel=1e-10)


def _log_binomial(n: int, k: int, p: float) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)


@given(chances=st.lists(st.floats(0.001, 0.999), min_size=1, max_size=40))
def test_more_hits_are_rarer(chances: list[float]) -> None:
    tails = [log10_tail(np.array(chances), hits) for hits in range(len(chances) + 2)]
    assert tails[0] == 0
    assert tails[-1] == -math.inf
    assert all(later <= sooner for sooner, later in itertools.pairwise(tails))


def test_pvalues_of_fixed_unequal_chances_are_uniform_or_larger() -> None:
    rng = np.random.default_rng(11)
    chances = rng.beta(0.6, 1.5, 60)
    counts = (rng.random((20_000, 60)) < chances).sum(axis=1)
    tail = {hits: 10 ** log10_tail(chances, hits) for hits in range(61)}
    p = np.array([tail[hits] for hits in counts.tolist()])
    for level in (0.5, 0.1, 0.05, 0.01, 0.001):
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level / len(p))
    assert np.mean(p <= 0.1) > 0.05  # and not by being far too large
