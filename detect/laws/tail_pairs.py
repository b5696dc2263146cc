"""Exact upper tails for many (n, total) pairs at once, as log10 p: a corpus has one pair per document and sub-key.

`detect.laws.tails` shares the work among totals of one n; here every pair may have its own. The formulas, the rounding
towards larger p and the range (log10 p of -1e6 is ordinary) are the same.

* ``Bernoulli`` and ``Exponential``: compiled loops with an early exit, below a microsecond for hundreds of draws.
* ``WeightedBits`` and ``Lattice``: pairs of similar n and size share a tilt and the frequencies that matter, see
  `detect.laws.lattice_pairs`: below a microsecond. The few pairs that it hands back (more than 1e6 draws, very uneven
  laws) go one n at a time.
* ``Hypoexponential``: some 30 microseconds, see `detect.laws.hypoexponential`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detect.laws.lattice import LatticeSum
from detect.laws.lattice_pairs import LatticePairs
from detect.laws.tails import NEXT_TO_NOTHING, STIRLING_SERIES, STIRLING_TABLE, check_law, finite_nats, whole_numbers
from watermark.backends.numba_backend import jit
from watermark.laws import Bernoulli, Exponential, Hypoexponential, Lattice, Law, WeightedBits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROUNDING = 64 * 2.0**-52  # of log p, times the square root of the draws: as in `detect.laws.tails`
_NEGLIGIBLE = 2.0**-80  # terms of the series that can't matter: sqrt(n) of them would add less than one bit
_KEPT_SUMS = 1024
_KEPT_LAWS = 4
_MOST_DRAWS = 2**53  # beyond, a float can't hold n


def log10_sf_pairs(law: Law, ns: ArrayLike, totals: ArrayLike) -> Floats:
    """Log10 of P(S_n >= total), elementwise, for S_n the sum of n independent draws of ``law``.

    Parameters
    ----------
    law
        The law of one draw.
    ns
        Integers of at least 0; any shape that broadcasts with ``totals``.
    totals
        The observed sums: integers for lattice laws, nats for ``Exponential`` and ``Hypoexponential``.

    Returns
    -------
    array
        float64 in the broadcast shape. At most 0; 0 where the sum can't be smaller, ``-inf`` where it can't be so
        large. Never below the true value.

    Raises
    ------
    ValueError
        If an n is negative or no integer, the law is no law, or a total is not a number its draws could sum to.

    References
    ----------
    C. Loader, "Fast and accurate computation of binomial probabilities", 2000; for lattices see
    `detect.laws.lattice_pairs` and `detect.laws.lattice`.
    """
    check_law(law)
    draws = whole_numbers(ns)
    if draws.size and not (0 <= draws.min() and draws.max() < _MOST_DRAWS):
        raise ValueError(f"ns must lie in 0 .. 2^53, got {draws.min()} .. {draws.max()}")
    if isinstance(law, Exponential):
        n, x = np.broadcast_arrays(draws, finite_nats(totals))
        return np.asarray(gamma_pairs(n.ravel(), x.ravel())).reshape(n.shape)
    if isinstance(law, Hypoexponential):
        from detect.laws.hypoexponential import hypoexponential_pairs  # which builds on this module

        n, x = np.broadcast_arrays(draws, finite_nats(totals))
        return np.asarray(hypoexponential_pairs(n.ravel(), *law.weights, x.ravel())).reshape(n.shape)
    n, k = np.broadcast_arrays(draws, whole_numbers(totals))
    if isinstance(law, Bernoulli):
        return np.asarray(binomial_pairs(n.ravel(), law.gamma, k.ravel())).reshape(n.shape)
    return _lattice_pairs(law, n.ravel(), k.ravel()).reshape(n.shape)


# --- lattices --------------------------------------------------------------------------------------------


def _lattice_pairs(law: WeightedBits | Lattice, ns: Ints, totals: Ints) -> Floats:
    log_p = _pairs_of(law).log_sf(ns, totals)
    rest = np.flatnonzero(np.isnan(log_p))
    log_p[rest] = _one_n_at_a_time(law, ns[rest], totals[rest])
    log10_p: Floats = log_p * (1 - _ROUNDING * (1 + np.sqrt(ns))) / math.log(10)
    return np.minimum(log10_p, 0.0) + 0.0  # + 0.0: never -0


def _one_n_at_a_time(law: WeightedBits | Lattice, ns: Ints, totals: Ints) -> Floats:
    log_p = np.empty(ns.size)
    order = np.lexsort((totals, ns))
    starts = np.flatnonzero(np.diff(ns[order], prepend=-1))
    for group in np.split(order, starts[1:]):
        if group.size:
            distinct, inverse = np.unique(totals[group], return_inverse=True)
            log_p[group] = _sum_of(law, int(ns[group[0]])).log_sf(distinct)[inverse]
    return log_p


@lru_cache(maxsize=_KEPT_LAWS)
def _pairs_of(law: WeightedBits | Lattice) -> LatticePairs:
    return LatticePairs(law)


@lru_cache(maxsize=_KEPT_SUMS)
def _sum_of(law: WeightedBits | Lattice, n: int) -> LatticeSum:
    return LatticeSum.of(law, np.array([1]), np.array([n]))


# --- Binomial and Gamma, compiled ------------------------------------------------------------------------


@jit()
def binomial_pairs(ns: Ints, gamma: float, totals: Ints) -> Floats:
    """Log10 P(Binomial(n, gamma) >= total) of each pair, shape (m,)."""
    out = np.empty(len(ns))
    for i in range(len(ns)):
        out[i] = _in_log10(log_binomial_sf(ns[i], gamma, totals[i]), ns[i])
    return out


@jit()
def gamma_pairs(ns: Ints, totals: Floats) -> Floats:
    """Log10 P(Gamma(n, 1) >= total) of each pair, shape (m,)."""
    out = np.empty(len(ns))
    for i in range(len(ns)):
        out[i] = _in_log10(log_gamma_sf(ns[i], totals[i]), ns[i])
    return out


@jit()
def _in_log10(log_p: float, n: int) -> float:
    """Nats to log10, towards 0 by more than the arithmetic's error."""
    return min(log_p * (1 - _ROUNDING * (1 + math.sqrt(n))) / math.log(10), 0.0) + 0.0


