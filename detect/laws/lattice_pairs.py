"""Exact upper tails of many (n, total) pairs under one lattice law, a microsecond or so each.

The formula is `detect.laws.lattice`'s: with K the log moment generating function of one draw, mu its mean under
the law tilted by theta, d = t - n mu,

    P(S_n >= t) = exp(n K_c - theta d) * E_theta[exp(-theta (S_n - t)); S_n >= t],    K_c = K(theta) - theta mu,

for any ``theta`` [1]_. So ``theta`` need not fit the total exactly: it comes from a fixed ladder, and all pairs of
nearby n and total share what one draw's characteristic function is at the frequencies that matter. What is left for
a pair is a sum of a few dozen cosines. With frequencies 2 pi k / P and the endless geometric series, the sum is

    (1 - exp(-theta P)) / P * sum_k E_theta[exp(i phi_k (S_n - t))] / (1 - exp(-theta - i phi_k))
        = E_theta[exp(-theta ((S_n - t) mod P))],

which is the expectation sought, plus what sums outside t..t + P - 1 add: Chernoff's bounds tell how little. With the
bounds on rounding and on the frequencies left out it makes p larger, never smaller. Where the bound on the error is
not small next to the result (far, gappy or very uneven laws), the pair is handed back as NaN.

References
----------
.. [1] R. R. Bahadur and R. Ranga Rao, "On deviations of the sample mean", Ann. Math. Statist. 31, 1960.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detect.laws.lattice import LatticeSum, TooUneven
from watermark.backends.numba_backend import jit
from watermark.laws import Lattice, WeightedBits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_DRAWS = 1 << 20
"""Of a pair that is evaluated here; beyond, all are handed back."""

_EPS = 2.0**-52
_ACCURACY = 1e-10  # of p: pairs with a larger bound on the error are handed back
_LEFT_OUT = 45.0  # nats: frequencies of a modulus below exp(-45) = 3e-20 are left out, and counted as error
_ALIASED = 40.0  # nats, for the probability that the period is too short for
_CLASSES = 2  # of n per doubling, that share frequencies
_RUNG = 2.5  # standard deviations between the tilted means of two rungs of the ladder
_RATIO = 1.02  # of the tilts from which rungs are chosen
_MOST_FREQUENCIES = 2_048  # beyond, `detect.laws.lattice` is as fast
_KEPT = 1 << 19  # frequencies of 48 bytes, then all start anew
_BLOCK = 1 << 20  # elements of the largest temporary array


class LatticePairs:
    """Tails of sums of draws of ``law``; keeps what pairs of similar n and size share, in at most 50 MB."""

    def __init__(self, law: WeightedBits | Lattice) -> None:
        single = LatticeSum.of(law, np.array([1]), np.array([1]))
        self._single = single
        if single.maximum:
            self._mean = single.tilt(0.0).mean
            self._upper = _UpperTails(single)
            # Fair bits mirrored are fair bits.
            self._lower = self._upper if isinstance(law, WeightedBits) else _UpperTails(single.reflected())

    def log_sf(self, ns: Ints, totals: Ints) -> Floats:
        """Log P(S_n >= total) of pairs in nats, shape (m,); NaN where another route is needed."""
        few = ns <= MOST_DRAWS
        n = np.where(few, ns, 0)
        steps, maxima = -((n * self._single.offset - totals) // self._single.span), n * self._single.maximum
        result = np.where(few, np.where(steps <= 0, 0.0, -np.inf), np.nan)
        possible = few & (steps > 0) & (steps <= maxima)
        if possible.any():
            above = possible & (steps > n * self._mean)
            below = possible & ~above
            result[above] = _unless_near_one(self._upper.log_tails(n[above], steps[above], error_sign=1))
            log_q = self._lower.log_tails(n[below], (maxima + 1 - steps)[below], error_sign=-1)
            result[below] = np.log1p(-np.exp(_unless_near_one(log_q)))
        return result


def _unless_near_one(log_p: Floats) -> Floats:
    """NaN for p of 0.9 and more (from very skew laws): log p, or log(1 - p), has lost p's digits."""
    return np.where(log_p < -0.1, log_p, np.nan)


