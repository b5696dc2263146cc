"""Bets on coins: how much richer gets who bets, pair after pair, that the suspect prefers what was served.

**The null.** The suspect never learnt from anything that depends on these coins. Then each pair's sign is a fair coin
given the unordered pair, what the suspect says of it, and all earlier pairs and coins. A bet on a pair that rests on
nothing else has the factor f(s) = 2 P(s), with mean 1 whatever P is. Wealth is a martingale, and an e-value whenever
one stops [1]_; a mixture of such bets is one too.

**The order is that of time**, and all that a bet rests on is of this pair or earlier ones. This is no formality.
Clients react to what they are served: which later pairs there are, and what is in them, may depend on an earlier coin.
Say that a client asks again only where it was served the first side. Who looks at all pairs beforehand and sees two
knows the first coin. So pairs sorted by the size of their differences, sizes relative to those of all pairs, and
regressions over all pairs make no martingale then; over the pairs so far they do.

**A bias.** Of twins that were drawn later the sign may be no fair coin, and P(+1) lie within 1/2 - b and 1/2 + b. The
factor is then P(s) / Q(s) with Q the chance in that range that is nearest to P (the reverse information projection
[2]_): 1 where P lies in it. For P > 1/2 + b its mean under a chance q, q P / Q + (1 - q)(1 - P) / (1 - Q), grows with q
and is 1 at q = Q: never more than 1 in the range. Where only the mean of the chances q_i is known to lie there, bets of
the same height on every pair still have a mean of at most 1, as a product is largest where its factors are equal. So
who bets on differences of one size must not learn from coins then: with a bias, nobody does.

References
----------
.. [1] J. Ville, "Etude critique de la notion de collectif", 1939; G. Shafer, "Testing by betting", J. R. Statist. Soc.
   A 184, 2021.
.. [2] P. Grünwald, R. de Heide and W. Koolen, "Safe testing", J. R. Statist. Soc. B 86, 2024, theorem 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detect.twins.experts import IDLE_WEIGHT, LEARNERS_WEIGHT, MOST_DIFFERENCE, Experts
from watermark.backends.numba_backend import jit
from watermark.errors import DyetraceError

F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]

LEARNERS = ((0.25, 0.5), (1.0, 0.5), (2.0, 1.0))
"""Standard deviation and mean of the coefficients that online logistic regressions start from; the mean is shared among
the columns, whose sign is known: the larger, the more the first side was preferred."""

_SUREST_LEARNT = 0.996  # 2 P - 1 at most
_BLOCK = 256  # pairs whose opinions are held at a time
_BITS = 600  # wealth is divided by 2^600, exactly, where it grows beyond


@dataclass(frozen=True)
class Bets:
    """What bets came to.

    Attributes
    ----------
    log10_evalues
        (n,): after each pair.
    """

    log10_evalues: F64

    @property
    def log10_evalue(self) -> float:
        """After all pairs; 0 where there were none."""
        return float(self.log10_evalues[-1]) if len(self.log10_evalues) else 0.0


class Bettor:
    """Bets on one pair after another, in the order of time.

    Parameters
    ----------
    columns
        How many numbers there are of each pair; the first stands for the measure.
    covariates
        How many numbers there are that flip with the pair and that the suspect has no part in, such as the difference
        of lengths.
    bias
        The largest |P(sign = 1) - 1/2| that is allowed for under the null hypothesis.
    combination
        (columns,): weights of a score of all columns, fixed before any of these pairs existed.

    Raises
    ------
    DyetraceError
        The bias lies outside [0, 1/2), there is no column, or the combination is not one finite weight for each.

    Examples
    --------
    >>> bettor = Bettor(1)
    >>> for _ in range(35):
    ...     evidence = bettor.observe([2.0], [], 1)
    >>> evidence > 10
    True
    """

    def __init__(
        self, columns: int, covariates: int = 0, bias: float = 0.0, combination: npt.ArrayLike | None = None
    ) -> None:
        self._table = _Table(columns, covariates, bias, combination, rows=1)
        self._log10_evalue = 0.0

    @property
    def log10_evalue(self) -> float:
        """So far."""
        return self._log10_evalue

    def observe(self, x: npt.ArrayLike, z: npt.ArrayLike, sign: int) -> float:
        """Bet on a pair and learn its coin.

        Parameters
        ----------
        x, z
            (columns,) and (covariates,): first side less second.
        sign
            1 where the first side was served, -1 where the second was.

        Returns
        -------
        float
            Log10 of the e-value so far.

        Raises
        ------
        DyetraceError
            A number is not finite, one is missing, or the sign is neither 1 nor -1.
        """
        if sign not in (1, -1):
            raise DyetraceError(f"a pair's sign must be 1 or -1 (got {sign})")
        pair_x, pair_z = (np.asarray(values, dtype=np.float64)[None] for values in (x, z))
        self._log10_evalue = float(self._table.play(pair_x, pair_z, np.array([[sign]], dtype=np.int8))[0, 0])
        return self._log10_evalue


def bets(
    differences: npt.ArrayLike,
    signs: npt.ArrayLike,
    covariates: npt.ArrayLike | None = None,
    *,
    bias: float = 0.0,
    combination: npt.ArrayLike | None = None,
) -> Bets:
    """Bet on all pairs, which must be in the order of time: the same as `Bettor`, bit for bit.

    Parameters
    ----------
    differences
        (n, columns): first side less second; 0 says nothing.
    signs
        (n,): 1 where the first side was served, -1 where the second was.
    covariates
        (n, covariates), or None.
    bias, combination
        As for `Bettor`.

    Raises
    ------
    DyetraceError
        As of `Bettor`, or the numbers of pairs differ.

    Examples
    --------
    >>> found = bets([[1.5], [-0.5], [2.0]], [1, -1, 1])
    >>> bool(found.log10_evalue == found.log10_evalues[2] > 0)
    True
    """
    x = np.asarray(differences, dtype=np.float64)
    found = bets_on_many(x, np.asarray(signs)[None], covariates, bias=bias, combination=combination)
    return Bets(found[0])


def bets_on_many(
    differences: npt.ArrayLike,
    signs: npt.ArrayLike,
    covariates: npt.ArrayLike | None = None,
    *,
    bias: float = 0.0,
    combination: npt.ArrayLike | None = None,
) -> F64:
    """`bets` on the same pairs with many rows of coins, as of a calibration: ``signs`` is (m, n).

    Returns
    -------
    array
        (m, n): log10 e-values after each pair.
    """
    x = np.asarray(differences, dtype=np.float64)
    s = np.asarray(signs)
    if x.ndim != 2 or s.ndim != 2 or s.shape[1] != len(x):
        raise DyetraceError(
            f"differences of shape {x.shape} and signs of shape {s.shape[1:]} are not of the same pairs"
        )
    z = np.zeros((len(x), 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    if z.ndim != 2 or len(z) != len(x):
        raise DyetraceError(f"covariates of shape {z.shape} are not of {len(x)} pairs")
    if not np.all((s == 1) | (s == -1)):
        raise DyetraceError("a pair's sign must be 1 or -1")
    table = _Table(x.shape[1], z.shape[1], bias, combination, rows=len(s))
    found = np.empty(s.shape)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        found[:, part] = table.play(x[part], z[part], np.ascontiguousarray(s[:, part], dtype=np.int8))
    return found


class _Table:
    """The wealth of all experts, for each of ``rows`` rows of coins."""

    def __init__(
        self, columns: int, covariates: int, bias: float, combination: npt.ArrayLike | None, *, rows: int
    ) -> None:
        if columns < 1:
            raise DyetraceError("there is nothing to bet on: a measure has at least one column")
        if not 0 <= bias < 0.5:
            raise DyetraceError(f"the bias that is allowed for must lie in [0, 1/2) (got {bias})")
        score = None if combination is None else np.asarray(combination, dtype=np.float64)
        if score is not None and not (score.shape == (columns,) and np.all(np.abs(score) <= MOST_DIFFERENCE)):
            raise DyetraceError(f"a combination of {columns} columns needs one finite weight for each")
        self._experts = Experts(columns, covariates, score)
        self._bias = bias
        learners, size = len(LEARNERS), columns + covariates
        shares = np.full(learners, LEARNERS_WEIGHT / learners)
        first = np.concatenate([[IDLE_WEIGHT], shares, self._experts.weights])
        self._wealth = np.tile(first, (rows, 1))
        self._exponents = np.zeros(rows, dtype=np.int64)
        self._means = np.zeros((rows, learners, size))
        self._spreads = np.zeros((rows, learners, size, size))
        for i, (sd, mean) in enumerate(LEARNERS):
            self._means[:, i, :columns] = mean / columns
            self._spreads[:, i] = np.eye(size) * sd**2
        self._start = np.zeros((rows, 1))
        idle = np.zeros((1, len(first) - 1 - learners))
        self._play(idle, np.zeros((1, size)), np.array([True]), np.ones((rows, 1), dtype=np.int8), self._start)

    def play(self, x: F64, z: F64, signs: I8) -> F64:
        """Bet on further pairs: x (n, columns), z (n, covariates), signs (rows, n); log10 e-values, (rows, n)."""
        for name, values, width in (
            ("difference", x, self._experts.columns),
            ("covariate", z, self._experts.covariates),
        ):
            if values.shape[1:] != (width,):
                raise DyetraceError(f"each pair needs {width} {name}s (got numbers of shape {values.shape[1:]})")
            if not np.all(np.abs(values) <= MOST_DIFFERENCE):
                raise DyetraceError(f"a pair's {name}s must be finite numbers")
        opinions = [self._experts.hear(a, b) for a, b in zip(x, z, strict=True)]
        totals = np.empty(signs.shape)
        self._play(
            np.array([opinion.leanings for opinion in opinions]),
            np.array([opinion.features for opinion in opinions]),
            np.array([opinion.silent for opinion in opinions]),
            signs,
            totals,
        )
        return totals - self._start

    def _play(self, leanings: F64, features: F64, silent: npt.NDArray[np.bool_], signs: I8, totals: F64) -> None:
        plus, minus = _factors(leanings, self._bias)
        state = self._wealth, self._exponents, self._means, self._spreads
        _bet(*state, plus, minus, features, silent, signs, self._bias, totals)


def _factors(leanings: F64, bias: float) -> tuple[F64, F64]:
    """Of bets with P(+1) = 1/2 + leaning, where the first side was served and where the second was: P(s) / Q(s)."""
    nearest = np.clip(leanings, -bias, bias)
    return (0.5 + leanings) / (0.5 + nearest), (0.5 - leanings) / (0.5 - nearest)


@jit()
def _bet(
    wealth: F64,
    exponents: npt.NDArray[np.int64],
    means: F64,
    spreads: F64,
    plus: F64,
    minus: F64,
    features: F64,
    silent: npt.NDArray[np.bool_],
    signs: I8,
    bias: float,
    totals: F64,
) -> None:
    """Multiply each expert's wealth by its factors and fill ``totals`` (rows, n) with log10 of the sums.

    The wealth of row r is ``wealth[r]`` times 2^``exponents[r]``: of who never bets, then of the learners, then of all
    others. A learner is a Gaussian of coefficients, updated by logistic regression's extended Kalman filter; its
    chance averages over them (MacKay, "The evidence framework applied to classification networks", 1992, eq. 10).
    """
    learners, size = means.shape[1], means.shape[2]
    turned = np.empty(size)
    for r in range(len(wealth)):
        own = wealth[r]
        for i in range(plus.shape[0]):
            if not silent[i]:
                sign = signs[r, i]
                for k in range(learners if bias == 0 else 0):
                    mean, spread = means[r, k], spreads[r, k]
                    along, variance = 0.0, 0.0
                    for a in range(size):
                        along += mean[a] * features[i, a]
                        turned[a] = 0.0
                        for b in range(size):
                            turned[a] += spread[a, b] * features[i, b]
                        variance += features[i, a] * turned[a]
                    averaged = sign * along / math.sqrt(1 + math.pi / 8 * variance)
                    chance = 0.5 + _SUREST_LEARNT * (1 / (1 + math.exp(-averaged)) - 0.5)
                    own[1 + k] *= 2 * chance
                    surprise = 1 / (1 + math.exp(sign * along))
                    curvature = surprise * (1 - surprise)
                    gain = 1 / (1 + curvature * variance)
                    for a in range(size):
                        mean[a] += sign * surprise * gain * turned[a]
                        for b in range(size):
                            spread[a, b] -= curvature * gain * (turned[a] * turned[b])
                factors = plus[i] if sign > 0 else minus[i]
                for j in range(len(factors)):
                    own[1 + learners + j] *= factors[j]
            total = _sum(own)
            if total > 2.0**_BITS:
                for j in range(len(own)):
                    own[j] *= 2.0**-_BITS
                total *= 2.0**-_BITS
                exponents[r] += _BITS
            totals[r, i] = math.log10(total) + exponents[r] * math.log10(2.0)


@jit()
def _sum(values: F64) -> float:
    """In four parts, so that no addition waits for the one before."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    whole = len(values) // 4 * 4
    for j in range(0, whole, 4):
        a += values[j]
        b += values[j + 1]
        c += values[j + 2]
        d += values[j + 3]
    for j in range(whole, len(values)):
        a += values[j]
    return (a + b) + (c + d)
