"""Totals under keys, and their tails: against the primitive, full enumeration, fresh keys and importance sampling."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from detect.keyed.owners import owned_contexts
from detect.laws.evalues import cgf, theta_with_effect, value_table
from detect.student.verdict.hypothesis import EFFECTS, WeightedTest
from detect.student.verdict.score import TraceScore
from detect.student.verdict.weights import STEPS, WeightedTuples
from tests.detect.calibration import fresh_keys
from watermark.keys import SecretKey
from watermark.laws import Lattice
from watermark.prf import prf_u32
from watermark.registry import make_scheme
from watermark.rowkeys import subkey
from watermark.schemes.green_list import GreenList
from watermark.spec import WatermarkSpec

SCHEMES = ("gumbel", "green_list", "tournament")
KEY = SecretKey(bytes(range(32)))


def made_tuples(
    contexts: int, seed: int = 0, *, width: int = 2, candidates: int = 6, subkeys: int = -1
) -> WeightedTuples:
    """Weights as a readout gives them: few large ones, many small ones, of both signs."""
    rng = np.random.default_rng(seed)
    weights = np.rint(rng.laplace(scale=12, size=(contexts, candidates)).clip(-64, 64)).astype(np.int64)
    weights[:, 0] += (weights == 0).all(axis=1)
    tokens = np.stack([rng.choice(5000, candidates, replace=False) for _ in range(contexts)])
    context = np.repeat(np.arange(contexts), candidates)
    kept = weights.ravel() != 0
    return WeightedTuples(
        rng.choice(5000, (contexts, width)).astype(np.uint32),
        context[kept],
        tokens.ravel()[kept].astype(np.uint32),
        weights.ravel()[kept],
        np.full(contexts, subkeys, dtype=np.int64),
    )


def made_test(scheme: str, tuples: WeightedTuples, pool: int = 1) -> WeightedTest:
    return WeightedTest(TraceScore.of(make_scheme(scheme, {})), tuples, pool)


# --- totals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 4])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_total_is_the_weighted_sum_of_the_primitives_scores(scheme: str, width: int) -> None:
    tuples = made_tuples(12, width=width)
    tuples.subkeys[:] = np.arange(12) % 4 - 1  # all sub-keys, or the first, the second, the third
    test = made_test(scheme, tuples, pool=3)
    expected = np.zeros(12, dtype=np.int64)
    for context, token, weight in zip(tuples.context, tuples.tokens, tuples.weights, strict=True):
        known = int(tuples.subkeys[context])
        for index in range(3) if known < 0 else [known]:
            word = prf_u32(subkey(KEY, index), tuples.contexts[context].tolist(), int(token))
            expected[context] += weight * test.score(np.array([word], dtype=np.uint32))[0]
    np.testing.assert_array_equal(test.by_context(KEY), expected)
    assert test.totals([KEY, subkey(KEY, 9)])[0] == expected.sum()
    words = sum(3 if tuples.subkeys[c] < 0 else 1 for c in tuples.context)
    assert test.words == test.multiset[1].sum() == words


def test_many_tuples_are_scored_in_parts_that_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    test = made_test("gumbel", made_tuples(50), pool=2)
    whole, by_context = test.totals([KEY]), test.by_context(KEY)
    monkeypatch.setattr("detect.student.verdict.hypothesis._CHUNK", 7)
    np.testing.assert_array_equal(test.totals([KEY]), whole)
    np.testing.assert_array_equal(test.by_context(KEY), by_context)


def test_moments_are_those_of_fresh_keys() -> None:
    test = made_test("gumbel", made_tuples(40), pool=2)
    z = np.array([test.z(int(total)) for total in test.totals(list(fresh_keys("moments", 4_000)))])
    assert abs(z.mean()) < 5 / math.sqrt(len(z))
    assert abs(z.std() - 1) < 5 / math.sqrt(2 * len(z))


def test_no_tuples_are_no_evidence() -> None:
    test = made_test("gumbel", made_tuples(3).first(0))
    assert test.totals([KEY]).tolist() == [0]
    assert test.log10_pvalues([0]).tolist() == [0] and test.log10_pvalues_lower([0]).tolist() == [0]
    assert test.log10_evalue(0) == 0 and test.z(0) == 0


# --- tails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["green_list", "tournament"])
def test_few_words_have_the_tail_of_full_enumeration(scheme: str) -> None:
    tuples = made_tuples(1, candidates=4)
    parameters = {"depth": 3} if scheme == "tournament" else {}
    score = TraceScore.of(make_scheme(scheme, parameters))
    test = WeightedTest(score, tuples, 1)
    values, chances = value_table(score.law)
    outcomes: dict[int, float] = {}
    for drawn in itertools.product(range(len(values)), repeat=len(tuples)):
        total = int(sum(w * values[i] for w, i in zip(tuples.weights.tolist(), drawn, strict=True)))
        outcomes[total] = outcomes.get(total, 0.0) + math.prod(chances[i] for i in drawn)
    assert (tuples.weights < 0).any() and (tuples.weights > 0).any()
    totals = np.array(sorted(outcomes))
    masses = np.array([outcomes[t] for t in totals.tolist()])
    np.testing.assert_allclose(10 ** test.log10_pvalues(totals), masses[::-1].cumsum()[::-1], rtol=1e-8)
    np.testing.assert_allclose(10 ** test.log10_pvalues_lower(totals), masses.cumsum(), rtol=1e-8)


@pytest.mark.parametrize("contexts", [20, 100])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_pvalues_of_fresh_keys_come_as_often_as_they_say(scheme: str, contexts: int) -> None:
    test = made_test(scheme, made_tuples(contexts))
    keys = list(fresh_keys(f"{scheme}{contexts}", 3_000))
    totals = test.totals(keys)
    for log10_p in (test.log10_pvalues(totals), test.log10_pvalues_lower(totals)):
        for level in (1e-1, 1e-2, 1e-3):
            count, expected = int(np.sum(10**log10_p <= level)), len(keys) * level
            assert abs(count - expected) <= 4.5 * math.sqrt(expected) + 1


def tilted_tail(test: WeightedTest, theta: float, total: int, draws: int) -> tuple[float, float]:
    """P(T >= total) and its standard error from words whose scores are drawn tilted by theta (Siegmund 1976)."""
    rng = np.random.default_rng(5)
    values, chances = value_table(test.score.law)
    weights, counts = test.multiset
    sums = np.zeros(draws)
    log_cgf = 0.0
    for weight, count in zip(weights.tolist(), counts.tolist(), strict=True):
        exponents = theta * weight * values
        mass = chances * np.exp(exponents - exponents.max())
        log_cgf += count * (exponents.max() + math.log(mass.sum()))
        sums += weight * (rng.multinomial(count, mass / mass.sum(), size=draws) @ values)
    part = np.where(sums >= total, np.exp(log_cgf - theta * sums), 0.0)
    return float(part.mean()), float(part.std() / math.sqrt(draws))


def total_at(test: WeightedTest, log10_p: float) -> int:
    mean, sd = test.moments
    low, high = mean, mean + 40 * sd
    for _ in range(11):
        middle = (low + high) / 2
        low, high = (low, middle) if test.log10_pvalues([round(middle)])[0] < log10_p else (middle, high)
    return round(low)


def tilt_to(test: WeightedTest, total: int) -> float:
    values, chances = value_table(test.score.law)
    weights, counts = test.multiset

    def mean(theta: float) -> float:
        exponents = theta * np.multiply.outer(weights, values)
        mass = chances * np.exp(exponents - exponents.max(axis=1, keepdims=True))
        return float(counts @ (weights * (mass @ values) / mass.sum(axis=1)))

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if mean(middle) > total else (middle, high)
    return low


@pytest.mark.parametrize("contexts", [20, 1_000])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_small_pvalues_agree_with_importance_sampling(scheme: str, contexts: int) -> None:
    """Where fresh keys can't reach."""
    parameters = {"depth": 8} if scheme == "tournament" else {}
    test = WeightedTest(TraceScore.of(make_scheme(scheme, parameters)), made_tuples(contexts), 1)
    for wanted in (-6.0, -12.0):
        total = total_at(test, wanted)
        exact = 10 ** float(test.log10_pvalues([total])[0])
        assert math.log10(exact) == pytest.approx(wanted, abs=0.2)
        sampled, error = tilted_tail(test, tilt_to(test, total), total, 8_000)
        assert error < 0.05 * sampled  # a saddlepoint would be off by 30% and more
        assert abs(exact - sampled) < 4.5 * error


