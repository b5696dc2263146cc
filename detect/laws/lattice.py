"""Exact log tails of sums of independent integers: tilting, then convolution or Fourier inversion.

`detect.laws.tails` is the public side of this. For any ``theta``, with K the log moment generating function,

    P(S >= t) = exp(K(theta) - theta t) * E_theta[exp(-theta (S - t)); S >= t]

where E_theta weighs outcomes by exp(theta S - K(theta)) [1]_. A ``theta`` that puts the mean near t leaves an
expectation of ordinary size, however small p is. For short lattices it comes from the convolved
probabilities; for long ones from their characteristic function, at the few frequencies that matter.

The rounding error of that sum is bounded and added, so p is never too small. It is too large, by more than
the last digits, only for long lattices with gaps: p(S >= t) where the next value the sum can take lies far
above t and is reached by a very unlikely draw alone.

References
----------
.. [1] R. R. Bahadur and R. Ranga Rao, "On deviations of the sample mean", Ann. Math. Statist. 31, 1960.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from watermark.laws import Bernoulli, Lattice, Law, WeightedBits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_EPS = 2.0**-52
_NEGLIGIBLE = 60.0  # nats: parts below exp(-60) = 9e-27 are left out, and counted as error
_SHORT = 4096  # points; up to here direct convolution takes milliseconds
_SHARED_ERROR = 1e-10  # of p: totals share a tilt, and so its rounding errors, up to here
_BLOCK = 1 << 20  # elements of the largest temporary array
_CACHED = 1 << 13  # complex numbers of an array that is used many times over
_MOST_FREQUENCIES = 1 << 20


class TooUneven(ValueError):
    """The sum's characteristic function matters at too many frequencies."""