@dataclass(frozen=True)
class _Table:
    """What pairs of nearby n share under one tilt.

    Attributes
    ----------
    waves
        Shape (5, k), of each frequency: radians; one draw's log modulus and angle; the geometric series' modulus and
        angle. The modulus includes (1 - exp(-theta P)) / P and the conjugate frequency.
    errors
        Shape (k,): bound on the error of one draw's log modulus and angle, in units of 2^-52.
    constants
        theta, K_c, mu less its whole part, the error of frequencies left out, the period P, and Chernoff's
        exponents towards lower and higher sums, each with its cumulant.
    whole
        Whole part of mu: apart, so that a large mean costs no digits.
    """

    waves: Floats
    errors: Floats
    constants: tuple[float, float, float, float, float, float, float, float, float]
    whole: int


class _UpperTails:
    """Tails above the mean, of sums of draws of the lattice ``single``."""

    def __init__(self, single: LatticeSum) -> None:
        self._single = single
        least_probability = float(single.probabilities.min())
        base = single.tilt(0.0)
        gentlest = min(1.0, 1 / (base.sd * math.sqrt(MOST_DRAWS)))
        steepest = 20 - math.log(least_probability)  # all draws are at their maximum
        count = math.ceil(math.log(steepest / gentlest) / math.log(_RATIO))
        self._thetas = gentlest * _RATIO ** np.arange(count + 1)
        self._means, self._sds = self._moments()
        self._mean = base.mean
        self._edges = np.unique(np.ceil(2.0 ** (np.arange(_CLASSES * 20 + 2) / _CLASSES)).astype(np.int64))
        self._ladders: dict[int, Ints] = {}
        self._tables: dict[tuple[int, int], _Table | None] = {}
        self._kept = 0

    def log_tails(self, ns: Ints, steps: Ints, *, error_sign: int) -> Floats:
        """Log P(S_n >= steps) for steps in 1 .. maximum, plus or minus the error's bound."""
        result = np.full(ns.size, np.nan)
        classes = np.searchsorted(self._edges, ns, side="right") - 1
        for each in np.unique(classes):
            members = np.flatnonzero(classes == each)
            ladder = self._ladder(int(each))
            rungs = np.searchsorted(self._means[ladder[:-1]], steps[members] / ns[members])
            for rung in np.unique(rungs):
                mine = members[rungs == rung]
                table = self._table(int(each), int(rung))
                if table is not None:
                    numbers = ns[mine], steps[mine], error_sign, table.whole
                    result[mine] = _log_tails(table.waves, table.errors, *table.constants, *numbers)
        return result

    def _moments(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of one draw under each tilt."""
        single, means, sds = self._single, [], []
        for thetas in np.array_split(self._thetas, 1 + self._thetas.size * single.values.size // _BLOCK):
            exponents = np.multiply.outer(thetas, single.values) + np.log(single.probabilities)
            weights = np.exp(exponents - exponents.max(axis=2, keepdims=True))
            weights /= weights.sum(axis=2, keepdims=True)
            mean = (weights * single.values).sum(axis=2)
            variance = (weights * (single.values - mean[:, :, None]) ** 2).sum(axis=2)
            means.append(mean @ single.counts)
            sds.append(np.sqrt(variance @ single.counts))
        return np.maximum.accumulate(np.concatenate(means)), np.concatenate(sds)

    def _ladder(self, each: int) -> Ints:
        """Tilts for a class of n, as indices: their means are `_RUNG` apart, from the untilted one to the maximum."""
        if each not in self._ladders:
            n = int(self._edges[each + 1]) - 1
            reach = self._means - _RUNG * self._sds / math.sqrt(n)
            rungs, mean, last = list[int](), self._mean, self._thetas.size - 1
            while not rungs or (rungs[-1] < last and n * (self._single.maximum - mean) > 0.5):
                start = rungs[-1] + 1 if rungs else 0
                too_far = reach[start:] > mean
                rungs.append(max(start, start + int(too_far.argmax()) - 1) if too_far.any() else last)
                mean = float(self._means[rungs[-1]])
            self._ladders[each] = np.array(rungs)
        return self._ladders[each]

    def _table(self, each: int, rung: int) -> _Table | None:
        """The table; None if too many frequencies matter."""
        key = each, rung
        if key in self._tables:
            return self._tables[key]
        if self._kept > _KEPT:
            self._tables, self._kept = {}, 0
        table = None
        with suppress(TooUneven):
            table = self._new_table(each, rung)
        self._tables[key] = table
        self._kept += 8 + (table.errors.size if table else 0)
        return table

    def _new_table(self, each: int, rung: int) -> _Table:
        ladder, fewest, most = self._ladder(each), int(self._edges[each]), int(self._edges[each + 1]) - 1
        theta = float(self._thetas[ladder[rung]])
        tilted = self._single.tilt(theta)
        widths = math.sqrt(2 * _ALIASED / most) / max(tilted.sd, 1e-9) * 2.0 ** np.arange(-4, 4)
        upper = np.asarray(widths, dtype=np.float64)
        lower = np.minimum(upper, theta)
        # Every exponent is valid, the one that allows the shortest period is the best.
        falls, rises = tilted.cumulants(-lower), tilted.cumulants(upper)
        below, above = (_ALIASED + most * falls) / lower, (_ALIASED + most * rises) / upper
        low, high = int(below.argmin()), int(above.argmin())
        lowest_mean = self._means[ladder[rung - 1]] if rung else self._mean
        beneath = most * max(0.0, tilted.mean - float(lowest_mean))
        period = max(2, math.ceil(max(below[low], above[high] + beneath)))

        index = tilted.significant_frequencies(period, _LEFT_OUT / fewest, _MOST_FREQUENCIES)
        phi: Floats = index * np.float64(2 * math.pi / period)
        log_modulus, angle, errors = tilted.log_characteristic(phi)
        kernel = tilted.geometric_series(phi) * (-math.expm1(-theta * period) / period)
        kernel *= np.where((index == 0) | (2 * index == period), 1.0, 2.0)  # the others come in conjugate pairs
        waves = np.stack([phi, log_modulus, angle, np.abs(kernel), np.angle(kernel)])
        left_out = 2 * math.exp(-_LEFT_OUT) / -math.expm1(-theta)
        chernoff = float(lower[low]), float(falls[low]), float(upper[high]), float(rises[high])
        constants = (theta, tilted.cgf(theta), tilted.mean_beyond, left_out, float(period), *chernoff)
        return _Table(waves, errors, constants, tilted.whole_mean)


@jit()
def _log_tails(
    waves: Floats,
    errors: Floats,
    theta: float,
    cgf: float,
    mean_beyond: float,
    left_out: float,
    period: float,
    lower: float,
    fall: float,
    upper: float,
    rise: float,
    ns: Ints,
    steps: Ints,
    error_sign: int,
    whole_mean: int,
) -> Floats:
    """Log tails of the pairs of one `_Table`, which has the arguments; NaN where the error may exceed `_ACCURACY`."""
    phi, log_modulus, angle, series, series_angle = waves
    out = np.empty(len(ns))
    for i in range(len(ns)):
        n = float(ns[i])
        distance = float(steps[i] - ns[i] * whole_mean) - n * mean_beyond
        # What went into an angle, radians per unit of frequency; eps of it is the angle's error.
        reach = 4 * (abs(distance) + n * abs(mean_beyond))
        mass = noise = 0.0
        for k in range(len(phi)):
            exponent = n * log_modulus[k]
            if exponent > -_LEFT_OUT:
                size = series[k] * math.exp(exponent)
                mass += size * math.cos(n * angle[k] + series_angle[k] - phi[k] * distance)
                noise += size * (16 + len(phi) + n * errors[k] + reach * phi[k]) + 4 * series[k]
        aliased = math.exp(lower * (distance - period) + n * fall) + math.exp(n * rise - upper * (distance + period))
        error = _EPS * noise + left_out + aliased
        if error > _ACCURACY * mass:
            out[i] = math.nan
            continue
        shift = theta * distance
        # The tilted probabilities are good to some eps; among n draws the excess of one over another is sqrt(n).
        exponent_error = _EPS * (32 * (1 + math.sqrt(n)) + 8 * (n * abs(cgf) + abs(shift)))
        exponent_error += _EPS * 2 * theta * n * abs(mean_beyond)
        out[i] = n * cgf - shift + math.log(mass + error_sign * error) + error_sign * exponent_error
    return out
