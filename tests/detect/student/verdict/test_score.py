"""The law of a trace's score is that of the integers that are summed, for every scheme."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.special import chdtrc

from detect.laws.evalues import value_table
from detect.student.verdict.score import MOST_NATS, STEPS_PER_NAT, TraceScore
from watermark.laws import Exponential, Lattice
from watermark.registry import make_scheme
from watermark.schemes.gumbel import Gumbel

SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "gumbel": ("gumbel", {}),
    "green list": ("green_list", {}),
    "wide green list": ("green_list", {"gamma": 0.5}),
    "odd green list": ("green_list", {"gamma": 0.123456789}),
    "tournament": ("tournament", {"depth": 30}),
    "shallow tournament": ("tournament", {"depth": 3}),
}


@pytest.fixture(scope="module")
def words() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 2**32, 2_000_000, dtype=np.uint32)


@pytest.mark.parametrize("label", SCHEMES)
def test_scores_of_random_words_follow_the_law(label: str, words: np.ndarray[Any, Any]) -> None:
    score = TraceScore.of(make_scheme(*SCHEMES[label]))
    found = score(words)
    assert found.dtype == np.int64
    values, probabilities = value_table(score.law)
    order = np.argsort(values)
    values, probabilities = values[order].astype(np.int64), probabilities[order]
    possible = values[probabilities > 0]
    assert np.isin(np.unique(found), possible).all()
    counts = np.bincount(np.searchsorted(values, found), minlength=len(values))
    # Chi-squared needs some 20 expected words in a cell: rarer scores are put together.
    cells = np.cumsum(probabilities) // (20 / len(words))
    _, cell = np.unique(cells, return_inverse=True)
    expected, seen = np.bincount(cell, probabilities * len(words)), np.bincount(cell, counts)
    chi2 = float((((seen - expected) ** 2) / expected).sum())
    assert chdtrc(len(expected) - 1, chi2) > 1e-5
    error = score.sd / np.sqrt(len(words))
    assert abs(found.mean() - score.mean) < 5 * error
    assert found.std() == pytest.approx(score.sd, rel=0.01)


def test_the_law_of_gumbel_scores_is_the_count_of_all_words_at_every_step() -> None:
    """The score grows with the word: the words on both sides of each step say how many of the 2^32 reach it."""
    score = TraceScore.of(Gumbel())
    assert isinstance(score.law, Lattice)
    assert score.law.values == tuple(range(STEPS_PER_NAT * MOST_NATS + 1))
    reach = 0
    for step, probability in reversed(list(zip(score.law.values, score.law.probabilities, strict=True))):
        count = probability * 2**32
        assert count == int(count) > 0
        reach += int(count)
        first = 2**32 - reach
        assert score(np.array([first], dtype=np.uint32))[0] == step
        if first:
            assert score(np.array([first - 1], dtype=np.uint32))[0] == step - 1
    assert reach == 2**32


def test_gumbel_scores_are_eighths_of_nats_rounded_down(words: np.ndarray[Any, Any]) -> None:
    nats = -np.log1p(-(words[:1000] / 2**32))
    score = TraceScore.of(Gumbel())
    assert np.all(np.abs(score(words[:1000]) / STEPS_PER_NAT - nats + 0.5 / STEPS_PER_NAT) <= 0.51 / STEPS_PER_NAT)
    assert score(np.array([2**32 - 1], dtype=np.uint32))[0] == STEPS_PER_NAT * MOST_NATS


@pytest.mark.parametrize("label", ["green list", "odd green list", "tournament"])
def test_scores_that_are_counts_already_stay_as_they_are(label: str, words: np.ndarray[Any, Any]) -> None:
    scheme = make_scheme(*SCHEMES[label])
    score = TraceScore.of(scheme)
    assert score.law == scheme.law
    np.testing.assert_array_equal(score(words[:1000]), scheme.statistic(words[:1000]))


class Falling(Gumbel):
    """A scheme that somebody wrote the other way round."""

    name: ClassVar[str] = "falling"

    def statistic(self, words: Any) -> Any:
        return super().statistic(np.uint32(2**32 - 1) - words)


def test_a_statistic_that_falls_with_the_word_is_refused_by_name() -> None:
    assert isinstance(Falling().law, Exponential)
    with pytest.raises(ValueError, match="'falling' does not"):
        TraceScore.of(Falling())
