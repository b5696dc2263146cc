"""Tails of many (n, total) pairs at once: those of each by itself, and outside values."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.laws import lattice_pairs
from detect.laws.lattice_pairs import MOST_DRAWS, LatticePairs
from detect.laws.tails import log10_sf, log10_sf_many, log10_sf_pairs
from watermark.laws import Bernoulli, Exponential, Lattice, Law, WeightedBits

LAYERS = WeightedBits(tuple(range(30, 0, -1)))
TABLE = Lattice((-3, 0, 4, 5), (0.125, 0.5, 0.25, 0.125))
LAWS: list[Law] = [
    Exponential(),
    Bernoulli(0.25),
    Bernoulli(0.5),
    Bernoulli(2.0**-20),
    Bernoulli(1 - 1e-9),
    WeightedBits((3, 2, 1)),
    TABLE,
]


def assert_like_tails(law: Law, ns: np.ndarray, totals: np.ndarray) -> None:
    expected = [log10_sf(law, n, total) for n, total in zip(ns.tolist(), totals.tolist(), strict=True)]
    np.testing.assert_allclose(log10_sf_pairs(law, ns, totals), expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("law", LAWS)
@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 3_000), st.floats(-0.1, 3)), min_size=1, max_size=8))
def test_pairs_have_the_tails_of_one_n(law: Law, pairs: list[tuple[int, float]]) -> None:
    ns = np.array([n for n, _ in pairs])
    totals = np.array([n * share for n, share in pairs])
    assert_like_tails(law, ns, totals if isinstance(law, Exponential) else np.rint(totals).astype(np.int64))


@pytest.mark.parametrize("law", [LAYERS, WeightedBits((7,)), TABLE])
def test_lattices_of_mixed_n_in_any_order(law: Law) -> None:
    rng = np.random.default_rng(0)
    ns = rng.choice([0, 1, 17, 400, 5_000], 60)
    mean, sd = (232.5, 48.6) if law == LAYERS else (3.5, 3.5) if isinstance(law, WeightedBits) else (1.25, 2.5)
    assert_like_tails(law, ns, np.rint(ns * mean + rng.normal(0, 4, 60) * sd * np.sqrt(ns)).astype(np.int64))


@pytest.mark.parametrize(
    ("law", "n", "total", "golden"),
    [  # as in test_tails.py
        (Bernoulli(0.5), 10_000, 7_000, -359.167339),
        (Bernoulli(0.25), 10_000, 5_500, -886.963011),
        (Bernoulli(0.5), 1_000_000, 560_000, -3136.894372),
        (Exponential(), 10_000, 13_000.0, -165.3268),
        (Exponential(), 1_000_000, 1.1e6, -2039.1622),
        (LAYERS, 1_000, 250_000, -29.62619549),
    ],
)
def test_golden_values_computed_independently(law: Law, n: int, total: float, golden: float) -> None:
    digits = len(str(golden).split(".")[1])
    assert log10_sf_pairs(law, n, total) == pytest.approx(golden, abs=0.6 * 10**-digits, rel=0)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 20_000), sds=st.floats(-6, 80))
def test_never_below_mpmath_and_hardly_above(n: int, sds: float) -> None:
    x = max(0.01, n + sds * math.sqrt(n))
    k = min(n, max(1, round(n / 4 + sds * math.sqrt(n * 3 / 16))))
    with mpmath.workdps(40):
        if x > n:  # mpmath is asked for the smaller of the two tails
            gamma = mpmath.log10(poisson_below(n, x))
        else:
            gamma = mpmath.log1p(-poisson_from(n, x)) / mpmath.log(10)
        if k > n / 4:
            binomial = mpmath.log10(binomial_from(n, mpmath.mpf(1) / 4, k))
        else:
            binomial = mpmath.log1p(-binomial_from(n, mpmath.mpf(3) / 4, n - k + 1)) / mpmath.log(10)
        for found, true in (
            (log10_sf_pairs(Exponential(), n, x), gamma),
            (log10_sf_pairs(Bernoulli(0.25), n, k), binomial),
        ):
            assert float(true) <= float(found) <= float(true) * (1 - 1e-9)


def binomial_from(n: int, gamma: mpmath.mpf, k: int) -> mpmath.mpf:
    term = mpmath.binomial(n, k) * gamma**k * (1 - gamma) ** (n - k)
    return series(term, lambda j: (n - k - j) * gamma / ((k + 1 + j) * (1 - gamma)))


def poisson_below(n: int, x: float) -> mpmath.mpf:
    term = mpmath.exp((n - 1) * mpmath.log(x) - x - mpmath.loggamma(n))
    return series(term, lambda j: (n - 1 - j) / mpmath.mpf(x))


def poisson_from(n: int, x: float) -> mpmath.mpf:
    term = mpmath.exp(n * mpmath.log(x) - x - mpmath.loggamma(n + 1))
    return series(term, lambda j: mpmath.mpf(x) / (n + 1 + j))


def series(term: mpmath.mpf, ratio: object) -> mpmath.mpf:
    total, j = mpmath.mpf(0), 0
    while term > total * mpmath.mpf("1e-30"):
        total += term
        term *= ratio(j)  # type: ignore[operator]
        j += 1
    return total


# --- lattices: shared tilts ------------------------------------------------------------------------------

tables = st.builds(
    lambda start, steps, parts: Lattice(
        tuple(start + sum(steps[:i]) for i in range(len(parts))), tuple(part / sum(parts) for part in parts)
    ),
    st.integers(-20, 20),
    st.lists(st.integers(1, 15), min_size=4, max_size=4),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
fair_bits = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(lambda weights: WeightedBits(tuple(weights)))


def values_of(law: WeightedBits | Lattice) -> tuple[int, float, float, int]:
    """Least value, mean, sd and greatest value of one draw."""
    if isinstance(law, WeightedBits):
        half = np.array(law.weights) / 2
        return 0, half.sum(), math.sqrt(half @ half), sum(law.weights)
    values = np.array(law.values)
    mean = values @ law.probabilities
    spread = math.sqrt((values - mean) ** 2 @ law.probabilities)
    return int(values.min()), float(mean), spread, int(values.max())


@settings(max_examples=150, deadline=None)
@given(
    law=st.one_of(tables, fair_bits),
    pairs=st.lists(st.tuples(st.integers(0, 400), st.floats(-8, 25)), min_size=1, max_size=6),
)
def test_any_lattice_s_pairs_have_the_tails_of_one_n(
    law: WeightedBits | Lattice, pairs: list[tuple[int, float]]
) -> None:
    least, mean, sd, most = values_of(law)
    ns, totals = [], []
    for n, sds in [(0, 0.0), (1, 1.0), *pairs]:
        ends = [n * end + beyond for end in (least, most) for beyond in (-1, 0, 1)]
        near = [round(n * mean + sds * sd * math.sqrt(n)), round(n * mean)]
        totals += [*ends, *near, 0]
        ns += [n] * (len(ends) + len(near) + 1)
    assert_like_tails(law, np.array(ns), np.array(totals))


@pytest.mark.parametrize(
    ("weights", "n"),
    [
        (tuple(range(30, 0, -1)), 1),
        (tuple(range(30, 0, -1)), 15),
        (tuple(range(10, 0, -1)), 50),
        ((1,) * 30, 60),
        ((1, 1, 1, 1000), 3),
        ((97, 89, 2), 40),
    ],
)
def test_fair_bits_are_never_below_exact_arithmetic_and_hardly_above(weights: tuple[int, ...], n: int) -> None:
    ways = np.ones(1, dtype=object)  # Python integers, indexed by the sum
    for weight in weights * n:
        ways = np.append(ways, [0] * weight) + np.append([0] * weight, ways)
    at_least = np.cumsum(ways[::-1])[::-1]
    totals = np.unique(np.linspace(1, len(ways) - 1, 300).astype(int))
    found = log10_sf_pairs(WeightedBits(weights), n, totals)
    for total, log10_p in zip(totals, found, strict=True):
        assert_just_above(float(log10_p), at_least[total], at_least[0])


@pytest.mark.parametrize("n", [1, 40])
def test_tables_are_never_below_exact_arithmetic_and_hardly_above(n: int) -> None:
    eighths = np.array([1, 0, 0, 4, 0, 0, 0, 2, 1], dtype=object)  # of TABLE's values from -3 on
    ways = np.ones(1, dtype=object)
    for _ in range(n):
        ways = np.convolve(ways, eighths)
    at_least = np.cumsum(ways[::-1])[::-1]
    for place in range(1, len(ways)):
        assert_just_above(float(log10_sf_pairs(TABLE, n, place - 3 * n)), at_least[place], at_least[0])


def assert_just_above(found: float, ways: int, of: int) -> None:
    with mpmath.workdps(40):
        small = mpmath.mpf(min(ways, of - ways)) / of
        true = float((mpmath.log(small) if 2 * ways < of else mpmath.log1p(-small)) / mpmath.log(10))
    assert true <= found <= true * (1 - 1e-9)


@pytest.mark.parametrize("law", [LAYERS, WeightedBits(tuple(range(10, 0, -1))), WeightedBits((1,) * 30), TABLE])
def test_no_pair_of_a_corpus_takes_the_slow_route(law: WeightedBits | Lattice) -> None:
    rng = np.random.default_rng(2)
    least, mean, sd, most = values_of(law)
    ns = np.concatenate([np.arange(6).repeat(40), rng.integers(1, 5_000, 4_000)])
    totals = np.rint(ns * mean + rng.uniform(-6, 60, ns.size) * sd * np.sqrt(ns)).astype(np.int64)
    log_p = LatticePairs(law).log_sf(ns, np.clip(totals, ns * least - 1, ns * most + 1))
    assert np.all(log_p <= 0)  # no NaN


def test_pairs_are_the_same_in_any_company() -> None:
    rng = np.random.default_rng(3)
    ns = rng.integers(1, 1_000, 50)
    totals = rng.binomial(15 * ns, 0.55) * 31
    together = log10_sf_pairs(LAYERS, ns, totals)
    assert [float(log10_sf_pairs(LAYERS, n, total)) for n, total in zip(ns, totals, strict=True)] == together.tolist()


def test_far_and_uneven_pairs_are_handed_back_and_answered_all_the_same() -> None:
    many, rare = MOST_DRAWS + 1, Lattice((0, 1), (2.0**-20, 1 - 2.0**-20))
    law: Any
    gap = WeightedBits((1, 1, 1, 1_000_003))
    for law, n, total in [(TABLE, many, 2 * many), (rare, 3, 3), (gap, 3, 2_000_006)]:
        assert np.isnan(LatticePairs(law).log_sf(np.array([n]), np.array([total])))
        assert_like_tails(law, np.array([n]), np.array([total]))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    ns, totals = np.arange(1, 3_000), 3 * np.arange(1, 3_000)
    unbounded = LatticePairs(TABLE).log_sf(ns, totals)
    monkeypatch.setattr(lattice_pairs, "_KEPT", 200)
    pairs = LatticePairs(TABLE)
    np.testing.assert_array_equal(pairs.log_sf(ns, totals), unbounded)
    held = pairs._upper._tables.values()
    assert 0 < sum(table.errors.size for table in held if table) < 1_000


# --- properties ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_a_larger_total_never_has_a_larger_p(law: Law) -> None:
    totals = np.arange(-3, 900)
    for n in (1, 2, 50, 300):
        log10_p = log10_sf_pairs(law, n, totals)
        later, earlier = log10_p[1:], log10_p[:-1]
        assert np.all(later <= earlier + 1e-9 * np.abs(np.where(np.isfinite(earlier), earlier, 0)))


@pytest.mark.parametrize("law", [*LAWS, LAYERS])
def test_no_draws_sum_to_zero(law: Law) -> None:
    assert log10_sf_pairs(law, 0, [-1, 0, 1]).tolist() == [0.0, 0.0, -math.inf]


def test_shapes_broadcast_and_may_be_empty() -> None:
    ns, totals = np.array([10, 20, 30]), np.arange(12).reshape(4, 3)
    for law in (Bernoulli(0.25), Exponential(), WeightedBits((2, 1))):
        found = log10_sf_pairs(law, ns, totals)
        assert found.shape == (4, 3)
        np.testing.assert_allclose(found[:, 1], log10_sf_many(law, 20, totals[:, 1]), rtol=1e-9)
        assert log10_sf_pairs(law, [], []).shape == (0,)


@pytest.mark.parametrize(
    ("law", "ns", "totals", "message"),
    [
        (Bernoulli(0.5), [-1], [0], "0 .. 2\\^53"),
        (Bernoulli(0.5), [2.5], [0], "integers"),
        (Bernoulli(0.5), [2], [0.5], "integers"),
        (Bernoulli(2.0), [2], [1], "strictly between"),
        (Exponential(), [2], [math.inf], "finite"),
    ],
)
def test_what_is_no_pair_is_refused(law: Law, ns: list[int], totals: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log10_sf_pairs(law, ns, totals)


@pytest.mark.parametrize("law", [Bernoulli(0.25), Exponential(), LAYERS])
def test_simulated_nulls_of_mixed_lengths_are_no_smaller_than_uniform(law: Law) -> None:
    rng, trials = np.random.default_rng(7), 20_000
    totals: Any
    ns = rng.integers(20, 60, trials)
    match law:
        case Bernoulli(gamma):
            totals = rng.binomial(ns, gamma)
        case Exponential():
            totals = rng.standard_gamma(ns)
        case _:
            totals = sum(weight * rng.binomial(ns, 0.5) for weight in range(1, 31))
    log10_p = log10_sf_pairs(law, ns, totals)
    for alpha in (0.1, 0.01, 0.001):
        rejected = np.count_nonzero(log10_p <= math.log10(alpha))
        assert trials * alpha / 3 <= rejected <= trials * alpha + 4 * math.sqrt(trials * alpha)
