"""Tails against outside programs (mpmath), exact rational arithmetic, and simulation."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from detect.laws.tails import log10_sf, log10_sf_many, log10_sf_weighted_many
from watermark.laws import Bernoulli, Exponential, Lattice, Law, WeightedBits

LAYERS = WeightedBits(tuple(range(30, 0, -1)))
FAIR = Bernoulli(0.5)
# Probabilities that floats hold exactly, so that rational arithmetic speaks of the same law.
TABLE = Lattice((-3, 0, 4, 5), (0.125, 0.5, 0.25, 0.125))


# --- oracles ---------------------------------------------------------------------------------------------


Ways = dict[int, int]  # how many of some number of equally likely outcomes give each sum


def log10_sf_weighted(law: Bernoulli | WeightedBits | Lattice, weights: ArrayLike, total: int) -> float:
    return float(log10_sf_weighted_many(law, weights, [total])[0])


def ways_of(law: Bernoulli | WeightedBits | Lattice) -> Ways:
    match law:
        case Bernoulli(gamma):
            return {0: 2**60 - int(gamma * 2**60), 1: int(gamma * 2**60)}
        case WeightedBits(weights):
            return ways_of_sum([{0: 1, weight: 1} for weight in weights])
        case Lattice(values, probabilities):
            ways: Ways = Counter()
            for value, probability in zip(values, probabilities, strict=True):
                ways[value] += int(probability * 2**60)
            return ways


def ways_of_sum(laws: list[Ways]) -> Ways:
    ways: Ways = {0: 1}
    for law in laws:
        longer: Ways = Counter()
        for (a, m), (b, n) in itertools.product(ways.items(), law.items()):
            longer[a + b] += m * n
        ways = longer
    return ways


def exact_log10_sf(ways: Ways, total: int) -> float:
    above = sum(count for value, count in ways.items() if value >= total)
    below = sum(ways.values()) - above
    if above == 0:
        return -math.inf
    with mpmath.workdps(40):
        if above > below:
            return float(mpmath.log1p(-mpmath.mpf(below) / (above + below)) / mpmath.log(10))
        return float(mpmath.log10(mpmath.mpf(above) / (above + below)))


def mpmath_binomial(n: int, gamma: float, total: int) -> float:
    with mpmath.workdps(60):
        hit, miss = mpmath.mpf(gamma), 1 - mpmath.mpf(gamma)
        below = total <= n * gamma
        k, p, q = (n - total + 1, miss, hit) if below else (total, hit, miss)
        leading = mpmath.binomial(n, k) * p**k * q ** (n - k)
        tail = mpmath_series(leading, lambda j: (n - k - j) * p / ((k + 1 + j) * q))
        return float((mpmath.log1p(-tail) if below else mpmath.log(tail)) / mpmath.log(10))


def mpmath_gamma(n: int, total: float) -> float:
    """Gamma(n, 1) >= x is Poisson(x) < n; mpmath's own incomplete gamma gives up beyond n of 16,000."""
    with mpmath.workdps(60):
        x = mpmath.mpf(total)
        below = total <= n
        k = n if below else n - 1
        leading = mpmath.exp(k * mpmath.log(x) - x - mpmath.loggamma(k + 1))
        tail = mpmath_series(leading, (lambda j: x / (n + 1 + j)) if below else (lambda j: (n - 1 - j) / x))
        return float((mpmath.log1p(-tail) if below else mpmath.log(tail)) / mpmath.log(10))


def mpmath_series(term: mpmath.mpf, ratio: Callable[[int], mpmath.mpf]) -> mpmath.mpf:
    total, j = mpmath.mpf(0), 0
    while term > total * mpmath.mpf("1e-40"):
        total += term
        term *= ratio(j)
        j += 1
    return total


def assert_just_above(found: float, true: float, *, relative: float = 1e-9) -> None:
    """Never below the truth (so never anti-conservative), and above it by no more than ``relative``."""
    assert true <= found <= true * (1 - relative)