@jit()
def log_binomial_sf(n: int, gamma: float, k: int) -> float:
    """Log P(Binomial(n, gamma) >= k) in nats, not rounded."""
    if k <= 0:
        return 0.0
    if k > n:
        return -math.inf
    if k > n * gamma:
        log_p: float = _log_binomial_tail(n, gamma, 1 - gamma, k)
    else:  # fewer than k hits are more than n - k misses
        log_p = _log_of_complement(_log_binomial_tail(n, 1 - gamma, gamma, n - k + 1))
    return log_p


@jit()
def _log_binomial_tail(n: int, hit: float, miss: float, k: int) -> float:
    """Above the mean, where the probabilities fall from k on; hit + miss = 1."""
    series, term, odds = 1.0, 1.0, hit / miss
    hits, misses = float(k), float(n - k)
    while misses > 0 and term > _NEGLIGIBLE * series:
        hits += 1
        term *= misses / hits * odds
        misses -= 1
        series += term
    log_first: float = _log_binomial_pmf(n, hit, miss, k)
    return log_first + math.log(series)


@jit()
def log_gamma_sf(n: int, x: float) -> float:
    """Log P(Gamma(n, 1) >= x) = log P(Poisson(x) < n) in nats, not rounded."""
    if x <= 0:
        return 0.0
    if n == 0:
        return -math.inf
    if x < NEXT_TO_NOTHING:
        return 0.0
    series, term = 1.0, 1.0
    if x > n:
        left, step = float(n - 1), 1 / x
        while left > 0 and term > _NEGLIGIBLE * series:
            term *= left * step
            left -= 1
            series += term
        log_p: float = _log_poisson_pmf(n - 1, x) + math.log(series)
        return log_p
    count = float(n)
    while term > _NEGLIGIBLE * series:
        count += 1
        term *= x / count
        series += term
    log_p = _log_of_complement(_log_poisson_pmf(n, x) + math.log(series))
    return log_p


@jit()
def _log_of_complement(log_q: float) -> float:
    return math.log1p(-math.exp(log_q))


@jit()
def _log_binomial_pmf(n: int, hit: float, miss: float, k: int) -> float:
    """Loader's saddle-point form: differences of small terms, where log-gammas would cancel."""
    if k == n:
        # 1 - 1e-9 as a float has lost most of the 1e-9: ask the small one of the two.
        return n * (math.log(hit) if hit < miss else math.log1p(-miss))
    log_pmf: float = (
        stirling_error(n) - stirling_error(k) - stirling_error(n - k)
        - _deviance(float(k), n * hit) - _deviance(float(n - k), n * miss)
        + 0.5 * math.log(n / (2 * math.pi * float(k) * float(n - k)))
    )  # fmt: skip
    return log_pmf


@jit()
def _log_poisson_pmf(k: int, mean: float) -> float:
    if k == 0:
        return -mean
    log_pmf: float = -stirling_error(k) - _deviance(float(k), mean) - 0.5 * math.log(2 * math.pi * k)
    return log_pmf


@jit()
def _deviance(x: float, mean: float) -> float:
    """Loader's D0: x log(x / mean) + mean - x, without cancellation as x nears the mean."""
    delta = (x - mean) / mean
    return mean * ((1 + delta) * math.log1p(delta) - delta)


@jit()
def stirling_error(k: int) -> float:
    """Loader's delta for k >= 1: log k! less Stirling's formula (series: DLMF 5.11.1)."""
    if k < len(STIRLING_TABLE):
        exact: float = STIRLING_TABLE[k]
        return exact
    square, series = 1 / (float(k) * float(k)), 0.0
    for coefficient in STIRLING_SERIES[::-1]:
        series = series * square + coefficient
    return series / k
