"""Exact tests of a fixed set of pairs: by their signs alone, and by the sum of their differences with fair signs.

Both are p-values where the coins had no part in **which** pairs there are and in their differences, as when all prompts
were fixed beforehand. A client that reacts to what it was served may ask more where a coin fell one way, and then the
number of pairs depends on coins. That is why a verdict rests on the bets (`detect.twins.bets`), which allow for it, and
why these stand beside it for information.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from detect.laws.tails import log10_sf, log10_sf_weighted_many
from detect.twins.experts import MOST_DIFFERENCE
from watermark.errors import DyetraceError
from watermark.laws import Bernoulli, WeightedBits

F64 = npt.NDArray[np.float64]

Sided = Literal["upper", "two-sided"]

_FAIR = Bernoulli(0.5)
_STEPS = 1 << 10  # of the lattice in a root-mean-square difference
_MOST_POINTS = 1 << 20  # of the lattice in all


def sign_test(wins: int, losses: int, sided: Sided = "upper") -> float:
    """Log10 of the chance that so many fair coins give at least ``wins`` heads; ties belong to neither number.

    Two-sided, of a difference between wins and losses at least as large as this one either way: twice the smaller
    tail, which is exact as fair coins are symmetric.

    Parameters
    ----------
    wins, losses
        Pairs that spoke for the served twin, and against.
    sided
        "upper" or "two-sided".

    Raises
    ------
    DyetraceError
        A number is negative.

    Examples
    --------
    >>> round(sign_test(3, 0), 6)
    -0.90309
    """
    if min(wins, losses) < 0:
        raise DyetraceError(f"wins and losses must be at least 0 (got {wins} and {losses})")
    if sided == "upper":
        return log10_sf(_FAIR, wins + losses, wins)
    return _twice(log10_sf(_FAIR, wins + losses, max(wins, losses)))


def sign_flip(differences: npt.ArrayLike, signs: npt.ArrayLike, sided: Sided = "upper") -> float:
    """Log10 of the chance that fair signs give a sum of signed differences at least this large.

    The differences are rounded to a lattice first, 1,024 steps to their root mean square. Rounding never asks the coin
    and keeps them odd, so that the test of the rounded sum is exact in itself: no bound on the rounding is needed. The
    tail is that of a sum of fair bits with whole weights (`detect.laws.tails`): no normal approximation.

    Parameters
    ----------
    differences
        (n,): first side less second; 0 says nothing.
    signs
        (n,): 1 where the first side was served, -1 where the second was.
    sided
        "upper" or "two-sided".

    Returns
    -------
    float
        0 where nothing differs.

    Raises
    ------
    DyetraceError
        The shapes differ, a difference isn't finite or a sign is neither 1 nor -1.

    Examples
    --------
    >>> round(sign_flip([1.0, 2.0, -3.0], [1, 1, -1]), 6)
    -0.90309
    """
    return float(sign_flip_many(differences, np.asarray(signs)[None], sided)[0])


def sign_flip_many(differences: npt.ArrayLike, signs: npt.ArrayLike, sided: Sided = "upper") -> F64:
    """`sign_flip` of the same differences with many rows of coins: ``signs`` is (m, n), and so many tails come back."""
    x, s = np.asarray(differences, dtype=np.float64), np.asarray(signs)
    if x.ndim != 1 or s.ndim != 2 or s.shape[1:] != x.shape or not np.all((s == 1) | (s == -1)):
        raise DyetraceError(
            f"{x.shape} differences and {s.shape[1:]} signs, each 1 or -1, are not one of each for a pair"
        )
    if not np.all(np.abs(x) <= MOST_DIFFERENCE):
        raise DyetraceError("a pair's differences must be finite numbers")
    largest = float(np.abs(x).max(initial=0.0))
    if largest == 0:
        return np.zeros(len(s))
    relative = x / largest
    step = max(math.sqrt(float(np.mean(relative**2))) / _STEPS, float(np.abs(relative).sum()) / _MOST_POINTS)
    weights = np.rint(relative / step).astype(np.int64)
    totals = s.astype(np.int64) @ weights
    sizes = np.abs(weights)
    # A sign times a size is twice a bit times it, less the size.
    heads = (totals if sided == "upper" else np.abs(totals)) + sizes.sum()
    log10_p = log10_sf_weighted_many(WeightedBits((1,)), sizes, heads // 2)
    return log10_p if sided == "upper" else np.minimum(0.0, log10_p + math.log10(2))


def _twice(log10_p: float) -> float:
    return min(0.0, log10_p + math.log10(2))
