"""Statements about how much is marked hold as often as they say, whatever the marked part looks like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import bdtrc, ndtr, stdtrit

from detect.corpus.bins import StatisticBins
from detect.corpus.share import (
    Excess,
    least_marked,
    least_marked_tokens,
    marked_documents,
    marked_tokens,
    student_quantile,
)
from watermark.laws import Bernoulli, Exponential, WeightedBits
from watermark.schemes.green_list import GreenList
from watermark.schemes.gumbel import Gumbel
from watermark.schemes.protocol import Scheme
from watermark.schemes.tournament import Tournament

SCHEMES: list[Scheme] = [Gumbel(), GreenList(), Tournament()]
GUMBEL = Gumbel()
SUBKEYS = 4


def covers_often_enough(covered: list[bool], confidence: float) -> bool:
    """Not fewer than the confidence by more than 4 standard deviations."""
    expected = len(covered) * confidence
    return sum(covered) >= expected - 4 * math.sqrt(expected * (1 - confidence))


# --- documents -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("documents", [10, 400])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_the_bound_on_documents_holds(documents: int, share: float, confidence: float) -> None:
    rng = np.random.default_rng(documents)
    marked = round(share * documents)
    lows = []
    for _ in range(300):
        strength = np.where(np.arange(documents) < marked, rng.choice([0.5, 3.0, 6.0], documents), 0.0)
        ps = ndtr(-(strength + rng.standard_normal(documents)))
        lows.append(marked_documents(np.log10(ps), confidence).low)
    assert covers_often_enough([low <= marked / documents for low in lows], confidence)
    if documents == 400 and share:
        assert np.mean(lows) > share / 10  # and it says something


def test_without_marks_the_bound_errs_about_as_often_as_it_may() -> None:
    """Were its thresholds much too strict, or too lax, this would tell."""
    rng = np.random.default_rng(3)
    wrong = sum(marked_documents(np.log10(rng.random(1_000)), 0.8).low > 0 for _ in range(1_000))
    assert 50 <= wrong <= 200 + 4 * math.sqrt(160)


@pytest.mark.parametrize("ps", [[0.9], [0.02], [0.5, 0.2], np.linspace(0.01, 0.99, 60)])
def test_without_a_bound_there_is_no_estimate(ps: list[float]) -> None:
    """Storey's estimate of one unmarked document is 0% or 100%, as its p-value lies."""
    found = marked_documents(np.log10(ps))
    assert (found.low, found.estimate, found.high) == (0.0, None, None)


def test_the_estimate_is_near_the_share_of_strong_documents() -> None:
    rng = np.random.default_rng(0)
    ps = ndtr(-(rng.standard_normal(10_000) + 6.0 * (np.arange(10_000) < 3_000)))
    found = marked_documents(np.log10(ps))
    assert found.estimate == pytest.approx(0.3, abs=0.01)
    assert 0.28 < found.low <= 0.3
    assert found.high is None


@settings(max_examples=50, deadline=None)
@given(log10_ps=st.lists(st.floats(-9, 0), max_size=60), more=st.integers(1, 20))
def test_strong_documents_only_raise_the_bound(log10_ps: list[float], more: int) -> None:
    before, after = marked_documents(log10_ps), marked_documents([*log10_ps, *[-500.0] * more])
    assert 0 <= before.low <= 1
    assert before.estimate is None or before.low <= before.estimate <= 1
    assert after.low * (len(log10_ps) + more) >= before.low * len(log10_ps)
    assert after.low * (len(log10_ps) + more) <= round(before.low * len(log10_ps)) + more + len(log10_ps)


def test_the_bound_by_hand() -> None:
    # One threshold .1 and 100 things: above 15 of them are expected with a chance of .0399, above 14 of .0726.
    assert bdtrc(15, 100, 0.1) < 0.05 < bdtrc(14, 100, 0.1)
    assert least_marked(np.array([15]), np.array([0.1]), 100, 0.95) == (0, 0)
    assert least_marked(np.array([16]), np.array([0.1]), 100, 0.95) == (1, 0)
    # With 40 counted, 25 are not null; then at most 75 are, of which above 12 with .0385: 28; of 72: above 12: .0299.
    assert bdtrc(12, 75, 0.1) < 0.05 and bdtrc(12, 72, 0.1) < 0.05 < bdtrc(11, 72, 0.1)
    assert least_marked(np.array([40]), np.array([0.1]), 100, 0.95) == (28, 0)