# --- values from elsewhere -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("law", "n", "total", "golden"),
    [
        (FAIR, 10_000, 7_000, -359.167339),
        (Bernoulli(0.25), 10_000, 5_500, -886.963011),
        (FAIR, 1_000_000, 560_000, -3136.894372),
        (Bernoulli(0.25), 200, 80, -5.65263322),
        (Bernoulli(0.25), 10_000, 4_000, -236.80831840),
        (Exponential(), 10_000, 13_000.0, -165.3268),
        (Exponential(), 1_000_000, 1.1e6, -2039.1622),
        (Exponential(), 1_000, 1_500.0, -42.65665077),
        (LAYERS, 1_000, 250_000, -29.62619549),
    ],
)
def test_golden_values_computed_independently(law: Law, n: int, total: float, golden: float) -> None:
    digits = len(str(golden).split(".")[1])
    assert log10_sf(law, n, total) == pytest.approx(golden, abs=0.6 * 10**-digits, rel=0)


@settings(max_examples=60, deadline=None)
@example(n=100_000, gamma=1e-5, sds=0)  # (1 - 1e-5)^n: 1 - 1e-5 as a float is off by 1e-11 of 1e-5
@given(
    n=st.integers(1, 200_000),
    gamma=st.one_of(st.sampled_from([0.25, 0.5]), st.floats(1e-5, 1 - 1e-5)),
    sds=st.floats(-6, 120),
)
def test_binomial_tail_is_that_of_mpmath(n: int, gamma: float, sds: float) -> None:
    total = min(n, max(1, round(n * gamma + sds * math.sqrt(n * gamma * (1 - gamma)))))
    assert_just_above(log10_sf(Bernoulli(gamma), n, total), mpmath_binomial(n, gamma, total))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 200_000), sds=st.floats(-6, 120))
def test_gamma_tail_is_that_of_mpmath(n: int, sds: float) -> None:
    total = max(0.01, n + sds * math.sqrt(n))
    assert_just_above(log10_sf(Exponential(), n, total), mpmath_gamma(n, total))


def test_tails_far_below_the_smallest_float_keep_their_digits() -> None:
    assert log10_sf(FAIR, 10**9, 10**9) == pytest.approx(-(10**9) * math.log10(2), rel=1e-9)
    assert log10_sf(Exponential(), 1, 1e7) == pytest.approx(-1e7 * math.log10(math.e), rel=1e-12)
    assert_just_above(log10_sf(FAIR, 20_000, 19_000), mpmath_binomial(20_000, 0.5, 19_000))  # 1e-4298
    layers = WeightedBits((1,) * 20)  # 20 fair layers of weight 1 are 20 fair draws
    for n, total in [(1_000, 19_000), (10**5, 10**6 + 10**5), (10**7, 10**8 + 10**6)]:
        assert log10_sf(layers, n, total) == pytest.approx(log10_sf(FAIR, 20 * n, total), rel=1e-9)


# --- lattices, against rational arithmetic ---------------------------------------------------------------

lattice_laws = st.one_of(
    st.sampled_from([FAIR, Bernoulli(0.25), Bernoulli(2.0**-20), Bernoulli(1 - 2.0**-20), TABLE]),
    st.lists(st.integers(1, 12), min_size=1, max_size=4).map(lambda weights: WeightedBits(tuple(weights))),
)


@settings(max_examples=80, deadline=None)
@given(law=lattice_laws, n=st.integers(0, 8))
def test_sums_of_few_draws_have_their_exact_tail_at_every_total(law: Lattice, n: int) -> None:
    ways = ways_of_sum([ways_of(law)] * n)
    totals = np.arange(min(ways) - 2, max(ways) + 3)
    for total, found in zip(totals, log10_sf_many(law, n, totals), strict=True):
        assert_just_above(found, exact_log10_sf(ways, int(total)), relative=1e-12)


