"""Exact upper tails of sums of independent statistics, as log10 p: the one place for all null distributions.

Under the null hypothesis the statistics of distinct tuples are independent draws of a known law
(`watermark.laws`), so the tail of their sum is known too. It is computed in logs, far past the smallest float
(log10 p of -1e6 is ordinary), without a normal approximation and without mid-p. Each law has one route:

* ``Bernoulli`` and ``Exponential``: Loader's form of the largest probability in the tail [1]_ times the
  series of the ratios that follow it. All terms are positive, so nothing cancels.
* ``WeightedBits``, ``Lattice`` and integer-weighted sums: exponential tilting puts the total in the bulk,
  ``p = exp(K(theta) - theta t) * E_theta[exp(-theta (S - t)); S >= t]``, for any ``theta`` [2]_. The
  expectation is a plain convolution for short lattices, else a finite Fourier sum over the few frequencies
  that matter.
* ``Hypoexponential``: a negative-binomial mixture of gamma tails (`detect.laws.hypoexponential`).

The smaller of the two tails is the one computed; the other is its complement, so p near 1 is accurate too.
Every result is rounded towards 0 by a bound on the arithmetic's error: about 1e-13 of log10 p for a hundred
draws, 5e-10 for 1e9. A reported p is never below the true one.

References
----------
.. [1] C. Loader, "Fast and accurate computation of binomial probabilities", 2000.
.. [2] R. R. Bahadur and R. Ranga Rao, "On deviations of the sample mean", Ann. Math. Statist. 31, 1960.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detect.laws.lattice import LatticeSum
from watermark.laws import Bernoulli, Exponential, Hypoexponential, Lattice, Law, WeightedBits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_EPS = 2.0**-52
NEXT_TO_NOTHING = 1e-280
"""Nats: Gamma(n, 1) is at least this but for a chance of 1e-280, and ratios to smaller numbers would overflow."""
_BLOCK = 1 << 20  # elements of the largest temporary array


def log10_sf(law: Law, n: int, total: int | float) -> float:
    """Log10 of P(S >= total) for S the sum of ``n`` independent draws of ``law``.

    Parameters
    ----------
    law
        The law of one draw.
    n
        Number of draws, at least 0.
    total
        The observed sum: an integer for lattice laws, nats for ``Exponential`` and ``Hypoexponential``.

    Returns
    -------
    float
        At most 0; 0 where the sum can't be smaller, ``-inf`` where it can't be so large.

    Raises
    ------
    ValueError
        If ``n`` is negative, the law is no law, or the total is not a number its draws could sum to.
    """
    return float(log10_sf_many(law, n, np.asarray([total]))[0])


def log10_sf_many(law: Law, n: int, totals: ArrayLike) -> Floats:
    """`log10_sf` of many totals of the same ``n``, sharing the work: float64, in the shape of ``totals``."""
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    check_law(law)
    if isinstance(law, Exponential):
        return _for_distinct(finite_nats(totals), lambda x: _log_gamma_sf(n, x), draws=n)
    if isinstance(law, Hypoexponential):
        from detect.laws.hypoexponential import hypoexponential_pairs  # which builds on this module

        x = finite_nats(totals)
        return np.asarray(hypoexponential_pairs(np.full(x.size, n), *law.weights, x.ravel())).reshape(x.shape)
    if isinstance(law, Bernoulli):
        return _for_distinct(whole_numbers(totals), lambda k: _log_binomial_sf(n, law.gamma, k), draws=n)
    return _for_distinct(whole_numbers(totals), LatticeSum.of(law, np.array([1]), np.array([n])).log_sf, draws=n)


def log10_sf_weighted(law: Bernoulli | WeightedBits | Lattice, weights: ArrayLike, total: int) -> float:
    """Log10 of P(S >= total) for S = sum_j ``weights[j]`` X_j with independent draws X_j of ``law``.

    Parameters
    ----------
    law
        The law of one draw.
    weights
        Integers of shape (n,), of either sign and chosen without the key, such as the counts of n token types.
    total
        The observed weighted sum, an integer.

    Returns
    -------
    float
        As `log10_sf`.

    Raises
    ------
    ValueError
        If a weight is no integer, or the sum is spread over too many separate values.
    """
    return float(log10_sf_weighted_many(law, weights, np.asarray([total]))[0])


def log10_sf_weighted_many(law: Bernoulli | WeightedBits | Lattice, weights: ArrayLike, totals: ArrayLike) -> Floats:
    """`log10_sf_weighted` of many totals of the same weights: float64, in the shape of ``totals``."""
    check_law(law)
    distinct, counts = np.unique(whole_numbers(weights), return_counts=True)
    lattice_sum = LatticeSum.of(law, distinct, counts)
    return _for_distinct(whole_numbers(totals), lattice_sum.log_sf, draws=int(counts.sum()))


# --- input and output ------------------------------------------------------------------------------------


def check_law(law: Law) -> None:
    """Raise `ValueError` where ``law`` is no law."""
    match law:
        case Bernoulli(gamma) if not 0 < gamma < 1:
            raise ValueError(f"Bernoulli gamma must lie strictly between 0 and 1, got {gamma}")
        case Hypoexponential(weights) if len(weights) != 2 or not min(weights) > 0:
            raise ValueError(f"Hypoexponential weights must be two positive numbers of nats, got {weights}")
        case WeightedBits(weights) if not weights or any(w < 1 or w % 1 for w in weights):
            raise ValueError(f"WeightedBits weights must be one or more positive integers, got {weights}")
        case Lattice(values) if any(v % 1 for v in values):
            raise ValueError(f"Lattice values must be integers, got {values}")
        case Lattice(values, probabilities):
            total = math.fsum(probabilities)
            proper = abs(total - 1) <= 1e-9 and min(probabilities) >= 0
            if len(values) != len(probabilities) or not proper:
                raise ValueError(
                    "Lattice needs one probability for each value, none negative, summing to 1; got "
                    f"{len(values)} values and {len(probabilities)} probabilities that sum to {total}"
                )


def whole_numbers(values: ArrayLike) -> Ints:
    """Return ``values`` as int64; `ValueError` if one is no integer."""
    array = np.asarray(values)
    if array.size and not np.all(np.mod(array, 1) == 0):  # false for NaN and infinities as well
        raise ValueError(f"totals and weights of a lattice law must be integers, got {array}")
    return array.astype(np.int64)


def finite_nats(values: ArrayLike) -> Floats:
    """Return ``values`` as float64; `ValueError` if one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"totals must be finite numbers of nats, got {array}")
    return array


