"""The tail of a blend of two gamma variables, against its definition in 60 digits and against simulation."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.laws.evalues import cgf, log10_evalues, moments, theta_with_effect
from detect.laws.tails import log10_sf, log10_sf_many, log10_sf_pairs
from watermark.laws import Exponential, Hypoexponential


def exact_log10(n: int, first: float, second: float, x: float) -> float:
    """The density's partial fractions, integrated: signs alternate and cancel, hence hundreds of digits."""
    with mpmath.workdps(60 + 3 * n):
        a, b, t = mpmath.mpf(first), mpmath.mpf(second), mpmath.mpf(x)
        total = mpmath.mpf(0)
        for one, other in ((a, b), (b, a)):
            for k in range(1, n + 1):  # coefficient of (1 - one s)^-k in ((1 - a s)(1 - b s))^-n
                j = n - k
                rising = mpmath.binomial(n + j - 1, j)
                weight = rising * (-other / one) ** j / (1 - other / one) ** (n + j)
                total += weight * mpmath.gammainc(k, t / one, mpmath.inf, regularized=True)
        return float(mpmath.log10(total))


POINTS = [
    (n, first, 1 - first, n * factor)
    for n in (1, 2, 7, 40)
    for first in (0.9, 0.75, 0.02)
    for factor in (0.2, 0.9, 1.1, 2.0, 6.0, 18.0)
] + [(40, 0.9, 0.1, 780.0), (1, 0.9, 0.1, 620.0)]  # fmt: skip


@pytest.mark.parametrize(("n", "first", "second", "x"), POINTS)
def test_tails_are_exact_down_to_1e_300_and_never_below_the_truth(
    n: int, first: float, second: float, x: float
) -> None:
    found, true = log10_sf(Hypoexponential((first, second)), n, x), exact_log10(n, first, second, x)
    assert true <= found <= true + 1e-11 * max(1.0, abs(true))


def test_such_tails_were_looked_at() -> None:
    assert min(exact_log10(*point) for point in POINTS) < -299


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.floats(0.0, 3000.0))
def test_the_order_of_the_weights_does_not_matter(n: int, first: float, x: float) -> None:
    one, other = (log10_sf(Hypoexponential(pair), n, x) for pair in ((first, 1 - first), (1 - first, first)))
    assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-11)


@given(st.integers(1, 200), st.floats(0.05, 0.95), st.lists(st.floats(0.0, 900.0), min_size=2, max_size=9))
def test_tails_fall_and_pairs_agree_with_many(n: int, first: float, xs: list[float]) -> None:
    law, points = Hypoexponential((first, 1 - first)), np.sort(np.array(xs))
    many = log10_sf_many(law, n, points)
    assert np.all(np.diff(many) <= 1e-11) and np.all(many <= 0)
    assert np.array_equal(many, log10_sf_pairs(law, n, points))


@pytest.mark.parametrize("n", [1, 30, 1_000, 10**6])
def test_equal_weights_are_one_gamma(n: int) -> None:
    for factor in (0.5, 1.0, 1.3):
        blend, plain = (
            log10_sf(Hypoexponential((0.5, 0.5)), n, n * factor),
            log10_sf(Exponential(), 2 * n, 2 * n * factor),
        )
        assert math.isclose(blend, plain, rel_tol=1e-10, abs_tol=1e-11)


@pytest.mark.parametrize("n", [10**5, 10**7])
def test_many_draws_lie_under_chernoffs_bound_and_not_far(n: int) -> None:
    law, x = Hypoexponential((0.9, 0.1)), 1.2 * n
    low, high = 0.0, 1 / 0.9
    for _ in range(200):
        theta = (low + high) / 2
        low, high = (theta, high) if n * sum(w / (1 - theta * w) for w in law.weights) < x else (low, theta)
    chernoff = (n * cgf(law, theta) - theta * x) / math.log(10)
    assert chernoff - 6 < log10_sf(law, n, x) < chernoff


def test_edges() -> None:
    law = Hypoexponential((0.9, 0.1))
    assert log10_sf(law, 5, 0.0) == log10_sf(law, 0, 0.0) == 0.0
    assert log10_sf(law, 0, 1.0) == -math.inf
    for weights in ((0.0, 1.0), (-1.0, 2.0)):
        with pytest.raises(ValueError, match="two positive numbers"):
            log10_sf(Hypoexponential(weights), 3, 1.0)


def test_evalues_have_mean_one_and_tilts_their_effect() -> None:
    law = Hypoexponential((0.9, 0.1))
    mean, sd = moments(law)
    assert math.isclose(mean, 1.0) and math.isclose(sd, math.hypot(0.9, 0.1))
    theta = theta_with_effect(law, 0.5)
    assert math.isclose(sum(w / (1 - theta * w) for w in law.weights), mean + 0.5 * sd, rel_tol=1e-9)
    x, step = np.linspace(0, 400, 400_001, retstep=True)
    density = (np.exp(-x / 0.9) - np.exp(-x / 0.1)) / 0.8
    assert abs(np.sum(10 ** log10_evalues(law, 1, x) * density) * step - 1) < 1e-5