@settings(max_examples=80, deadline=None)
@example(law=Bernoulli(0.25), weights=[3_000, 1_200, 801])  # long and few draws: every frequency matters
@example(law=Bernoulli(0.25), weights=[3_000, -1_200, -801])
@example(law=TABLE, weights=[-60, 60])  # all that cancels, cancels
@given(law=lattice_laws, weights=st.lists(st.integers(-60, 60), max_size=4))
def test_weighted_sums_have_their_exact_tail(law: Lattice, weights: list[int]) -> None:
    ways = ways_of_sum([{w * value: count for value, count in ways_of(law).items()} for w in weights if w])
    some = list(ways)[:: 1 + len(ways) // 50]
    totals = np.unique([value + offset for value in some for offset in (-1, 0, 1)])
    for total, found in zip(totals, log10_sf_weighted_many(law, weights, totals), strict=True):
        assert_just_above(found, exact_log10_sf(ways, int(total)))


@pytest.mark.parametrize(
    ("weights", "n"),
    [((30, 29, 28, 5, 4, 3, 2, 1), 50), (tuple(range(30, 0, -1)), 20), ((1, 1, 1, 1000), 10)],
)
def test_long_lattices_have_their_exact_tail_from_one_end_to_the_other(weights: tuple[int, ...], n: int) -> None:
    outcomes = np.ones(1, dtype=object)  # Python integers, indexed by the sum
    for weight in weights * n:
        outcomes = np.append(outcomes, [0] * weight) + np.append([0] * weight, outcomes)
    at_least = np.cumsum(outcomes[::-1])[::-1]
    totals = np.unique(np.linspace(len(outcomes) // 3, len(outcomes) - 1, 60).astype(int))
    for total, found in zip(totals, log10_sf_many(WeightedBits(weights), n, totals), strict=True):
        tail = {1: at_least[total], 0: at_least[0] - at_least[total]}
        assert_just_above(found, exact_log10_sf(tail, 1))


@pytest.mark.parametrize("n", [3, 400, 10**5, 10**9])
@pytest.mark.parametrize("gamma", [0.5, 0.25, 0.01])
def test_a_lattice_of_two_values_is_binomial(n: int, gamma: float) -> None:
    sd = math.sqrt(n * gamma * (1 - gamma))
    totals = np.unique([min(n, max(0, round(n * gamma + z * sd))) for z in (-5, -1, 0, 1, 5, 30, 100)])
    by_lattice = log10_sf_many(Lattice((0, 1), (1 - gamma, gamma)), n, totals)
    np.testing.assert_allclose(by_lattice, log10_sf_many(Bernoulli(gamma), n, totals), rtol=1e-9)


def test_some_hit_among_many_draws_that_hardly_ever_hit() -> None:
    some_hit = mpmath_binomial(100_000, 1e-5, 1)
    assert_just_above(log10_sf_weighted(Bernoulli(1e-5), [1] * 100_000, 1), some_hit)


def test_totals_between_lattice_points_count_as_the_next_point() -> None:
    law = WeightedBits((6, 3))
    assert log10_sf(law, 400, 1_999) == log10_sf(law, 400, 2_001) > log10_sf(law, 400, 2_002)


def test_rare_values_across_a_wide_gap_never_make_p_too_small() -> None:
    law = Lattice((0, 1, 100_000), (0.5, 0.5 - 2.0**-40, 2.0**-40))
    ways = ways_of_sum([ways_of(law)] * 3)
    for total in (2, 3, 4, 50_000, 100_000, 100_003, 250_000, 300_000):
        assert log10_sf(law, 3, total) >= exact_log10_sf(ways, total)


# --- properties ------------------------------------------------------------------------------------------

any_law = st.one_of(lattice_laws, st.just(Exponential()))


@settings(max_examples=60, deadline=None)
@given(law=any_law, n=st.integers(1, 300), start=st.integers(-5, 500))
def test_a_larger_total_never_has_a_larger_p(law: Law, n: int, start: int) -> None:
    log10_p = log10_sf_many(law, n, np.arange(start, start + 100))
    assert np.all(log10_p <= 0)
    later, earlier = log10_p[1:], log10_p[:-1]
    assert np.all(later <= earlier + 1e-9 * np.abs(np.where(np.isfinite(earlier), earlier, 0)))


@settings(max_examples=40, deadline=None)
@given(law=any_law, n=st.integers(0, 2_000), seed=st.integers(0, 2**32 - 1))
def test_many_totals_are_the_single_totals(law: Law, n: int, seed: int) -> None:
    totals = np.random.default_rng(seed).integers(-5, 5 * n + 5, size=(3, 4))
    many = log10_sf_many(law, n, totals)
    single = [[log10_sf(law, n, int(total)) for total in row] for row in totals]
    np.testing.assert_allclose(many, single, rtol=1e-9, atol=1e-300)


@settings(max_examples=40, deadline=None)
@given(law=lattice_laws, n=st.integers(0, 500), share=st.floats(0, 1))
def test_weights_of_one_change_nothing(law: Lattice, n: int, share: float) -> None:
    total = round(n * (min(ways_of(law)) * (1 - share) + max(ways_of(law)) * share))
    weighted = log10_sf_weighted(law, np.ones(n, dtype=np.int64), total)
    assert weighted == pytest.approx(log10_sf(law, n, total), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    law=lattice_laws,
    weights=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    scale=st.integers(1, 1_000),
    share=st.floats(0, 1),
)
def test_a_common_factor_and_zero_weights_change_nothing(
    law: Lattice, weights: list[int], scale: int, share: float
) -> None:
    total = round(sum(weights) * (min(ways_of(law)) * (1 - share) + max(ways_of(law)) * share))
    scaled = log10_sf_weighted(law, [scale * w for w in weights] + [0, 0], scale * total)
    assert scaled == pytest.approx(log10_sf_weighted(law, weights, total), rel=1e-9)


@pytest.mark.parametrize("law", [Bernoulli(0.25), Exponential(), WeightedBits((3, 2, 1)), LAYERS, TABLE])
def test_simulated_nulls_are_no_smaller_than_uniform(law: Law) -> None:
    trials, n, rng = 20_000, 60, np.random.default_rng(7)
    totals: np.ndarray[Any, Any]
    match law:
        case Bernoulli(gamma):
            totals = rng.binomial(n, gamma, trials)
        case Exponential():
            totals = rng.standard_gamma(n, trials)
        case WeightedBits(weights):
            totals = rng.binomial(n, 0.5, (trials, len(weights))) @ np.array(weights)
        case Lattice(values, probabilities):
            totals = rng.multinomial(n, probabilities, trials) @ np.array(values)
    log10_p = log10_sf_many(law, n, totals)
    for alpha in (0.1, 0.01, 0.001):
        sd = math.sqrt(trials * alpha * (1 - alpha))
        rejected = np.count_nonzero(log10_p <= math.log10(alpha))
        assert rejected <= trials * alpha + 4 * sd
        assert rejected >= trials * alpha / 3  # exact, not merely conservative


def test_zipfian_weights_agree_with_simulation() -> None:
    """Unigram counts: a few types carry much of the text, and the tail is far from normal."""
    counts, rng = (1_000 / np.arange(1, 400)).astype(int), np.random.default_rng(3)
    totals = (rng.random((20_000, counts.size)) < 0.25) @ counts
    log10_p = log10_sf_weighted_many(Bernoulli(0.25), counts, totals)
    for alpha in (0.1, 0.01):
        sd = math.sqrt(20_000 * alpha)
        assert abs(np.count_nonzero(log10_p <= math.log10(alpha)) - 20_000 * alpha) <= 4 * sd


# --- edges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [FAIR, Exponential(), LAYERS, TABLE])
def test_no_draws_sum_to_zero(law: Law) -> None:
    assert [log10_sf(law, 0, total) for total in (-1, 0, 1)] == [0.0, 0.0, -math.inf]


@pytest.mark.parametrize(
    ("law", "least", "most", "log10_p_of_most"),
    [
        (Bernoulli(0.25), 0, 500, 500 * math.log10(0.25)),
        (WeightedBits((7, 2)), 0, 4_500, 500 * math.log10(0.25)),
        (TABLE, -1_500, 2_500, 500 * math.log10(0.125)),
        (Lattice((5, -5, 5), (0.25, 0.5, 0.25)), -2_500, 2_500, 500 * math.log10(0.5)),
    ],
)
def test_the_least_total_is_certain_and_the_most_is_all_draws_at_once(
    law: Law, least: int, most: int, log10_p_of_most: float
) -> None:
    certain, likely, last, impossible = log10_sf_many(law, 500, [least, least + 1, most, most + 1])
    assert certain == 0.0
    assert -1e-50 < likely <= 0.0
    assert last == pytest.approx(log10_p_of_most, rel=1e-9)
    assert impossible == -math.inf


def test_a_table_may_hold_one_value_and_values_of_no_probability() -> None:
    assert [log10_sf(Lattice((3,), (1.0,)), 5, total) for total in (15, 16)] == [0.0, -math.inf]
    assert log10_sf(Lattice((0, 1, 9), (0.5, 0.5, 0.0)), 5, 6) == -math.inf


def test_no_totals_give_no_p_values() -> None:
    for law in (FAIR, Exponential(), LAYERS):
        assert log10_sf_many(law, 5, []).shape == (0,)


@pytest.mark.parametrize(
    ("law", "n", "total", "message"),
    [
        (FAIR, -1, 0, "n must be at least 0, got -1"),
        (Bernoulli(1.0), 1, 0, "strictly between 0 and 1, got 1.0"),
        (WeightedBits((2, 0)), 1, 0, "positive integers"),
        (WeightedBits(()), 1, 0, "positive integers"),
        (Lattice((0, 1), (0.5, 0.4)), 1, 0, "sum to 0.9"),
        (Lattice((0, 1), (1.5, -0.5)), 1, 0, "none negative"),
        (Lattice((0, 1), (0.5, math.nan)), 1, 0, "sum to nan"),
        (Lattice((0, 1), (1.0,)), 1, 0, "2 values and 1 probabilities"),
        (Lattice((), ()), 1, 0, "0 values"),
        (Lattice((0, 0.5), (0.5, 0.5)), 1, 0, "values must be integers"),  # type: ignore[arg-type]
        (FAIR, 5, 2.5, "must be integers"),
        (FAIR, 5, math.nan, "must be integers"),
        (Exponential(), 5, math.nan, "finite"),
    ],
)
def test_what_is_no_law_or_no_total_is_refused(law: Law, n: int, total: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log10_sf(law, n, total)


@settings(max_examples=40, deadline=None)
@given(
    law=lattice_laws,
    weights=st.lists(st.integers(-50, 50), min_size=1, max_size=40),
    share=st.floats(0, 1),
)
def test_negative_weights_mirror_the_sum(law: Lattice, weights: list[int], share: float) -> None:
    """P(S >= t) + P(-S >= 1 - t) = 1: the two tails are those of one law."""
    values = np.multiply.outer(weights, [min(ways_of(law)), max(ways_of(law))])
    total = round(values.min(axis=1).sum() * (1 - share) + values.max(axis=1).sum() * share)
    upper = log10_sf_weighted(law, weights, total)
    lower = log10_sf_weighted(law, [-w for w in weights], 1 - total)
    assert 10**upper + 10**lower == pytest.approx(1, abs=1e-9)


def test_negative_weights_of_fair_bits_are_positive_ones_from_the_other_end() -> None:
    """-w X is w (1 - X) - w, and 1 - X is as fair as X; so far out that no complement of p could tell it."""
    weights = [7, -3, 5, -11, 2] * 200
    total = 3_600
    by_sign = log10_sf_weighted(FAIR, weights, total)
    shifted = log10_sf_weighted(FAIR, np.abs(weights), total + 14 * 200)
    assert by_sign == pytest.approx(shifted, rel=1e-9)
    assert by_sign < -100


def test_weights_must_be_integers_of_a_lattice_law() -> None:
    with pytest.raises(ValueError, match="must be integers"):
        log10_sf_weighted(FAIR, [1, -2.5], 1)
    with pytest.raises(ValueError, match="Exponential"):
        log10_sf_weighted(Exponential(), [1, 2], 1)  # type: ignore[arg-type]


def test_a_sum_that_would_take_too_long_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detect.laws.lattice._MOST_FREQUENCIES", 10_000)
    with pytest.raises(ValueError, match="coarser step"):
        log10_sf_weighted(FAIR, [10**9, 10**8 + 1, 7, 1], 10**9)


def test_importing_tails_loads_nothing_of_scipys_mathematics() -> None:
    """Numba looks at scipy's version, which loads its front alone."""
    parts = [f"scipy.{part}" for part in ("special", "stats", "linalg")]
    code = f"import sys, detect.laws.tails; sys.exit(not sys.modules.keys().isdisjoint({parts}))"
    subprocess.run([sys.executable, "-c", code], check=True)