def _for_distinct(totals: NDArray[Any], log_sf: Callable[[NDArray[Any]], Floats], *, draws: int) -> Floats:
    """Evaluate each distinct total once, ascending; turn nats into log10 and round up."""
    distinct, inverse = np.unique(totals, return_inverse=True)
    blocks = np.array_split(distinct, 1 + distinct.size // 4096)
    log_p = np.concatenate([log_sf(block) for block in blocks])
    # The error relative to log p grows as the square root of the draws, to a fraction of this.
    log10_p = log_p * (1 - 64 * _EPS * (1 + math.sqrt(draws))) / math.log(10)
    return (np.minimum(log10_p, 0.0) + 0.0)[inverse].reshape(np.shape(totals))  # + 0.0: never -0


def _log_of_complement(log_q: Floats) -> Floats:
    return np.log1p(-np.exp(log_q))


# --- Binomial and Gamma: leading term times series of ratios ---------------------------------------------


def _log_binomial_sf(n: int, gamma: float, k: Ints) -> Floats:
    """Log P(Binomial(n, gamma) >= k), k of shape (m,)."""
    result = np.where(k <= 0, 0.0, -np.inf)
    above = (k > n * gamma) & (k > 0) & (k <= n)
    below = (k <= n * gamma) & (k > 0)
    result[above] = _log_binomial_tail(n, gamma, 1 - gamma, k[above])
    # Fewer than k hits are more than n - k misses.
    result[below] = _log_of_complement(_log_binomial_tail(n, 1 - gamma, gamma, n - k[below] + 1))
    return result


def _log_binomial_tail(n: int, hit: float, miss: float, k: Ints) -> Floats:
    """Log P(Binomial(n, hit) >= k) above the mean, where the probabilities fall from k on; hit + miss = 1."""
    hits = k.astype(np.float64)
    left, following = (n - hits)[:, None], (hits + 1)[:, None]
    series = _series_of_ratios(lambda j: np.maximum(left - j, 0.0) / (following + j) * (hit / miss), rows=k.size)
    return _log_binomial_pmf(n, hit, miss, hits) + np.log(series)


def _log_gamma_sf(n: int, x: Floats) -> Floats:
    """Log P(Gamma(n, 1) >= x) = log P(Poisson(x) < n), x of shape (m,) in nats."""
    result = np.where(x <= 0, 0.0, -np.inf)
    if n == 0:
        return result
    result[x < NEXT_TO_NOTHING] = 0.0
    above, below = x > n, (x >= NEXT_TO_NOTHING) & (x <= n)
    far, near = x[above], x[below]
    falling = _series_of_ratios(lambda j: np.maximum(n - 1 - j, 0.0) / far[:, None], rows=far.size)
    result[above] = _log_poisson_pmf(n - 1, far) + np.log(falling)
    rising = _series_of_ratios(lambda j: near[:, None] / (n + 1 + j), rows=near.size)
    result[below] = _log_of_complement(_log_poisson_pmf(n, near) + np.log(rising))
    return result


def _series_of_ratios(ratio: Callable[[Floats], Floats], *, rows: int) -> Floats:
    """1 + r(0) + r(0) r(1) + ..., with ``ratio`` from j of shape (1, w) to (rows, w), falling in j."""
    total, term, start = np.ones(rows), np.ones(rows), 0
    width = 64
    while np.any(term > _EPS * _EPS * total):
        terms = term[:, None] * np.cumprod(ratio(np.arange(start, start + width, dtype=np.float64)[None]), axis=1)
        total += terms.sum(axis=1)
        term, start = terms[:, -1], start + width
        width = max(64, min(2 * width, _BLOCK // rows))
    return total


def _log_binomial_pmf(n: int, hit: float, miss: float, k: Floats) -> Floats:
    """Loader's saddle-point form: differences of small terms, where log-gammas of 1e10 would cancel."""
    misses = n - k
    with np.errstate(divide="ignore"):  # k = n has no inner form
        inner = (
            _stirling_error(np.float64(n)) - _stirling_error(k) - _stirling_error(misses)
            - _deviance(k, n * hit) - _deviance(misses, n * miss)
            + 0.5 * np.log(n / (2 * math.pi * k * misses))
        )  # fmt: skip
    # 1 - 1e-9 as a float has lost most of the 1e-9: ask the small one of the two.
    log_hit = math.log(hit) if hit < miss else math.log1p(-miss)
    return np.where(misses == 0, n * log_hit, inner)


def _log_poisson_pmf(k: int, mean: Floats) -> Floats:
    if k == 0:
        return -mean
    count = np.float64(k)
    log_pmf: Floats = -_stirling_error(count) - _deviance(count, mean) - 0.5 * np.log(2 * math.pi * count)
    return log_pmf


def _deviance(x: Floats | np.float64, mean: Floats | float) -> Floats:
    """Loader's D0: x log(x / mean) + mean - x, without cancellation as x nears the mean."""
    delta = np.asarray((x - mean) / mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 0, mean, mean * ((1 + delta) * np.log1p(delta) - delta))


_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
STIRLING_TABLE = np.array(
    [0.0] + [math.lgamma(k + 1) - (k + 0.5) * math.log(k) + k - _LOG_SQRT_2PI for k in range(1, 16)]
)
STIRLING_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


def _stirling_error(k: Floats | np.float64) -> Floats:
    """Loader's delta: log k! less Stirling's formula (series: DLMF 5.11.1). Its value at 0 is never used."""
    table = STIRLING_TABLE[np.minimum(k, 15).astype(np.int64)]
    large = np.maximum(k, 16.0)
    series: Floats = np.polynomial.polynomial.polyval(1 / large**2, STIRLING_SERIES) / large
    return np.where(k > 15, series, table)
