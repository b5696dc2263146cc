"""What experts say of a pair before its coin is known: chances that the first side was served, from differences alone.

Nothing here sees a sign. All is computed in the order of time from this pair and earlier ones, so that no pair's bet
rests on which later pairs there are: a client that reacts to what it was served may decide that.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from detect.twins.regression import EarlierPairs

F64 = npt.NDArray[np.float64]

WIN_CHANCES = (0.999, 0.56)
"""Of the experts that go by a number's sign alone."""
LINKS = (
    (0.25, 1, 0.998),
    (0.5, 1, 0.998),
    (1.0, 1, 0.998),
    (2.0, 1, 0.998),
    (4.0, 1, 0.998),
    (1.0, 1, 0.6),
    (4.0, 3, 0.998),
    (6.0, 3, 0.998),
    (8.0, 5, 0.998),
    (16.0, 3, 0.998),
)
"""Of the experts that go by size: the number, in typical ones so far, at which they are rather sure; the power that it
is raised to (from 3 on small numbers hardly count: few pairs were used); and 2 P - 1 of the largest numbers."""

LEADING_WEIGHT = 0.31
"""Prior weight of the leading column's sign at the surest chance alone: 35 wins in a row then give 10^10 (2^35 is
10^10.5)."""
LEARNERS_WEIGHT = 0.15
"""Prior weight of those who learn from coins (`detect.twins.bets`)."""
IDLE_WEIGHT = 0.01
"""Prior weight of the expert that never bets: what was lost is never more than a factor of 100."""

MOST_DIFFERENCE = 1e30
"""The largest difference, covariate or weight that is taken."""

_LEAST = 1e-30  # what is less is 0: squares of numbers and their quotients stay far from what floats can't hold
_MOST_TYPICAL = 1e4  # differences of more typical ones than this are all the same
_RIDGE = 5.0  # pairs' worth of "no influence" that a covariate's influence starts from
_FEATURE_LIMIT = 3.0  # typical differences


@dataclass(frozen=True)
class Opinion:
    """What is said of one pair.

    Attributes
    ----------
    leanings
        (experts,): chance that the first side was served, less 1/2: odd in the pair, to the last bit.
    features
        (columns + covariates,): differences and covariates in typical ones, limited, for those who learn from coins.
    silent
        Whether every difference is 0: then nobody bets and nobody learns.
    """

    leanings: F64
    features: F64
    silent: bool


class Experts:
    """All experts that learn from no coin; `hear` is to be called for pair after pair in the order of time.

    Parameters
    ----------
    columns, covariates
        How many of each.
    combination
        (columns,): weights of a score that was fixed before any of these pairs existed; None where there is none.
    """

    def __init__(self, columns: int, covariates: int = 0, combination: F64 | None = None) -> None:
        self.columns, self.covariates = columns, covariates
        self._combination = None if combination is None else _without_least(combination)
        self._raw = columns + (combination is not None)
        self._signals = self._raw * (2 if covariates else 1)
        self._typical = [_Typical() for _ in range(self._signals + covariates)]
        self._earlier = EarlierPairs(covariates, self._raw, _RIDGE)
        shapes = len(WIN_CHANCES) + len(LINKS)
        self._nothing = Opinion(np.zeros(self._signals * shapes), np.zeros(columns + covariates), silent=True)

    @cached_property
    def weights(self) -> F64:
        """(experts,): prior weights, which with `IDLE_WEIGHT` and those of who learns from coins sum to 1."""
        parts = np.ones(self._raw)
        parts[0] = 4.0
        if self._combination is not None:
            parts[-1] = 5.0
        signals = np.tile(parts, self._signals // self._raw)
        shapes = np.ones(len(WIN_CHANCES) + len(LINKS))
        left = 1 - LEADING_WEIGHT - IDLE_WEIGHT - LEARNERS_WEIGHT
        weights = np.outer(signals / signals.sum(), shapes / len(shapes)) * left
        weights[0, 0] += LEADING_WEIGHT
        return weights.ravel()

    def hear(self, x: F64, z: F64) -> Opinion:
        """What is said of the next pair: ``x`` (columns,) and ``z`` (covariates,), first side less second.

        Where every difference is 0 the pair might as well not exist.
        """
        x, z = _without_least(x), _without_least(z)
        if not np.any(x):
            return self._nothing
        raw = x if self._combination is None else np.append(x, np.sum(self._combination * x))
        signals = raw
        if self.covariates:
            signals = np.concatenate([raw, np.where(raw == 0, 0.0, raw - self._earlier.explained(z))])
            self._earlier.add(z, raw)
        numbers = np.concatenate([signals, z])
        sizes = np.array([typical.after(abs(v)) for typical, v in zip(self._typical, numbers.tolist(), strict=True)])
        t = np.clip(numbers / sizes, -_MOST_TYPICAL, _MOST_TYPICAL)
        features = t / np.sqrt(1 + (t / _FEATURE_LIMIT) ** 2)
        chosen = np.r_[0 : self.columns, self._signals : len(numbers)]
        return Opinion(_leanings(t[: self._signals]), features[chosen], silent=False)


class _Typical:
    """The median of the sizes so far that aren't 0, the present one among them."""

    def __init__(self) -> None:
        self._sorted: list[float] = []

    def after(self, size: float) -> float:
        if size > 0:
            insort(self._sorted, size)
        n = len(self._sorted)
        return (self._sorted[(n - 1) // 2] + self._sorted[n // 2]) / 2 if n else 1.0


def _without_least(values: F64) -> F64:
    return np.where(np.abs(values) < _LEAST, 0.0, values)


def _leanings(t: F64) -> F64:
    """Shape (signals * shapes,), from differences in typical ones, (signals,)."""
    signs = np.multiply.outer(np.sign(t), np.array(WIN_CHANCES) - 0.5)
    spreads, powers, surest = np.array(LINKS).T
    powered = np.multiply.outer(np.abs(t), 1 / spreads) ** powers * np.sign(t)[:, None]
    links = powered / np.sqrt(1 + powered * powered) * (surest / 2)
    leanings: F64 = np.concatenate([signs, links], axis=1).ravel()
    return leanings
