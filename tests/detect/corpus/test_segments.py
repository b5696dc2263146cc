"""Marked stretches: family-wise error as stated, the exact null of the best segment, and finding them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.corpus import segments
from detect.corpus.bins import StatisticBins
from detect.corpus.segments import EFFECTS, log10_segment_pvalues, marked_segments
from watermark.laws import Lattice, Law
from watermark.schemes.green_list import GreenList
from watermark.schemes.gumbel import Gumbel
from watermark.schemes.protocol import Scheme
from watermark.schemes.tournament import Tournament

SCHEMES: list[Scheme] = [Gumbel(), GreenList(), GreenList(gamma=0.5), Tournament()]
GREEN = GreenList()


def statistics(scheme: Scheme, seed: int, count: int) -> np.ndarray:
    return scheme.statistic(np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("tuples", [50, 1_000, 4_000])
def test_the_family_wise_error_is_as_stated(scheme: Scheme, tuples: int) -> None:
    documents = 2_000_000 // tuples
    values = statistics(scheme, tuples, documents * tuples)
    log10_ps = log10_segment_pvalues(scheme.law, scheme.unit, values, np.arange(documents + 1) * tuples)
    for alpha in (0.3, 0.05, 0.01):
        expected = documents * alpha
        rejected = np.count_nonzero(log10_ps <= math.log10(alpha))
        assert rejected <= expected + 4 * math.sqrt(expected)
        assert rejected >= expected / (5 if tuples == 50 else 4) - 4 * math.sqrt(expected)  # for 5 effects are paid


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_null_of_one_effect_is_nearly_exact(scheme: Scheme) -> None:
    """By itself each score's p-value is a bound on the chance, and a close one."""
    documents, tuples = 1_000, 2_000
    values = statistics(scheme, 9, documents * tuples)
    bins = StatisticBins.of_law(scheme.law, scheme.unit).of(values)
    offsets = np.arange(documents + 1) * tuples
    for score in segments._scores(scheme.law, scheme.unit):
        best = segments._best_scores(score.of_bin, bins, offsets)
        ps = np.exp(score.log_p(best, np.diff(offsets)))
        rejected = np.count_nonzero(ps <= 0.1)
        assert 45 <= rejected <= 100 + 4 * math.sqrt(90)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_chance_to_reach_a_height_is_that_of_linear_equations(scheme: Scheme) -> None:
    """The factorisation that serves all heights, against one system under the untilted law for some of them."""
    survival = 10.0 ** StatisticBins.of_law(scheme.law, scheme.unit).log10_survival
    pmf = survival - np.append(survival[1:], 0.0)
    for score in segments._scores(scheme.law, scheme.unit)[2:]:
        jumps: dict[Any, Any] = {}
        for step, chance in zip(score.of_bin.tolist(), pmf.tolist(), strict=True):
            jumps[step] = jumps.get(step, 0.0) + chance
        for height in (1, 7, 40):
            moves = np.eye(height)
            leaves, first = np.zeros(height), np.zeros(height)  # heights 0 .. height - 1; 0 is left once
            for step, chance in jumps.items():
                for y in range(height):
                    if y + step >= height:
                        leaves[y] += chance
                    elif y + step > 0:
                        moves[y, y + step] -= chance
                        first[y + step] += chance if y == 0 else 0.0
            reached = np.linalg.solve(moves, leaves)
            expected = leaves[0] + first @ reached
            scaled = float(score.log_reach[min(height, len(score.log_reach) - 1)])
            assert scaled - score.rate * height == pytest.approx(math.log(expected), abs=2e-3)


def log10_segment_pvalue(law: Law, unit: float, statistics: np.ndarray) -> float:
    """Of one document."""
    return float(log10_segment_pvalues(law, unit, statistics, np.array([0, len(statistics)]))[0])


def test_far_p_values_follow_the_exponential() -> None:
    """A document all green: log p falls in proportion to its length, beyond every float."""
    shorter, longer = (log10_segment_pvalue(GREEN.law, GREEN.unit, np.ones(n, np.int64)) for n in (10_000, 20_000))
    assert longer < 1.9 * shorter < -5_000
    assert longer >= 20_000 * math.log10(0.25)  # no segment is less likely than the whole


def ruzzo_tompa_by_definition(scores: list[int]) -> list[tuple[int, int]]:
    """Recursively: the best segment (the shortest leftmost of equals), then those to its left and to its right."""

    def best(low: int, high: int) -> list[tuple[int, int]]:
        found = (0, 0, 0, 0)
        for start in range(low, high):
            total = 0
            for end in range(start, high):
                total += scores[end]
                found = max(found, (total, -(end + 1 - start), -start, end + 1))
        total, _, start, end = found
        if total <= 0:
            return []
        return [*best(low, -start), (-start, end), *best(end, high)]

    return best(0, len(scores))