@dataclass(frozen=True)
class LatticeSum:
    """``offset + span * S``, S the sum of ``counts[f]`` draws of ``values[f, a]`` with ``probabilities[a]``.

    The least value of each kind of draw f is 0 and the values have no common divisor: S fills 0..maximum.
    """

    counts: Ints
    values: Ints
    probabilities: Floats
    offset: int
    span: int

    @classmethod
    def of(cls, law: Law, weights: Ints, counts: Ints) -> LatticeSum:
        """Sum ``counts[j]`` draws of ``law``, each times ``weights[j]``, which may be negative."""
        if isinstance(law, WeightedBits):
            # Layers are independent, so they are kinds of draws of their own: two values each, not 2^layers.
            products = np.multiply.outer(np.array(law.weights), weights)
            weights, kind = np.unique(products, return_inverse=True)
            counts = np.bincount(kind.ravel(), np.broadcast_to(counts, products.shape).ravel()).astype(np.int64)
            values, probabilities = np.array([0, 1]), np.array([0.5, 0.5])
        elif isinstance(law, Bernoulli):
            values, probabilities = np.array([0, 1]), np.array([1 - law.gamma, law.gamma])
        elif isinstance(law, Lattice):
            possible = np.array(law.probabilities) > 0
            values = np.array(law.values, dtype=np.int64)[possible]
            probabilities = np.array(law.probabilities)[possible] / math.fsum(law.probabilities)
        else:
            raise ValueError(f"weighted sums need a Bernoulli, WeightedBits or Lattice law, got {law!r}")
        table = np.multiply.outer(weights, values)
        least = table.min(axis=1)
        offset = int(least @ counts)
        random = (weights != 0) & (counts > 0) & bool(np.ptp(values))
        table = (table - least[:, None])[random]
        span = int(np.gcd.reduce(table, axis=None)) or 1
        return cls(counts[random], table // span, probabilities, offset, span)

    @property
    def maximum(self) -> int:
        """Largest value of S."""
        return int(self.counts @ self.values.max(axis=1, initial=0))

    def reflected(self) -> LatticeSum:
        """Mirror the law: the sum of ``maximum - S``."""
        mirrored = self.values.max(axis=1, keepdims=True, initial=0) - self.values
        return LatticeSum(self.counts, mirrored, self.probabilities, 0, 1)

    def log_sf(self, totals: Ints) -> Floats:
        """Log P(offset + span * S >= totals), totals of shape (m,) ascending."""
        steps = -((self.offset - totals) // self.span)
        result = np.where(steps <= 0, 0.0, -np.inf)
        possible = (steps > 0) & (steps <= self.maximum)
        above = possible & (steps > self.tilt(0.0).mean)
        result[above] = self._log_tail(steps[above], error_sign=1)
        # Near 1 the other tail tells p to more digits, on whichever side of the mean the total is.
        below = possible & (~above | (result > -0.1))
        log_q = self.reflected()._log_tail(self.maximum + 1 - steps[below][::-1], error_sign=-1)[::-1]
        result[below] = np.log1p(-np.exp(log_q))
        return result

    def _log_tail(self, totals: Ints, *, error_sign: int) -> Floats:
        """Log P(S >= totals) for 0 < totals <= maximum ascending, plus or minus the rounding error."""
        result = np.empty(totals.size)
        done = 0
        while done < totals.size:
            if totals[done] == self.maximum:
                result[done:] = self._log_top()
                break
            tilted = self._tilt_for(int(totals[done]))
            near = totals[done : done + 256]
            near = near[near <= near[0] + 4 * tilted.sd]
            mass, error = tilted.discounted_mass(near)
            # The mass falls from each total to the next, its error does not.
            shared = max(1, int(np.count_nonzero(mass >= min(mass[0] / 4, error / _SHARED_ERROR))))
            with np.errstate(divide="ignore"):
                log_mass = np.log(np.maximum(np.maximum(mass, 0.0) + error_sign * error, 0.0))
            cgf, shift = tilted.cgf(tilted.theta), tilted.theta * tilted.deviation(near)
            exponent_error = _EPS * (32 + 8 * (abs(cgf) + np.abs(shift)))
            log_tail = cgf - shift + log_mass + error_sign * exponent_error
            result[done : done + shared] = log_tail[:shared]
            done += shared
        return result

    def _log_top(self) -> float:
        """Log P(S = maximum), where the tilt would be infinite."""
        at_top = self.values == self.values.max(axis=1, keepdims=True)
        top, rest = at_top @ self.probabilities, ~at_top @ self.probabilities
        # 1 - 1e-9 as a float has lost most of the 1e-9: ask the small one of the two.
        log_top = np.where(top < rest, np.log(top), np.log1p(-np.minimum(rest, 0.5)))
        return float(self.counts @ log_top)

    def tilt(self, theta: float) -> Tilted:
        """Weigh the outcomes by exp(theta S)."""
        logs = np.log(self.probabilities)
        likeliest = (theta * self.values + logs).argmax(axis=1)[:, None]
        # From the likeliest value on: theta times a large value would leave few digits for the differences.
        steps = self.values - np.take_along_axis(self.values, likeliest, axis=1)
        probabilities = np.exp(theta * steps + (logs - logs[likeliest]))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        means = (probabilities * self.values).sum(axis=1)
        return Tilted(self, theta, probabilities, means)

    def _tilt_for(self, total: int) -> Tilted:
        """Tilt upwards so that the mean is near ``total``, or near one sd above the mean if that is higher.

        Any tilt gives the same p; this one keeps the expectation well conditioned.
        """
        start = self.tilt(0.0)
        target = max(total, min(start.mean + start.sd, (start.mean + self.maximum) / 2))
        low, high = 0.0, 1 / max(start.sd, 1.0)
        while self.tilt(high).mean < target:
            low, high = high, 2 * high
        theta = high
        for _ in range(100):
            tilted = self.tilt(theta)
            if abs(tilted.mean - target) <= 0.1 * tilted.sd:
                break
            low, high = (theta, high) if tilted.mean < target else (low, theta)
            newton = theta + (target - tilted.mean) / max(tilted.sd**2, sys.float_info.min)
            theta = newton if low < newton < high else (low + high) / 2
        return tilted


class Tilted:
    """A lattice sum under the law proportional to exp(theta S) P(S); written E_theta below.

    Attributes
    ----------
    mean, sd
        Of S under the tilted law.
    whole_mean, mean_beyond
        Their sum is the mean: the part beyond a whole number is known to more digits apart.
    """

    def __init__(self, source: LatticeSum, theta: float, probabilities: Floats, means: Floats) -> None:
        self.source = source
        self.theta = theta
        self.probabilities = probabilities
        self.centred = source.values - means[:, None]
        self.sds = np.sqrt((probabilities * self.centred**2).sum(axis=1))
        self.counts = source.counts.astype(np.float64)
        # Whole parts apart: the mean of 1e9 draws of almost 1 is known to far better than its last digit.
        whole = np.rint(means)
        self.whole_mean = int(source.counts @ whole.astype(np.int64))
        self.mean_beyond = math.fsum(self.counts * (means - whole))
        self.mean = self.whole_mean + self.mean_beyond
        self.sd = math.sqrt(self.counts @ self.sds**2)

    def deviation(self, totals: Ints) -> Floats:
        """Return totals - mean, free of the rounding of a large mean."""
        beyond_whole: Floats = (totals - self.whole_mean).astype(np.float64)
        return beyond_whole - self.mean_beyond

    def cgf(self, shift: float) -> float:
        """Log E exp(shift (S - mean)), nats, under the law before tilting (but around the tilted mean)."""
        base = self.source.probabilities
        exponents = shift * self.centred
        top = exponents.max(axis=1)
        far = top + np.log((base * np.exp(exponents - top[:, None])).sum(axis=1))
        # Near the centre the terms of first order cancel: expm1 keeps what is left of them.
        excess = (base * np.expm1(np.minimum(exponents, 1.0))).sum(axis=1)
        near = np.log1p(np.maximum(excess, -0.5))
        return float(self.counts @ np.where((top < 1.0) & (excess > -0.5), near, far))

    def cumulants(self, shifts: Floats) -> Floats:
        """Log E_theta exp(shift (S - mean)) of each shift, nats; less accurate than `cgf` near 0."""
        # From the law before tilting: a tilted probability that is 0 as a float may still matter.
        exponents = np.multiply.outer(np.append(self.theta + shifts, self.theta), self.centred)
        exponents += np.log(self.source.probabilities)
        top = exponents.max(axis=2)
        logs = top + np.log(np.exp(exponents - top[:, :, None]).sum(axis=2))
        totals = logs @ self.counts
        cumulants: Floats = totals[:-1] - totals[-1]
        return cumulants

    def discounted_mass(self, totals: Ints) -> tuple[Floats, float]:
        """E_theta[exp(-theta (S - t)); S >= t] for each t of ``totals``, and a bound on its error."""
        if self.source.maximum < _SHORT:
            return self._mass_by_convolution(totals), 0.0
        return self._mass_by_inversion(totals)

    def _mass_by_convolution(self, totals: Ints) -> Floats:
        pmf = np.ones(1)
        kinds = zip(self.source.counts, self.source.values, self.probabilities, strict=True)
        for count, values, probabilities in kinds:
            single: Floats = np.bincount(values, probabilities).astype(np.float64)
            pmf = np.convolve(pmf, _convolution_power(single, int(count)))
        discount = np.exp(-self.theta * np.arange(pmf.size))
        return np.array([pmf[t:] @ discount[: pmf.size - t] for t in totals])

    def _mass_by_inversion(self, totals: Ints) -> tuple[Floats, float]:
        """Fourier sum over a period that holds all but exp(-60) of the tilted law.

        With z = theta + i phi, the sum over s = t..top of exp(-theta (s - t)) f(s) is the mean over the
        period's frequencies phi of E_theta[exp(i phi S)] exp(-i phi t)
        times the geometric sum (1 - exp(-z (top + 1 - t))) / (1 - exp(-z)).
        """
        bottom, top = self._window(totals)
        period = top + 1 - bottom
        index = self.significant_frequencies(period, _NEGLIGIBLE, _MOST_FREQUENCIES)
        phi: Floats = index * np.float64(2 * math.pi / period)
        log_modulus, angle, _ = self.log_characteristic(phi)
        modulus = np.exp(log_modulus)
        kernel = self.geometric_series(phi)
        # Frequencies come in conjugate pairs, but for 0 and, in an even period, the middle.
        kernel *= np.where((index == 0) | (2 * index == period), 1.0, 2.0) / period

        distances = self.deviation(np.append(totals, top + 1))
        terms = kernel * modulus * np.exp(1j * angle)
        sums = np.array([(np.exp(-1j * phi * distance) @ terms).real for distance in distances])
        mass = sums[:-1] - np.exp(-self.theta * (top + 1 - totals)) * sums[-1]

        # The modulus is good to eps, each angle to eps of the largest product that went into it.
        reach = np.abs(distances).max() + abs(self.mean_beyond) + self.counts @ self.sds
        rounding = _EPS * float(np.abs(kernel) @ (4 + modulus * (8 + 2 * phi * reach)))
        left_out = 4 * math.exp(-_NEGLIGIBLE) / -math.expm1(-self.theta)
        return mass, rounding + left_out

    def _window(self, totals: Ints) -> tuple[int, int]:
        """Lattice points that hold the totals and, by Chernoff's bound, all but exp(-60) on either side."""
        steps = math.sqrt(2 * _NEGLIGIBLE) / self.sd * 2.0 ** np.arange(-3, 4)
        cut = _NEGLIGIBLE - self.cgf(self.theta)
        above = min((cut + self.cgf(self.theta + step)) / step for step in steps)
        below = min((cut + self.cgf(self.theta - step)) / step for step in steps)
        bottom = max(0, min(math.floor(self.mean - below), int(totals[0])))
        top = min(self.source.maximum, max(math.ceil(self.mean + above), int(totals[-1])))
        return bottom, top

    def geometric_series(self, phi: Floats) -> NDArray[np.complex128]:
        """1 / (1 - exp(-theta - i phi)), accurate where both are small."""
        decay = math.exp(-self.theta)
        series: NDArray[np.complex128] = 1 / (
            -math.expm1(-self.theta) + decay * (2 * np.sin(phi / 2) ** 2 + 1j * np.sin(phi))
        )
        return series

    def significant_frequencies(self, period: int, negligible: float, most: int) -> Ints:
        """Find the k <= period / 2 where the characteristic function at 2 pi k / period may exceed exp(-negligible).

        Branch and bound: one draw's characteristic function changes by at most sd per radian, so its value
        in the middle of a cell of frequencies bounds it in the whole cell.
        """
        half = period // 2
        step = 2 * math.pi / period
        width = 1 << max(0, half.bit_length() - 6)
        cells = np.arange(0, half + 1, width)
        while True:
            reach = (width - 1) / 2
            middle: Floats = (cells + reach) * np.float64(step)
            cells = cells[self._log_modulus_bound(middle, reach * step) > -negligible]
            if width == 1:
                return cells[cells <= half]
            if cells.size > most:
                raise TooUneven(
                    f"the sum spreads over {period:,} points too unevenly for an exact tail (more than "
                    f"{most:,} frequencies matter); round scores or weights to a coarser step"
                )
            width //= 2
            cells = np.concatenate([cells, cells + width])

    def log_characteristic(self, phi: Floats) -> tuple[Floats, Floats, Floats]:
        """Log modulus and angle of E_theta exp(i phi (S - mean)), phi of shape (k,) in radians, and their error.

        The error of either is at most the third array times 2^-52; relative to the modulus, if that is nearly 0.
        """
        log_modulus, angle, errors = np.empty(phi.size), np.empty(phi.size), np.empty(phi.size)
        for part, real, imaginary in self._characteristics(phi):
            with np.errstate(divide="ignore"):
                log_moduli = _log_hypot(real, imaginary)
            spread = np.multiply.outer(self.sds, phi[part])
            # 1 - Re and Im^2 are at most spread^2, whatever cancels among them in the modulus.
            each = (6 * np.minimum(spread**2, 2.0) + 2 * spread) / np.exp(np.maximum(log_moduli, -500.0))
            log_modulus[part] = self.counts @ log_moduli
            angle[part] = self.counts @ np.arctan2(imaginary, 1 + real)
            errors[part] = self.counts @ each
        return log_modulus, angle, errors

    def _log_modulus_bound(self, phi: Floats, radius: float) -> Floats:
        """Upper bound of the log modulus at all frequencies no farther than ``radius`` from phi."""
        bound = np.empty(phi.size)
        slack = (radius * self.sds)[:, None]
        for part, moduli in self._moduli(phi):
            with np.errstate(divide="ignore"):
                bound[part] = self.counts @ np.log(np.minimum(moduli + slack, 1.0))
        return bound

    def _moduli(self, phi: Floats) -> Iterator[tuple[slice, Floats]]:
        """Each kind of draw's |E_theta exp(i phi X)|, or at most its rounding error more, in blocks of phi."""
        if self._polynomials is None:
            for part, real, imaginary in self._characteristics(phi):
                yield part, np.hypot(1 + real, imaginary)
            return
        gaps, powers = self._polynomials
        block = max(1, _CACHED // gaps.size)
        for start in range(0, phi.size, block):
            part = slice(start, start + block)
            z = np.exp(1j * np.multiply.outer(gaps, phi[part]))
            value = np.zeros_like(z)
            for coefficients in powers[::-1]:  # Horner's rule, in place
                value *= z
                value += coefficients[:, None]
            yield part, np.abs(value) + 2 * len(powers) * _EPS

    @cached_property
    def _polynomials(self) -> tuple[Ints, Floats] | None:
        """Each kind of draw's E_theta z^(X / gap): the gaps between its values, and coefficients by power and kind.

        One sine of each frequency is then enough for all values of a kind, and not one for each. None where values
        have large gaps among them.
        """
        values = self.source.values
        gaps = np.gcd.reduce(values, axis=1)
        places = values // gaps[:, None]
        width = int(places.max(initial=0)) + 1
        if width > 4 * values.shape[1]:
            return None
        powers = np.zeros((width, gaps.size))
        np.add.at(powers, (places, np.arange(gaps.size)[:, None]), self.probabilities)
        return gaps, powers

    def _characteristics(self, phi: Floats) -> Iterator[tuple[slice, Floats, Floats]]:
        """Each kind of draw's E_theta exp(i phi (X - mean)) - 1, real and imaginary parts, in blocks of phi."""
        block = max(1, _BLOCK // self.centred.size)
        for start in range(0, phi.size, block):
            part = slice(start, start + block)
            x = np.multiply.outer(self.centred, phi[part])
            # cos - 1, not cos: its smallness is all that tells the modulus from 1.
            real = -2 * np.einsum("fa,fak->fk", self.probabilities, np.sin(x / 2) ** 2)
            imaginary = np.einsum("fa,fak->fk", self.probabilities, np.sin(x))
            yield part, real, imaginary


def _convolution_power(pmf: Floats, exponent: int) -> Floats:
    """Convolve ``exponent`` draws by repeated squaring: sums of positive terms, so nothing cancels."""
    result = np.ones(1)
    while exponent:
        if exponent & 1:
            result = np.convolve(result, pmf)
        exponent >>= 1
        if exponent:
            pmf = np.convolve(pmf, pmf)
    return result


def _log_hypot(real: Floats, imaginary: Floats) -> Floats:
    """Log |1 + real + i imaginary|, accurate near modulus 1 as well as near 0."""
    excess = 2 * real + real**2 + imaginary**2
    near = 0.5 * np.log1p(np.maximum(excess, -0.5))
    return np.where(excess > -0.5, near, np.log(np.hypot(1 + real, imaginary)))
