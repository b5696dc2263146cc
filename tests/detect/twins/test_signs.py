"""Exact tests of signs: they agree with counting all coins, and reject no more often than they say at any level."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.twins.signs import sign_flip, sign_test
from watermark.errors import DyetraceError

ROUNDED_AWAY = 1e-9
"""Of log10 p: results are rounded towards 0 by their arithmetic's error."""


def all_coins(n: int) -> npt.NDArray[np.int64]:
    return np.array(list(itertools.product([1, -1], repeat=n)))


# --- signs alone ------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_counts_coins(wins: int, losses: int) -> None:
    n = wins + losses
    upper = sum(math.comb(n, k) for k in range(wins, n + 1))
    both = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(wins - losses))
    for sided, count in (("upper", upper), ("two-sided", both)):
        found = sign_test(wins, losses, "upper" if sided == "upper" else "two-sided")
        exact = math.log10(count) - n * math.log10(2)
        assert exact - 1e-12 <= found <= exact + ROUNDED_AWAY


def test_far_tails_are_told() -> None:
    assert sign_test(241, 59) == pytest.approx(-26.836168759954, abs=1e-9)
    assert sign_test(300, 0) == pytest.approx(-300 * math.log10(2), rel=1e-12)
    assert sign_test(0, 300) == 0
    assert sign_test(0, 0) == sign_test(5, 5, "two-sided") == 0


@pytest.mark.parametrize("level", [0.05, 1e-3, 1e-4])
def test_the_sign_test_rejects_no_more_often_than_it_says_and_a_normal_tail_does(level: float) -> None:
    exact, normal = [], []
    for n in range(5, 80):
        chances = [math.comb(n, k) / 2**n for k in range(n + 1)]
        exact.append(sum(c for k, c in enumerate(chances) if sign_test(k, n - k) <= math.log10(level)))
        normal.append(sum(c for k, c in enumerate(chances) if math.erfc((2 * k - n) / math.sqrt(2 * n)) / 2 <= level))
    assert max(exact) <= level
    assert max(normal) > 1.1 * level


# --- sums of differences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [1.1, 3.0, 30.0])
def test_the_sign_flip_tail_is_that_of_all_coins(tail: float) -> None:
    rng = np.random.default_rng(2)
    x, coins = rng.standard_t(tail, 15), all_coins(15)
    sums = coins @ x
    for row in rng.integers(0, len(coins), 12):
        upper, both = np.mean(sums >= sums[row] - 1e-9), np.mean(np.abs(sums) >= abs(sums[row]) - 1e-9)
        assert sign_flip(x, coins[row]) == pytest.approx(np.log10(upper), abs=0.01)
        assert sign_flip(x, coins[row], "two-sided") == pytest.approx(np.log10(both), abs=0.01)


@given(st.lists(st.sampled_from([1, -1]), min_size=1, max_size=400), st.floats(1e-20, 1e20))
def test_equal_differences_are_signs_alone(signs: list[int], size: float) -> None:
    wins = signs.count(1)
    assert sign_flip(np.full(len(signs), size), signs) == pytest.approx(sign_test(wins, len(signs) - wins), abs=1e-9)


@pytest.mark.parametrize("tail", [1.1, 3.0])
@pytest.mark.parametrize("level", [1e-3, 1e-4])
def test_the_sign_flip_test_rejects_no_more_often_than_it_says(tail: float, level: float) -> None:
    # All 65,536 rows of coins there are; only those with the largest sums can be rejected.
    x, coins = np.random.default_rng(3).standard_t(tail, 16), all_coins(16)
    order = np.argsort(-(coins @ x), kind="stable")
    most = int(level * len(coins))
    looked_at = order[: most + most // 2 + 10]
    rejected = [sign_flip(x, coins[row]) <= math.log10(level) for row in looked_at]
    assert not any(rejected[most + 5 :])
    assert 0 < sum(rejected) <= level * len(coins)


def test_a_sum_of_thousands_is_as_sure_as_its_signs_where_all_agree() -> None:
    x = np.random.default_rng(4).standard_t(1.2, 3000)
    spoken = int(np.sum(np.abs(x) > 0.0))
    assert sign_flip(x, np.sign(x)) == pytest.approx(-spoken * math.log10(2), rel=0.02)


def test_what_differs_nowhere_says_nothing() -> None:
    assert sign_flip(np.zeros(5), np.ones(5)) == sign_flip(np.empty(0), np.empty(0)) == 0


def test_numbers_that_are_none_of_a_pair_are_refused() -> None:
    with pytest.raises(DyetraceError, match="at least 0"):
        sign_test(-1, 3)
    with pytest.raises(DyetraceError, match="one of each for a pair"):
        sign_flip([1.0, 2.0], [1])
    with pytest.raises(DyetraceError, match="one of each for a pair"):
        sign_flip([1.0], [0])
    with pytest.raises(DyetraceError, match="finite"):
        sign_flip([math.nan], [1])