def test_the_normal_law_would_be_many_times_too_small() -> None:
    """So the check above can fail: with 20 contexts the normal tail at 1e-6 is far from the exact one."""
    test = made_test("gumbel", made_tuples(20))
    total = total_at(test, -6.0)
    normal = float(ndtr(-test.z(total)))
    sampled, _ = tilted_tail(test, tilt_to(test, total), total, 8_000)
    assert sampled > 5 * normal


def test_totals_of_several_keys_have_the_tail_of_their_sum() -> None:
    test = made_test("gumbel", made_tuples(20))
    sums = test.totals(list(fresh_keys("several", 6_000))).reshape(3, -1).sum(axis=0)
    p = 10 ** test.log10_pvalues(sums, keys=3)
    for level in (0.5, 0.1, 0.01):
        assert abs(np.sum(p <= level) - 2000 * level) <= 4.5 * math.sqrt(2000 * level)


# --- e-values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sided", ["upper", "two-sided"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_evalues_are_their_formula(scheme: str, sided: Any) -> None:
    """Against the log moment generating function of single words, from another module."""
    test = made_test(scheme, made_tuples(15), pool=2)
    total = round(test.moments[0] + 3 * test.moments[1])
    thetas = EFFECTS / (test.score.sd * STEPS)
    if sided == "two-sided":
        thetas = np.concatenate([thetas, -thetas])
    growths = [
        theta * total - sum(count * cgf(test.score.law, theta * weight) for weight, count in zip(*test.multiset))  # noqa: B905
        for theta in thetas.tolist()
    ]
    np.testing.assert_allclose(test.log_growths(total, sided), growths, atol=1e-6)
    assert test.log10_evalue(total, sided) == pytest.approx(math.log10(np.mean(np.exp(growths))), abs=1e-6)


