"""The exact tail of a sum of independent events of different chances (Poisson-binomial), for counts of hits.

In served answers later chances depend on earlier hits, so there the tail is a guide; the bets allow for that.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from watermark.backends.numba_backend import jit

F64 = npt.NDArray[np.float64]

_NOTHING = 1e-40  # tilted probability beside which the tail's, at least 1e-8, is everything


def log10_tail(chances: F64, hits: int) -> float:
    """Log10 of the chance of ``hits`` or more of independent events.

    Exponential tilting puts the count in the bulk, P(S >= t) = e^(K(theta) - theta t) E_theta[e^(-theta (S - t));
    S >= t] (Bahadur and Ranga Rao 1960), where the law is a convolution of positive numbers, event after event: nothing
    cancels, however small the chance is. What underflows on the way is added back, so that it is never too small but
    for rounding, which is allowed for.

    Parameters
    ----------
    chances
        Of the events, in [0, 1], shape (n,).
    hits
        How many came true, or more.

    Returns
    -------
    float
        At most 0; ``-inf`` where there can't be so many.

    Examples
    --------
    >>> round(log10_tail(np.array([0.5, 0.5, 0.25]), 3), 6) == round(math.log10(1 / 16), 6)
    True
    """
    sure = int(np.sum(chances >= 1))
    p = np.asarray(chances[(chances > 0) & (chances < 1)], dtype=np.float64)
    t = hits - sure
    if t <= 0:
        return 0.0
    if t > len(p):
        return -math.inf
    if t == len(p):
        return float(np.log10(p).sum())
    theta = _tilt(p, t)
    cumulant = float(np.logaddexp(np.log1p(-p), np.log(p) + theta).sum())
    log_odds = np.log(p) - np.log1p(-p)
    rest = _rest(_tilted(log_odds, theta), _tilted(-log_odds, -theta), t, theta)
    rounding = 1e-15 * (len(p) + abs(cumulant) + theta * t)
    return min(0.0, (cumulant - theta * t + math.log(rest) + rounding) / math.log(10))


def _tilted(log_odds: F64, theta: float) -> F64:
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds + theta, -700, 700))))


def _tilt(p: F64, t: int) -> float:
    """The theta at which the mean is t; 0 where it is that large anyway. Any would do; this one loses nothing."""
    if p.sum() >= t:
        return 0.0
    log_odds = np.log(p) - np.log1p(-p)
    low, high = 0.0, 1.0
    while _tilted(log_odds, high).sum() < t:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _tilted(log_odds, middle).sum() < t else (low, middle)
    return high


@jit()
def _rest(p: F64, complement: F64, t: int, theta: float) -> float:
    """E exp(-theta (S - t)) on S >= t for the sum S of events with chances p, and what was dropped."""
    n = len(p)
    law = np.zeros(n + 1)
    law[0] = 1.0
    first, last, dropped = 0, 0, 0.0  # the counts that still have weight
    for event in range(n):
        one, none = p[event], complement[event]
        last += 1
        law[last] = law[last - 1] * one
        for count in range(last - 1, first, -1):
            law[count] = law[count] * none + law[count - 1] * one
        law[first] *= none
        while law[first] < _NOTHING and first < last:
            dropped += law[first]
            law[first] = 0.0
            first += 1
        while law[last] < _NOTHING and first < last:
            dropped += law[last]
            law[last] = 0.0
            last -= 1
    total = dropped
    for count in range(max(first, t), last + 1):
        total += law[count] * math.exp(-theta * (count - t))
    return total
