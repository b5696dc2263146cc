"""How many of the pairs were used, as far as wins over pairs can tell.

What is identified: a pair that was not used wins with chance 1/2, one that was used with chance 1 at most. So the mean
chance of a win is at most 1/2 + share / 2, and wins give a lower limit of the share with no further assumption.
What isn't: the same wins come of few pairs that were learnt well or of many that were learnt faintly. An upper limit
needs to be told how often used pairs win, by a student that is known to have learnt from all of its pairs; and it holds
for a suspect that prefers what it learnt from at least as often as that student.

Limits of the mean chance hold whenever one stops, as an endpoint is asked only until the evidence is enough: a fixed
number's Clopper-Pearson limits wouldn't.
"""

from __future__ import annotations

import math

import numpy as np

from detect.records.scan import Interval
from watermark.errors import DyetraceError

DEFAULT_CONFIDENCE = 0.95
METHOD = "betting confidence sequence of the chance of a win"

_GRID = (np.arange(200) + 0.5) / 200  # alternatives, as shares of the way from the null chance to 1
_HALVINGS = 50


def share_of_pairs(
    wins: int,
    losses: int,
    *,
    calibration: tuple[int, int] | None = None,
    bias: float = 0.0,
    confidence: float = DEFAULT_CONFIDENCE,
) -> tuple[Interval | None, str]:
    """The share of the pairs with a difference that were used, and what is and isn't identified in words.

    With 1/2 + b the largest and 1/2 - b the least chance of an unused pair's win, and used ones winning with chance w:
    the mean chance q of a win is between (1 - share) (1/2 - b) + share w and (1 - share) (1/2 + b) + share.

    Parameters
    ----------
    wins, losses
        Pairs whose difference spoke for the served twin, and against; ties belong to neither number.
    calibration
        Wins and losses by the same measure of a student that learnt from every one of its pairs, in a number that was
        fixed beforehand or not; None where there is none.
    bias
        As for `detect.twins.bets.bets`.
    confidence
        Of all limits together.

    Raises
    ------
    DyetraceError
        A number is negative, or the bias or the confidence lies out of range.

    Examples
    --------
    >>> interval, reason = share_of_pairs(241, 59)
    >>> round(interval.low, 2), interval.high
    (0.46, None)
    """
    if min(wins, losses, *(calibration or ())) < 0:
        raise DyetraceError("wins and losses must be at least 0")
    if not 0 <= bias < 0.5:
        raise DyetraceError(f"the bias that is allowed for must lie in [0, 1/2) (got {bias})")
    if not 0 < confidence < 1:
        raise DyetraceError(f"the confidence must lie in (0, 1) (got {confidence})")
    if wins + losses == 0:
        return None, "No pair made a difference to the suspect, so nothing is known of the share."
    miss = 1 - confidence
    if calibration is None:
        low = _share(lower_chance(wins, losses, miss), 0.5 + bias, 1.0)
        reason = (
            "Wins over pairs give a lower limit alone: few pairs that were learnt well win as often as many that were "
            "learnt faintly."
        )
        return Interval(low=low, estimate=None, high=None, confidence=confidence, method=METHOD), reason
    low = _share(lower_chance(wins, losses, miss / 2), 0.5 + bias, 1.0)
    used = lower_chance(*calibration, miss / 4)
    most = 1 - lower_chance(losses, wins, miss / 4)
    if used <= 0.5 + bias:
        reason = "The student that was to tell how often used pairs win doesn't: an upper limit is not identified."
        return Interval(low=low, estimate=None, high=None, confidence=confidence, method=METHOD), reason
    high = max(low, _share(most, 0.5 - bias, used))
    estimate = _share(wins / (wins + losses), 0.5, calibration[0] / sum(calibration))
    reason = (
        "The upper limit and the estimate hold for a suspect that prefers what it learnt from at least as often as the "
        "student that they are calibrated on."
    )
    middle = min(max(estimate, low), high)
    return Interval(low=low, estimate=middle, high=high, confidence=confidence, method=METHOD), reason


def lower_chance(wins: int, losses: int, miss: float) -> float:
    """Lower limit of the pairs' mean chance of a win given what came before, right at all times but for ``miss``.

    For a chance p and an alternative a > p, the product of a / p over wins and (1 - a) / (1 - p) over losses has mean
    prod (1 + c (q_i - p)) <= exp(c sum (q_i - p)), c > 0, for chances q_i of wins: at most 1 as long as their mean so
    far is at most p. It is a martingale over its mean, and so is a mixture over a: it reaches 1 / miss at any time with
    chance ``miss`` at most [1]_. The limit is the least p that this doesn't refute.

    References
    ----------
    .. [1] I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", J. R. Statist. Soc.
       B 86, 2024.
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        alternatives = p + (1 - p) * _GRID
        gains = wins * np.log(alternatives / p) + losses * np.log((1 - alternatives) / (1 - p))
        log_mean = float(np.logaddexp.reduce(gains)) - math.log(len(_GRID))
        low, high = (p, high) if log_mean >= -math.log(miss) else (low, p)
    return low


def _share(chance: float, unused: float, used: float) -> float:
    """Of a mixture of chances ``unused`` and ``used``, what share of the latter makes the mean ``chance``."""
    return min(max((chance - unused) / (used - unused), 0.0), 1.0) if used > unused else 1.0
