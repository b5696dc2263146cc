"""E-values of documents: mean at most 1 under every law, and growth where there is a mark."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.laws.evalues import EFFECTS, cgf, log10_evalues, moments, theta_with_effect, tilts, value_table
from detect.laws.tails import log10_sf_pairs
from watermark.laws import Bernoulli, Exponential, Lattice, Law, WeightedBits

LAYERS = WeightedBits(tuple(range(30, 0, -1)))
TABLE = Lattice((-3, 0, 4, 5), (0.125, 0.5, 0.25, 0.125))
LATTICES: list[Law] = [Bernoulli(0.25), Bernoulli(0.5), LAYERS, WeightedBits((3, 2, 1)), TABLE]


@pytest.mark.parametrize("law", LATTICES)
def test_one_tuple_has_mean_exactly_one(law: Law) -> None:
    values, probabilities = value_table(law)
    es = 10.0 ** log10_evalues(law, 1, values.astype(np.int64))
    assert probabilities @ es == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("n", [2, 40])
def test_sums_have_mean_exactly_one(n: int) -> None:
    totals = np.arange(n + 1)
    pmf = np.array([math.comb(n, k) * 0.25**k * 0.75 ** (n - k) for k in range(n + 1)])
    assert pmf @ 10.0 ** log10_evalues(Bernoulli(0.25), n, totals) == pytest.approx(1.0, rel=1e-9)


def test_sums_of_exponentials_have_mean_exactly_one() -> None:
    for n in (1, 5):
        x = np.linspace(0, 400, 4_000_001)
        log_density = (n - 1) * np.log(np.maximum(x, 1e-300)) - x - math.lgamma(n)
        es = log10_evalues(Exponential(), n, x) * math.log(10)
        assert np.trapezoid(np.exp(log_density + es), x) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("law", [Exponential(), *LATTICES])
def test_tilts_have_the_asked_means(law: Law) -> None:
    mean, sd = moments(law)
    for effect in (0.01, 0.3, 0.8):
        theta = theta_with_effect(law, effect)
        slope = (cgf(law, theta * (1 + 1e-5)) - cgf(law, theta * (1 - 1e-5))) / (2e-5 * theta)
        assert slope == pytest.approx(mean + effect * sd, rel=1e-5)
    assert len(tilts(law)[0]) == len(EFFECTS)
    assert np.all(np.diff(tilts(law)[0]) >= 0)


def test_simulated_nulls_rarely_have_large_e_values() -> None:
    rng, trials = np.random.default_rng(0), 100_000
    ns = rng.integers(1, 500, trials)
    log10_es = log10_evalues(Exponential(), ns, rng.standard_gamma(ns))
    for log10_e in (0.5, 1.0, 2.0, 3.0):  # Markov's inequality
        expected = trials * 10**-log10_e
        assert np.count_nonzero(log10_es >= log10_e) <= expected + 4 * math.sqrt(expected)
    assert np.count_nonzero(log10_es >= 1.0) > trials / 1_000  # and they do move


@pytest.mark.parametrize(("effect", "n"), [(0.02, 200_000), (0.1, 10_000), (0.5, 400), (1.9, 40)])
def test_evidence_is_near_the_best_possible_for_weak_long_and_strong_short(effect: float, n: int) -> None:
    best = n * (effect - math.log1p(effect)) / math.log(10)  # KL of the true tilt
    found = float(log10_evalues(Exponential(), n, n * (1 + effect)))
    assert 0.9 * best - math.log10(len(EFFECTS)) <= found <= best
    assert found <= -float(log10_sf_pairs(Exponential(), n, n * (1 + effect)))  # 1/e is a p-value, a worse one


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 10**9), share=st.floats(0, 1))
def test_every_total_has_a_finite_e_value(n: int, share: float) -> None:
    for law in (Bernoulli(0.25), LAYERS):
        most = int(value_table(law)[0].max()) * n
        assert math.isfinite(float(log10_evalues(law, n, round(share * most))))
    assert math.isfinite(float(log10_evalues(Exponential(), n, share * 22 * n)))


def test_shapes_and_edges() -> None:
    assert log10_evalues(Bernoulli(0.5), [[1], [2]], [0, 1, 1]).shape == (2, 3)
    assert log10_evalues(Exponential(), [], []).shape == (0,)
    assert float(log10_evalues(Exponential(), 0, 0.0)) == 0.0
    law: Any
    for law, n, total, message in [
        (Bernoulli(0.5), -1, 0, "at least 0"),
        (Bernoulli(0.5), 1, 0.5, "integers"),
        (Exponential(), 1, math.nan, "finite"),
        (Bernoulli(0.0), 1, 0, "strictly"),
    ]:
        with pytest.raises(ValueError, match=message):
            log10_evalues(law, n, total)