# --- tuples, without a reference -------------------------------------------------------------------------


def marked_words(rng: np.random.Generator, scheme: Scheme, count: int) -> np.ndarray:
    """Words as a mark of middling strength leaves them: the largest statistic of two."""
    words = rng.integers(0, 2**32, (2, count), dtype=np.uint32)
    statistics = scheme.statistic(words.ravel()).reshape(2, count)
    return np.where(statistics[0] >= statistics[1], words[0], words[1])


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_the_bound_on_tokens_holds_for_every_scheme(scheme: Scheme, share: float) -> None:
    rng, tuples = np.random.default_rng(1), 4_000
    bins = StatisticBins.of_law(scheme.law, scheme.unit)
    lows = []
    for _ in range(100):
        words = rng.integers(0, 2**32, (SUBKEYS, tuples), dtype=np.uint32)
        marked = round(share * tuples)
        words[1, :marked] = marked_words(rng, scheme, marked)
        histogram = np.zeros(bins.count, dtype=np.int64)
        bins.add(scheme.statistic(words.ravel()), histogram)
        lows.append(least_marked_tokens(scheme.law, scheme.unit, histogram, tuples).low)
    assert covers_often_enough([low <= share for low in lows], 0.95)
    assert np.mean(lows) > share / 10 or share < 0.1


def test_rows_of_sub_keys_are_added() -> None:
    bins = StatisticBins.of_law(GUMBEL.law, GUMBEL.unit)
    rows = np.random.default_rng(0).multinomial(5_000, np.full(bins.count, 1 / bins.count), 2)
    by_rows = least_marked_tokens(GUMBEL.law, GUMBEL.unit, rows, 5_000)
    assert by_rows == least_marked_tokens(GUMBEL.law, GUMBEL.unit, rows.sum(axis=0), 5_000)
    assert by_rows.low > 0.9


@pytest.mark.parametrize("wrong", [np.zeros(3, np.int64), np.full(355, -1), np.ones(355, np.int64)])
def test_a_histogram_of_something_else_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="histogram must hold 355 counts of 100 tuples"):
        least_marked_tokens(GUMBEL.law, GUMBEL.unit, wrong, 100)


# --- bins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_bins_have_the_laws_survival(scheme: Scheme) -> None:
    words = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    statistics = scheme.statistic(np.append(words, np.array([0, 2**32 - 1], dtype=np.uint32)))
    bins = StatisticBins.of_law(scheme.law, scheme.unit)
    histogram = np.zeros(bins.count, dtype=np.int64)
    bins.add(statistics, histogram)
    np.testing.assert_array_equal(histogram, np.bincount(bins.of(statistics), minlength=bins.count))
    survival = 10.0**bins.log10_survival
    observed = np.cumsum(histogram[::-1])[::-1] / len(statistics)
    assert np.all(np.abs(observed - survival) <= 5 * np.sqrt(survival / len(statistics)) + 2e-5)


def test_bins_of_long_lattices_are_wider_and_of_negative_ones_shifted() -> None:
    bins = StatisticBins.of_law(WeightedBits((3_000, 2_000)), 1.0)
    assert (bins.shift, bins.count) == (3, 626)
    with pytest.raises(ValueError, match="power of two"):
        StatisticBins.of_law(Exponential(), 0.3)


# --- tokens, by a reference ------------------------------------------------------------------------------


