"""Corrections for many looks: against their definitions, outside programs, and simulation."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from detect.laws.multiplicity import (
    benjamini_hochberg_log10,
    e_benjamini_hochberg,
    holm_log10,
    mean_log10_e,
    sidak_log10,
)

log10_p_values = st.lists(st.floats(-5_000, 0), min_size=1, max_size=30)


def exact_sidak(log10_p: float, k: int) -> float:
    with mpmath.workdps(6_000):
        return float(mpmath.log10(1 - (1 - mpmath.mpf(10) ** mpmath.mpf(log10_p)) ** k))


@pytest.mark.parametrize("log10_p", [-5000.0, -400.0, -20.0, -17.0, -8.0, -1.0, -0.301, -1e-3, -1e-9])
@pytest.mark.parametrize("k", [1, 2, 4, 1_000])
def test_sidak_is_its_formula_at_any_size(log10_p: float, k: int) -> None:
    assert sidak_log10([log10_p] + [0.0] * (k - 1)) == pytest.approx(exact_sidak(log10_p, k), rel=1e-13, abs=1e-300)


def test_sidak_of_certain_and_of_impossible() -> None:
    assert sidak_log10([0.0, 0.0]) == 0.0
    assert sidak_log10([-math.inf, 0.0]) == -math.inf
    with pytest.raises(ValueError, match="at least one"):
        sidak_log10([])


def test_sidak_of_uniform_p_values_is_uniform() -> None:
    p_values = np.random.default_rng(1).random((20_000, 4))
    corrected = np.array([sidak_log10(row) for row in np.log10(p_values)])
    for alpha in (0.5, 0.1, 0.01):
        assert abs(np.mean(corrected <= math.log10(alpha)) - alpha) <= 4 * math.sqrt(alpha / 20_000)


def test_holm_takes_the_example_of_a_textbook_by_hand() -> None:
    adjusted = holm_log10(np.log10([0.01, 0.04, 0.03, 0.005]))  # 0.005*4, 0.01*3, 0.03*2, then 0.04*1 < 0.06
    np.testing.assert_allclose(10**adjusted, [0.03, 0.06, 0.06, 0.02], rtol=1e-12)


@given(log10_ps=st.lists(st.floats(-300, 0), min_size=1, max_size=30))
def test_benjamini_hochberg_is_that_of_scipy(log10_ps: list[float]) -> None:
    expected = np.log10(false_discovery_control(10 ** np.array(log10_ps)))
    np.testing.assert_allclose(benjamini_hochberg_log10(log10_ps), expected, rtol=1e-9, atol=1e-12)


@given(log10_ps=log10_p_values, seed=st.integers(0, 2**32 - 1))
def test_adjusted_p_values_keep_their_order_and_only_grow(log10_ps: list[float], seed: int) -> None:
    shuffle = np.random.default_rng(seed).permutation(len(log10_ps))
    given_ps = np.array(log10_ps)
    bonferroni = np.minimum(given_ps + np.log10(given_ps.size), 0)
    for adjust in (holm_log10, benjamini_hochberg_log10):
        adjusted = adjust(given_ps)
        np.testing.assert_array_equal(adjust(given_ps[shuffle]), adjusted[shuffle])
        assert np.all(np.diff(adjusted[np.argsort(given_ps)]) >= 0)
        assert np.all((given_ps <= adjusted + 1e-12) & (adjusted <= bonferroni + 1e-12))
    assert np.all(benjamini_hochberg_log10(given_ps) <= holm_log10(given_ps) + 1e-12)


@settings(max_examples=20)
@given(log10_p=st.floats(-5_000, 0))
def test_one_p_value_needs_no_correction(log10_p: float) -> None:
    for corrected in (
        sidak_log10([log10_p]),
        holm_log10([log10_p])[0],
        benjamini_hochberg_log10([log10_p])[0],
    ):
        assert corrected == pytest.approx(log10_p, rel=1e-12, abs=1e-15)


def test_no_p_values_stay_no_p_values() -> None:
    assert holm_log10([]).shape == benjamini_hochberg_log10([]).shape == (0,)


@pytest.mark.parametrize("correct", [sidak_log10, holm_log10, benjamini_hochberg_log10])
@pytest.mark.parametrize("wrong", [0.1, math.nan])
def test_what_is_no_p_value_is_refused(correct: object, wrong: float) -> None:
    with pytest.raises(ValueError, match="at most 0"):
        correct([-1.0, wrong])  # type: ignore[operator]


def test_mean_of_e_values_is_the_plain_mean_where_that_exists() -> None:
    assert mean_log10_e(np.log10([1.0, 2.0, 9.0])) == pytest.approx(math.log10(4.0))
    assert mean_log10_e([-math.inf, 0.0]) == pytest.approx(-math.log10(2))


def test_mean_of_e_values_neither_overflows_nor_underflows() -> None:
    assert mean_log10_e([5_000.0, 0.0, -5_000.0, -math.inf]) == pytest.approx(5_000 - math.log10(4))
    assert mean_log10_e([-5_000.0, -5_000.0]) == -5_000.0
    assert mean_log10_e([-math.inf, -math.inf]) == -math.inf


@pytest.mark.parametrize("wrong", [[], [0.0, math.nan]])
def test_the_mean_needs_e_values(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="one or more numbers"):
        mean_log10_e(wrong)


def test_e_benjamini_hochberg_by_hand() -> None:
    # Of 4, at q = .1, the r-th largest must be at least 40 / r: 40, 20, 13.3, 10.
    assert e_benjamini_hochberg(np.log10([15.0, 1.0, 25.0, 14.0]), 0.1).tolist() == [True, False, True, True]
    assert e_benjamini_hochberg(np.log10([13.0, 1.0, 41.0, 13.0]), 0.1).tolist() == [False, False, True, False]
    assert not e_benjamini_hochberg(np.log10([13.0, 1.0, 39.0, 13.0]), 0.1).any()
    assert e_benjamini_hochberg([9_000.0, -math.inf, math.inf], 0.01).tolist() == [True, False, True]
    assert e_benjamini_hochberg([], 0.1).shape == (0,)


@given(log10_es=st.lists(st.floats(-3, 6), min_size=1, max_size=30), rate=st.floats(0.01, 0.5))
def test_e_benjamini_hochberg_is_benjamini_hochberg_of_inverses(log10_es: list[float], rate: float) -> None:
    inverses = np.minimum(-np.array(log10_es), 0.0)
    expected = benjamini_hochberg_log10(inverses) <= math.log10(rate)
    clear = np.abs(benjamini_hochberg_log10(inverses) - math.log10(rate)) > 1e-9
    np.testing.assert_array_equal(e_benjamini_hochberg(log10_es, rate)[clear], expected[clear])


def test_false_discoveries_stay_below_the_rate_even_where_e_values_depend_on_each_other() -> None:
    rng, rate, false = np.random.default_rng(2), 0.2, []
    for _ in range(2_000):
        p = rng.random()  # one coin for all of the 50 nulls: e = 1 / (2 sqrt p) has mean 1
        nulls = np.full(50, -math.log10(2 * math.sqrt(p)))
        mask = e_benjamini_hochberg(np.append(nulls, np.full(50, 3.0)), rate)
        false.append(mask[:50].sum() / max(1, mask.sum()))
    assert np.mean(false) <= rate


@pytest.mark.parametrize("rate", [0.0, 1.0, math.nan])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        e_benjamini_hochberg([1.0], rate)
    with pytest.raises(ValueError, match="NaN"):
        e_benjamini_hochberg([math.nan], 0.1)
