"""The marked share of training data: intervals that cover it, and silence where nothing identifies it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detect.student.record import DosePoint
from detect.student.share import effect_of, estimated, not_identified

SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)


def response(share: float) -> float:
    """What is remembered saturates."""
    return 8 * share / (share + 0.3)


def doses(rng: np.random.Generator | None = None, error: float = 0.1) -> list[DosePoint]:
    return [
        DosePoint(
            name=f"s{share}",
            share=share,
            effect=response(share) + (0.0 if rng is None else error * rng.standard_normal()),
            standard_error=error,
        )
        for share in SHARES
    ]


@pytest.mark.parametrize("share", [0.05, 0.12, 0.3])
def test_intervals_cover_the_true_share_about_as_often_as_they_say(share: float) -> None:
    rng, covered, trials = np.random.default_rng(0), 0, 2_000
    # Straight lines between students are the model: a curved truth would add a bias of its own.
    true = float(np.interp(share, SHARES, [response(s) for s in SHARES]))
    for _ in range(trials):
        interval = estimated(true + 0.1 * rng.standard_normal(), 0.1, doses(rng)).interval
        assert interval is not None
        covered += interval.low <= share and (interval.high is None or share <= interval.high)
    assert 0.93 <= covered / trials <= 0.995


def test_the_estimate_is_the_share_with_that_effect() -> None:
    found = estimated(response(0.1), 0.05, doses(error=0.05)).interval
    assert found is not None and found.high is not None and found.estimate is not None
    assert found.estimate == pytest.approx(0.1)
    assert found.low < 0.1 < found.high
    assert found.confidence == 0.95
    wide = estimated(response(0.1), 0.3, doses(error=0.05)).interval
    assert wide is not None and wide.high is not None
    assert wide.low < found.low and wide.high > found.high


def test_the_order_of_the_students_does_not_matter() -> None:
    some = doses(np.random.default_rng(1), 0.5)
    assert estimated(1.0, 0.1, some) == estimated(1.0, 0.1, some[::-1])


def test_ends_outside_the_calibrated_range_stay_open() -> None:
    above = estimated(response(0.4) + 3, 0.1, doses()).interval
    assert above is not None
    assert (above.low, above.estimate, above.high) == (0.4, None, None)
    near = estimated(response(0.4) - 0.05, 0.1, doses()).interval
    assert near is not None and near.estimate is not None
    assert near.low < near.estimate <= 0.4 and near.high is None
    below = estimated(-3.0, 0.1, doses()[1:]).interval
    assert below is not None and below.high is not None
    assert below.low == 0 and below.high <= SHARES[1]


def test_without_calibration_the_share_is_not_identified() -> None:
    assert not_identified("why").interval is None
    one = [DosePoint(name="a", share=0.1, effect=1.0, standard_error=0.1)] * 3
    found = estimated(1.0, 0.1, one)
    assert found.interval is None and "two shares or more" in found.reason


def test_students_that_learn_no_more_from_more_identify_nothing() -> None:
    falling = [
        DosePoint(name=f"{s}", share=s, effect=e, standard_error=0.1) for s, e in ((0.0, 2.0), (0.2, 1.5), (0.4, 1.0))
    ]
    found = estimated(1.7, 0.1, falling)
    assert found.interval is None and "does not grow" in found.reason
    assert found.effect == 1.7 and len(found.doses) == 3


def test_a_student_out_of_order_is_pooled_with_its_neighbour() -> None:
    points = [(0.0, 0.0), (0.1, 1.2), (0.2, 0.8), (0.4, 3.0)]
    made = [DosePoint(name=f"{s}", share=s, effect=e, standard_error=0.1) for s, e in points]
    found = estimated(2.0, 0.01, made).interval
    assert found is not None
    assert found.estimate == pytest.approx(0.2 + 0.2 * (2.0 - 1.0) / (3.0 - 1.0))


def test_the_effect_is_the_mean_excess_with_its_standard_error() -> None:
    rng = np.random.default_rng(2)
    parts = rng.normal(5, 2, 10_000)
    effect, error = effect_of(parts, 30_000.0)
    assert effect == pytest.approx(2, abs=0.1)
    assert error == pytest.approx(0.02, rel=0.05)
    assert effect_of([1.0], 0.0) == (0.0, math.inf)
