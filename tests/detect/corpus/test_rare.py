"""The test for rare marks: exact under the null at any number of documents, far below 1e-300, and powerful."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainc, betaincinv

from detect.corpus import rare
from detect.laws.multiplicity import sidak_log10


def smallest_uniforms(rng: np.random.Generator, documents: int, trials: int) -> np.ndarray:
    """The smallest of so many uniforms, (trials, k): partial sums of exponentials over the sum of all of them."""
    kept = min(rare.KEPT, documents)
    sums = np.cumsum(rng.standard_exponential((trials, kept)), axis=1)
    return sums / (sums[:, -1:] + rng.standard_gamma(documents + 1 - kept, (trials, 1)))


@pytest.mark.parametrize(
    ("documents", "trials"), [(1, 40_000), (2, 40_000), (10, 40_000), (1_000, 1_000), (1_000_000, 1_000)]
)
def test_the_null_is_exact_at_any_number_of_documents(documents: int, trials: int) -> None:
    rng = np.random.default_rng(documents)
    log10_ps = np.array([
        rare.log10_pvalue(np.log10(row), documents) for row in smallest_uniforms(rng, documents, trials)
    ])  # fmt: skip
    for alpha in (0.5, 0.1, 0.01, 0.001):
        expected = trials * alpha
        rejected = np.count_nonzero(log10_ps <= math.log10(alpha))
        assert abs(rejected - expected) <= 4 * math.sqrt(expected) + 1, f"{rejected} at {alpha}, not {expected}"


def test_the_crossing_probability_is_that_of_a_count_by_hand() -> None:
    # Two uniforms: 1 - P(U_(1) > a, U_(2) > b) = 1 - ((1 - a)^2 - (b - a)^2), a < b
    for a, b in [(0.1, 0.5), (0.01, 0.2), (1e-9, 1e-4), (0.3, 0.3)]:
        expected = 2 * a - a * a + (b - a) ** 2
        assert rare.crossing_probability(np.array([a, b]), 2) == pytest.approx(expected, rel=1e-12)
    assert rare.crossing_probability(np.array([0.3]), 5) == pytest.approx(1 - 0.7**5, rel=1e-12)


def test_the_crossing_probability_is_that_of_enumeration() -> None:
    """Multinomial counts of n uniforms between four boundaries, all of them."""
    bounds, n = np.array([0.02, 0.07, 0.2, 0.25]), 7
    widths = np.diff(np.append(np.append(0.0, bounds), 1.0))
    total = 0.0
    for counts in itertools.product(range(n + 1), repeat=len(bounds)):
        left = n - sum(counts)
        if left >= 0 and any(sum(counts[: i + 1]) > i for i in range(len(bounds))):
            ways = math.factorial(n) / math.prod(map(math.factorial, (*counts, left)))
            total += ways * float(np.prod(widths ** np.array([*counts, left])))
    assert rare.crossing_probability(bounds, n) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("documents", [300, 1_000, 10**7])
def test_ranks_have_beta_laws(documents: int) -> None:
    ranks = np.arange(1, rare.KEPT + 1)
    for level in (0.7, 1e-3, 1e-12):
        levels = level / ranks
        quantiles = rare.rank_quantiles(np.log(levels), documents)
        np.testing.assert_allclose(quantiles, betaincinv(ranks, documents - ranks + 1, levels), rtol=1e-8)
        np.testing.assert_allclose(betainc(ranks, documents - ranks + 1, quantiles), levels, rtol=1e-6)
        np.testing.assert_allclose(rare.log_rank_pvalues(np.log(quantiles), documents), np.log(levels), rtol=1e-6)


@pytest.mark.parametrize("documents", [1, 2, 10, 1_000, 10**6])
@pytest.mark.parametrize("log10_p", [-9.0, -60.0, -110.0, -500.0, -1e6])
def test_one_strong_document_gives_about_its_p_times_their_number(documents: int, log10_p: float) -> None:
    others = np.log10((np.arange(1, min(documents, rare.KEPT)) + 0.5) / documents)
    found = rare.log10_pvalue(np.append(log10_p, others), documents)
    alone = log10_p + math.log10(documents)
    assert -1e-6 <= found - alone <= math.log10(6.3)


def test_all_documents_strong_is_better_than_one() -> None:
    assert rare.log10_pvalue(np.full(300, -1e4), 10**6) < -1e6
    assert rare.log10_pvalue(np.full(10, -500.0), 10) < -4_000
    assert rare.log10_pvalue(np.full(300, -3.0), 10_000) < -100  # 300 where 10 are expected


def test_power_when_few_of_many_documents_are_marked() -> None:
    """Ten of 1,000 documents at z = 3: the smallest p-value alone, and the sum of all, see much less."""
    rng, level, found, smallest = np.random.default_rng(1), -3.0, 0, 0
    for _ in range(100):
        z = rng.standard_normal(1_000) + 3.0 * (np.arange(1_000) < 10)
        log10_ps = np.sort([math.log10(0.5 * math.erfc(value / math.sqrt(2))) for value in z])
        found += rare.log10_pvalue(log10_ps[: rare.KEPT], 1_000) <= level
        smallest += sidak_log10(log10_ps) <= level
    assert found >= 55
    assert found >= smallest + 20


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), documents=st.integers(1, 2_000))
def test_smaller_p_values_and_padding(seed: int, documents: int) -> None:
    rng = np.random.default_rng(seed)
    log10_ps = np.sort(np.log10(rng.random(documents)) * rng.choice([1, 2, 50]))
    found = rare.log10_pvalue(log10_ps, documents)
    assert rare.log10_pvalue(np.append(log10_ps[: rare.KEPT], np.zeros(5)), documents) == found  # the rest is ignored
    assert rare.log10_pvalue(np.sort(log10_ps * 1.5), documents) <= found + 0.1
    assert sidak_log10(log10_ps) - 1e-6 <= found + math.log10(6.3) or found <= 0


def test_edges() -> None:
    assert rare.log10_pvalue([], 0) == 0.0
    assert rare.log10_pvalue([0.0], 1) == 0.0
    assert rare.log10_pvalue([-math.inf], 1) == -math.inf
    assert rare.log10_pvalue([-3.0], 1) == pytest.approx(-3.0, abs=1e-8)
    assert rare.log10_pvalue(np.zeros(300), 10**9) == 0.0
    assert rare.log10_pvalue(np.full(300, -1e-17), 300) == 0.0


@pytest.mark.parametrize(
    ("log10_ps", "documents", "message"),
    [([-1.0], 2, "2 smallest of 2"), ([-1.0, -2.0], 2, "ascend"), ([0.1], 1, "at most 0"), ([math.nan], 1, "at most")],
)
def test_what_are_no_smallest_p_values_is_refused(log10_ps: list[float], documents: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rare.log10_pvalue(log10_ps, documents)