@settings(max_examples=200, deadline=None)
@given(scores=st.lists(st.integers(-4, 4), max_size=14))
def test_maximal_segments_are_those_of_the_definition(scores: list[int]) -> None:
    starts, ends, sums = segments._maximal_segments(np.array(scores, dtype=np.int64), np.arange(len(scores)))
    found = list(zip(starts.tolist(), ends.tolist(), strict=True))
    assert sums.tolist() == [sum(scores[a:b]) for a, b in found]
    expected = ruzzo_tompa_by_definition(scores)
    assert sorted(sums.tolist()) == sorted(sum(scores[a:b]) for a, b in expected)
    assert all(b <= c for (_, b), (c, _) in pairwise(found))
    if scores:
        best = segments._best_scores(np.array(scores), np.arange(len(scores)), np.array([0, len(scores)]))
        assert int(best[0]) == max(sums.tolist(), default=0)


@pytest.mark.parametrize(("length", "stretch", "effect"), [(1_000, 200, 0.2), (5_000, 200, 0.2), (5_000, 60, 0.45)])
def test_a_marked_stretch_is_found_where_it_is(length: int, stretch: int, effect: float) -> None:
    rng, overlaps = np.random.default_rng(0), []
    for _ in range(100):
        start = int(rng.integers(0, length - stretch))
        truth = np.zeros(length, dtype=np.bool_)
        truth[start : start + stretch] = True
        greens = (rng.random(length) < 0.25 + effect * truth).astype(np.int64)
        picked = np.zeros(length, dtype=np.bool_)
        for a, b, log10_p in marked_segments(GREEN.law, GREEN.unit, greens, 0.01):
            assert log10_p <= -2
            picked[a:b] = True
        overlaps.append((picked & truth).sum() / (picked | truth).sum())
    assert np.mean(np.array(overlaps) > 0) >= 0.95
    assert np.mean(overlaps) >= 0.75


def test_two_stretches_are_told_apart_and_a_marked_document_is_one() -> None:
    rng = np.random.default_rng(1)
    share = np.full(3_000, 0.25)
    share[500:800] = share[2_000:2_300] = 0.6
    found = marked_segments(GREEN.law, GREEN.unit, (rng.random(3_000) < share).astype(np.int64), 0.01)
    assert len(found) == 2
    assert abs(found[0][0] - 500) < 60 and abs(found[1][1] - 2_300) < 60
    [(start, end, log10_p)] = marked_segments(GREEN.law, GREEN.unit, (rng.random(3_000) < 0.5).astype(np.int64), 0.01)
    assert end - start > 2_700
    assert log10_p < -100


def test_looks_are_paid_for() -> None:
    values = np.append(statistics(GREEN, 0, 300), np.ones(30, np.int64))
    [once] = marked_segments(GREEN.law, GREEN.unit, values, 0.01)
    [of_four] = marked_segments(GREEN.law, GREEN.unit, values, 0.01, looks=4)
    assert of_four[:2] == once[:2]
    assert of_four[2] == pytest.approx(once[2] + math.log10(4))
    assert log10_segment_pvalue(GREEN.law, GREEN.unit, values) == pytest.approx(once[2])
    assert len(EFFECTS) == 5


def test_documents_one_after_the_other_are_separate() -> None:
    values = statistics(Gumbel(), 5, 900)
    offsets = np.array([0, 0, 300, 301, 900])
    together = log10_segment_pvalues(Gumbel().law, Gumbel().unit, values, offsets)
    alone = [log10_segment_pvalue(Gumbel().law, Gumbel().unit, values[a:b]) for a, b in pairwise(offsets)]
    np.testing.assert_array_equal(together, alone)
    assert together[0] == 0.0


def test_edges() -> None:
    assert marked_segments(GREEN.law, GREEN.unit, [], 0.05) == []
    assert marked_segments(GREEN.law, GREEN.unit, [0, 0, 0], 0.05) == []
    table = Lattice((-3, 0, 4, 5), (0.125, 0.5, 0.25, 0.125))
    [(start, end, _)] = marked_segments(table, 1.0, [-3, 0, -3, *[5] * 20, 0, -3], 0.05)
    assert (start, end) == (3, 23)
    with pytest.raises(ValueError, match="alpha"):
        marked_segments(GREEN.law, GREEN.unit, [1], 1.0)
    with pytest.raises(ValueError, match="looks"):
        marked_segments(GREEN.law, GREEN.unit, [1], 0.1, looks=0)