def documents_of(rng: np.random.Generator, shares: np.ndarray) -> tuple[Excess, int, int]:
    """Documents of unequal length and effect; their tuples, and how many are marked."""
    tuples = np.maximum(20, rng.lognormal(math.log(200), 0.8, len(shares))).astype(np.int64)
    marked = np.rint(tuples * shares)
    effects = 0.8 * rng.lognormal(0, 0.3, len(shares))
    totals = rng.standard_gamma(np.repeat(tuples[:, None], SUBKEYS, axis=1))
    totals[:, 2] = rng.standard_gamma(np.maximum(tuples - marked, 1e-9))
    totals[:, 2] += rng.standard_gamma(np.maximum(marked, 1e-9)) * (1 + effects)
    excess = Excess.of(GUMBEL.law, GUMBEL.unit, tuples, np.floor(totals / GUMBEL.unit))
    return excess, int(tuples.sum()), int(marked.sum())


@pytest.mark.parametrize("reference", [20, 100])
@pytest.mark.parametrize("case", ["no mark", "1%", "30%", "30%, some half", "all half", "all"])
def test_the_interval_on_tokens_holds(case: str, reference: int) -> None:
    rng, documents = np.random.default_rng(reference), 500
    covered, widths = [], []
    for _ in range(300):
        share = {"no mark": 0.0, "1%": 0.01}.get(case, 0.3 if case.startswith("30%") else 1.0)
        part: Any = {"30%, some half": rng.choice([0.5, 1.0], documents), "all half": 0.5}.get(case, 1.0)
        corpus, tuples, marked = documents_of(rng, (rng.random(documents) < share) * part)
        known, _, _ = documents_of(rng, np.ones(reference))
        found = marked_tokens(GUMBEL.law, GUMBEL.unit, SUBKEYS, corpus, known)
        high = 1.0 if found.high is None else found.high
        covered.append(found.low <= marked / tuples <= high)
        widths.append(high - found.low)
    assert covers_often_enough(covered, 0.95)
    assert np.mean(widths) < 0.4


def test_the_estimate_is_the_ratio_of_mean_excesses() -> None:
    corpus = Excess.of(Bernoulli(0.25), 1.0, np.full(50, 100), np.array([[25, 30]] * 25 + [[25, 40]] * 25))
    known = Excess.of(Bernoulli(0.25), 1.0, np.full(20, 100), np.array([[25, 40], [25, 60]] * 10))
    found = marked_tokens(Bernoulli(0.25), 1.0, 2, corpus, known)
    assert found.estimate == pytest.approx((0.05 + 0.15) / 2 / 0.25)
    assert found.high is not None and found.low < 0.4 < found.high


def test_a_reference_that_shows_no_mark_identifies_nothing() -> None:
    rng = np.random.default_rng(0)
    corpus, _, _ = documents_of(rng, np.ones(50))
    for known in (documents_of(rng, np.zeros(50))[0], documents_of(rng, np.ones(1))[0]):
        found = marked_tokens(GUMBEL.law, GUMBEL.unit, SUBKEYS, corpus, known)
        assert (found.low, found.estimate, found.high) == (0.0, None, None)


@pytest.mark.parametrize("freedom", [2.0, 3.0, 5.5, 20.0, 1e9])
def test_the_expansion_of_student_s_quantile_is_that_of_scipy(freedom: float) -> None:
    for probability in (0.9, 0.975, 0.995):
        rel = 0.12 if freedom == 2 and probability > 0.99 else 0.035 if freedom <= 3 else 0.004
        assert student_quantile(probability, freedom) == pytest.approx(stdtrit(freedom, probability), rel=rel)


# --- edges -----------------------------------------------------------------------------------------------


def test_nothing_tested_says_nothing() -> None:
    bins = StatisticBins.of_law(GUMBEL.law, GUMBEL.unit)
    nothing = Excess(np.zeros(0, np.int64), np.zeros(0))
    known, _, _ = documents_of(np.random.default_rng(0), np.ones(9))
    for found in (
        marked_documents([]),
        least_marked_tokens(GUMBEL.law, GUMBEL.unit, np.zeros(bins.count, np.int64), 0),
        marked_tokens(GUMBEL.law, GUMBEL.unit, SUBKEYS, nothing, known),
    ):
        assert (found.low, found.estimate, found.high) == (0.0, None, None)
        assert found.method


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_a_confidence_lies_between_0_and_1(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        marked_documents([-1.0], confidence)
    with pytest.raises(ValueError, match="at most 0"):
        marked_documents([math.nan])
