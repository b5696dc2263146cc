"""The marked share of training data: intervals that hold it, and silence where nothing identifies it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from detect.records.scan import Interval
from detect.records.trace import DosePoint
from detect.student.verdict.share import effect_of, ends, estimated, levels_of, not_identified

SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)
CURVES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "saturating": lambda share: 1 - math.exp(-20 * share),
    "flat top": lambda share: min(1.0, share / 0.08),
    "step": lambda share: float(share > 0.07),
}
SPREADS: dict[str, Callable[[float], float]] = {
    "small": lambda share: 0.02,
    "large": lambda share: 0.2,
    "growing": lambda share: 0.01 + share,
    "falling": lambda share: 0.01 + 0.3 * (0.4 - share),
}


def doses(effects: dict[float, list[float]]) -> list[DosePoint]:
    """Students with these effects by share."""
    return [
        DosePoint(name=f"s{share}-{i}", share=share, effect=effect, standard_error=0.03)
        for share, given in effects.items()
        for i, effect in enumerate(given)
    ]


def around(share: float, spread: float, count: int) -> list[float]:
    """Effects of students whose mean is ten times the share, evenly spread."""
    return [10 * share + spread * offset for offset in np.linspace(-1, 1, count).tolist()]


def steady(spread: float = 0.1, count: int = 4) -> list[DosePoint]:
    return doses({share: around(share, spread, count) for share in SHARES})


def interval_at(effect: float, students: list[DosePoint]) -> Interval:
    found = estimated(effect, 0.03, students).interval
    assert found is not None and found.is_sound
    return found


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("curve", CURVES)
def test_intervals_hold_the_share_where_curves_saturate_and_students_differ(curve: str, spread: str) -> None:
    """Every suspect, on a calibrated share or between two, and both ends on their own (each at most 2.5% wrong)."""
    rng, runs, replicates = np.random.default_rng(7), 600, 3
    true = np.array([*SHARES[1:], *((a + b) / 2 for a, b in itertools.pairwise(SHARES))])
    too_high, too_low = np.zeros(len(true)), np.zeros(len(true))

    def drawn(shares: np.ndarray) -> list[float]:
        return [CURVES[curve](s) + SPREADS[spread](s) * rng.standard_normal() for s in shares.tolist()]

    for _ in range(runs):
        levels = levels_of(doses({s: drawn(np.full(replicates, s)) for s in SHARES}))
        for i, effect in enumerate(drawn(true)):
            low, high = ends(effect, levels)
            too_high[i] += low > true[i]
            too_low[i] += high is not None and high < true[i]
    # A chance of 2.5% gives at most 27 of 600 except once in 1,000 (Binomial).
    assert max(too_high.max(), too_low.max()) <= 27


def test_steep_curves_of_like_students_give_narrow_intervals() -> None:
    found = interval_at(10 * 0.15, steady(0.1))
    assert (found.low, found.high) == (0.1, 0.2) and found.confidence == 0.95
    assert found.estimate == pytest.approx(0.15)
    on = interval_at(10 * 0.1, steady(0.05))
    assert (on.low, on.high) == (0.05, 0.2) and on.estimate == pytest.approx(0.1)


def test_students_that_differ_more_or_are_fewer_widen_it() -> None:
    narrow, wide = interval_at(1.5, steady(0.1)), interval_at(1.5, steady(0.5))
    assert wide.low < narrow.low and narrow.high is not None
    assert wide.high is None or wide.high > narrow.high
    two = estimated(1.5, 0.03, steady(0.1, count=2))
    assert two.interval is None or two.interval.low < narrow.low


def test_a_limit_is_that_of_students_t_for_one_more_student() -> None:
    """Two shares with three students: the limit of the lower one is mean + 4.303 s sqrt(1 + 1/3)."""
    students = doses({0.0: [-1.0, 0.0, 1.0], 0.5: [99.5, 100.0, 100.5]})
    reach = 4.302652729911275 * math.sqrt(4 / 3)
    assert ends(reach * 1.0001, levels_of(students)) == (0.0, 0.5)
    half = doses({0.1: [-1.0, 0.0, 1.0], 0.5: [99.5, 100.0, 100.5]})
    assert ends(reach * 1.0001, levels_of(half)) == (0.1, 0.5)
    assert ends(reach * 0.9999, levels_of(half)) == (0.0, 0.5)
    # The upper end at 0.5 rests on its own students, that at 0.1 on the larger spread of both.
    assert ends(100 - reach / 2 * 1.0001, levels_of(half)) == (0.1, 0.5)
    assert ends(100 - reach / 2 * 0.9999, levels_of(half)) == (0.1, None)


def test_the_spread_of_a_neighbour_counts_where_it_is_larger() -> None:
    """A suspect between two shares may stray as far as the students of either."""
    students = doses({0.1: [9.9, 10.0, 10.1], 0.5: [24.0, 30.0, 36.0]})
    assert ends(-5.0, levels_of(students)) == (0.0, 0.5)
    alone = doses({0.1: [9.9, 10.0, 10.1], 0.5: [29.9, 30.0, 30.1]})
    assert ends(-5.0, levels_of(alone)) == (0.0, 0.1)


def test_the_order_of_the_students_does_not_matter() -> None:
    assert estimated(1.2, 0.1, steady(0.3)) == estimated(1.2, 0.1, steady(0.3)[::-1])


def test_ends_outside_the_calibrated_range_stay_open() -> None:
    above = interval_at(9.0, steady())
    assert (above.low, above.estimate, above.high) == (0.4, None, None)
    below = interval_at(-3.0, steady()[4:])
    assert (below.low, below.estimate, below.high) == (0.0, None, 0.05)


def test_a_saturated_curve_opens_the_interval_and_gives_no_estimate() -> None:
    flat = {share: around(0.1, 0.1, 4) for share in SHARES[2:]}
    found = interval_at(1.0, doses({0.0: around(0, 0.1, 4), 0.05: around(0.05, 0.05, 4), **flat}))
    assert (found.low, found.estimate, found.high) == (0.05, None, None)
    at_once = estimated(1.0, 0.1, doses({0.0: around(0, 0.1, 4), **flat}))
    assert at_once.interval is None and "their effect saturates" in at_once.reason


def test_every_student_is_on_record_and_the_method_is_named() -> None:
    alone = DosePoint(name="alone", share=0.3, effect=2.9, standard_error=0.03)
    found = estimated(1.5, 0.03, [*steady(), alone])
    assert alone in found.doses and len(found.doses) == 21
    assert found.interval == interval_at(1.5, steady())
    assert "1 more left out as the only ones of their share" in found.reason
    assert "Student's t" in found.interval.method and "is open" in found.interval.method


def test_without_several_students_of_two_shares_it_says_what_to_train() -> None:
    assert not_identified("why").interval is None
    single = doses({0.0: [0.0], 0.1: [1.0], 0.4: [4.0, 4.1]})
    found = estimated(1.0, 0.1, single)
    assert found.interval is None and len(found.doses) == 4
    assert "two shares or more with several students each" in found.reason
    assert "train more students of the shares 0, 0.1 " in found.reason
    same = estimated(1.0, 0.1, doses({0.1: [1.0, 1.1, 1.2]}))
    assert same.interval is None and "train some of another share" in same.reason


def test_students_with_the_same_effect_are_no_replicates() -> None:
    found = estimated(1.0, 0.1, doses({0.0: [0.0, 0.0], 0.1: [1.0, 1.0], 0.4: [4.0, 4.1]}))
    assert found.interval is None and "the shares 0, 0.1 " in found.reason


def test_students_that_learn_no_more_from_more_identify_nothing() -> None:
    falling = doses({0.0: [2.0, 2.1], 0.2: [1.5, 1.6], 0.4: [1.0, 1.1]})
    found = estimated(1.7, 0.1, falling)
    assert found.interval is None and "does not grow" in found.reason
    assert found.effect == 1.7 and len(found.doses) == 6


def test_where_no_share_can_be_excluded_it_asks_for_more_students() -> None:
    found = estimated(1.0, 0.1, doses({0.0: [0.0, 1.0], 0.2: [0.8, 2.2]}))
    assert found.interval is None and "train more students of each share" in found.reason
    assert "(2 of 0, 2 of 0.2 so far)" in found.reason


def test_a_share_out_of_order_is_pooled_with_its_neighbour() -> None:
    points = {0.0: 0.0, 0.1: 1.2, 0.2: 0.8, 0.4: 3.0}
    found = interval_at(2.0, doses({s: [e - 0.01, e, e + 0.01] for s, e in points.items()}))
    assert found.estimate == pytest.approx(0.2 + 0.2 * (2.0 - 1.0) / (3.0 - 1.0))


def test_the_effect_is_the_mean_excess_with_its_standard_error() -> None:
    rng = np.random.default_rng(2)
    parts = rng.normal(5, 2, 10_000)
    effect, error = effect_of(parts, 30_000.0)
    assert effect == pytest.approx(2, abs=0.1)
    assert error == pytest.approx(0.02, rel=0.05)
    assert effect_of([1.0], 0.0) == (0.0, math.inf)
