"""The share of pairs that were used: limits hold as often as they say, whenever one stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.twins.share import lower_chance, share_of_pairs
from watermark.errors import DyetraceError

COUNTS = st.integers(0, 400)


@given(COUNTS, COUNTS, st.none() | st.tuples(COUNTS, COUNTS), st.sampled_from([0.0, 0.05]))
def test_an_interval_is_sound_or_there_is_none(
    wins: int, losses: int, calibration: tuple[int, int] | None, bias: float
) -> None:
    interval, reason = share_of_pairs(wins, losses, calibration=calibration, bias=bias)
    assert reason.endswith(".")
    assert (interval is None) == (wins + losses == 0)
    if interval is not None:
        assert interval.is_sound
        assert calibration is not None or interval.high is None


@given(st.integers(1, 300), st.integers(1, 300))
def test_more_wins_and_less_confidence_raise_the_limit(wins: int, losses: int) -> None:
    limit = lower_chance(wins, losses, 0.05)
    assert lower_chance(wins + 1, losses, 0.05) >= limit >= lower_chance(wins, losses + 1, 0.05)
    assert lower_chance(wins, losses, 0.2) >= limit >= lower_chance(wins, losses, 0.001)
    assert limit < wins / (wins + losses)


def test_the_lower_limit_holds_at_all_times_at_once() -> None:
    # Every fifth pair was used, and those win always: chances of wins that are all but equal.
    rng = np.random.default_rng(1)
    used = np.arange(200) % 5 == 0
    wrong = 0
    for _ in range(400):
        wins = np.cumsum(used | (rng.random(200) < 0.5))
        counts = np.arange(1, 201)
        true = np.cumsum(used) / counts
        times = [9, 29, 59, 99, 149, 199]
        lows = [2 * lower_chance(int(wins[t]), int(counts[t] - wins[t]), 0.1) - 1 for t in times]
        wrong += any(low > true[t] for low, t in zip(lows, times, strict=True))
    assert wrong / 400 <= 0.1


def test_all_limits_together_hold_with_a_calibrated_student() -> None:
    rng = np.random.default_rng(2)
    share, chance, wrong = 0.3, 0.85, 0
    for _ in range(300):
        wins = int(np.sum(rng.random(500) < 0.5 + share * (chance - 0.5)))
        taught = int(np.sum(rng.random(200) < chance))
        interval, _ = share_of_pairs(wins, 500 - wins, calibration=(taught, 200 - taught), confidence=0.9)
        assert interval is not None
        assert interval.high is not None
        wrong += not interval.low <= share <= interval.high
    assert wrong / 300 <= 0.1


def test_what_all_wins_and_chance_come_to() -> None:
    all_won, _ = share_of_pairs(300, 0)
    chance, reason = share_of_pairs(150, 150)
    assert all_won is not None
    assert all_won.low > 0.96
    assert chance is not None
    assert (chance.low, chance.high) == (0, None)
    assert "lower limit" in reason


def test_a_bias_takes_from_the_lower_limit_and_adds_to_the_upper() -> None:
    fair, _ = share_of_pairs(240, 60, calibration=(290, 10))
    biased, _ = share_of_pairs(240, 60, calibration=(290, 10), bias=0.05)
    assert fair is not None
    assert biased is not None
    assert biased.low < fair.low
    assert (biased.high or 0) >= (fair.high or 0)


def test_a_student_that_learnt_nothing_calibrates_nothing() -> None:
    interval, reason = share_of_pairs(60, 40, calibration=(50, 50))
    assert interval is not None
    assert interval.high is None
    assert "not identified" in reason


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"wins": -1}, "at least 0"), ({"bias": 0.5}, "bias"), ({"confidence": 1.0}, "confidence")],
)
def test_what_is_out_of_range_is_refused(arguments: dict[str, float], problem: str) -> None:
    with pytest.raises(DyetraceError, match=problem):
        share_of_pairs(**{"wins": 3, "losses": 4, **arguments})  # type: ignore[arg-type]