@pytest.mark.parametrize("sided", ["upper", "two-sided"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_evalues_average_one_and_are_seldom_large(scheme: str, sided: Any) -> None:
    """The mean rests on rare keys where much is summed, so it is looked at where little is."""
    few, more = made_test(scheme, made_tuples(2)), made_test(scheme, made_tuples(60))
    few_keys, keys = list(fresh_keys(f"few{scheme}", 2_000)), list(fresh_keys(f"e{scheme}", 500))
    e = 10 ** np.array([few.log10_evalue(total, sided) for total in few.totals(few_keys).tolist()])
    assert abs(e.mean() - 1) < 5 * e.std() / math.sqrt(len(e))
    e = 10 ** np.array([more.log10_evalue(total, sided) for total in more.totals(keys).tolist()])
    for alpha in (0.1, 0.01):
        assert np.sum(e >= 1 / alpha) <= len(e) * alpha + 4 * math.sqrt(len(e) * alpha)


def test_evalues_of_steps_multiply_under_every_tilt() -> None:
    tuples = made_tuples(30)
    early = np.arange(30) < 11
    parts = [made_test("gumbel", tuples.of_contexts(chosen)) for chosen in (early, ~early)]
    whole = made_test("gumbel", tuples)
    growths = sum(part.log_growths(int(part.totals([KEY])[0])) for part in parts)
    np.testing.assert_allclose(whole.log_growths(int(whole.totals([KEY])[0])), growths, atol=1e-9)


def test_a_two_sided_evalue_sees_a_mark_that_was_subtracted() -> None:
    test = made_test("gumbel", made_tuples(400))
    total = round(test.moments[0] - 9 * test.moments[1])
    assert test.log10_evalue(total) < 0.1
    assert test.log10_evalue(total, "two-sided") > 6
    assert test.log10_pvalues_lower([total])[0] < -9


def test_lower_and_upper_tails_of_a_skewed_law_differ() -> None:
    score = TraceScore.of(GreenList(gamma=0.1))
    test = WeightedTest(score, made_tuples(8), 1)
    assert not isinstance(score.law, Lattice)
    assert theta_with_effect(score.law, 0.5) > 0
    totals = np.unique(test.totals(list(fresh_keys("skew", 50))))
    for total in totals.tolist():
        upper, lower = 10 ** test.log10_pvalues([total])[0], 10 ** test.log10_pvalues_lower([total])[0]
        assert upper + lower >= 1 - 1e-12  # the total itself is in both
        below = 10 ** test.log10_pvalues([total + 1])[0]
        assert lower == pytest.approx(1 - below, abs=1e-9)


# --- whose contexts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 4])
def test_the_selector_splits_contexts_in_the_specs_share_as_the_server_does(width: int) -> None:
    fields: dict[str, Any] = {"vocabulary_size": 5000, "tokenizer": "t", "key_fingerprint": "k", "context_width": width}
    tuples = made_tuples(3_000, width=width, candidates=1)
    spec = WatermarkSpec(global_share=0.3, **fields)
    mine = owned_contexts(spec, KEY, tuples.contexts)[True]
    assert abs(mine.mean() - 0.3) < 5 * math.sqrt(0.21 / 3_000)
    for row in range(0, 3_000, 300):
        assert mine[row] == (prf_u32(KEY, tuples.contexts[row].tolist(), 0) < round(0.3 * 2**32))
    assert owned_contexts(WatermarkSpec(global_share=1.0, **fields), KEY, tuples.contexts)[True].all()
    assert not owned_contexts(WatermarkSpec(global_share=0.0, **fields), KEY, tuples.contexts)[True].any()
