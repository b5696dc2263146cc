"""Exact upper tails of sums of independent statistics, as log10 p: the one place for all null distributions.

Under the null hypothesis the statistics of distinct tuples are independent draws of a known law
(`watermark.laws`), so the tail of their sum is known too. It is computed in logs, far past the smallest float
(log10 p of -1e6 is ordinary), without a normal approximation and without mid-p. Each law has one route:

* ``Bernoulli`` and ``Exponential``: Loader's form of the largest probability in the tail times the series that
  follows it, compiled (`detect.laws.binomial_gamma`).
* ``WeightedBits``, ``Lattice`` and integer-weighted sums: exponential tilting puts the total in the bulk,
  ``p = exp(K(theta) - theta t) * E_theta[exp(-theta (S - t)); S >= t]``, for any ``theta`` [1]_. The
  expectation is a plain convolution for short lattices, else a finite Fourier sum over the few frequencies
  that matter (`detect.laws.lattice`). Of many (n, total) pairs, as a corpus has one for each document and sub-key,
  those of similar n and size share a tilt and its frequencies (`detect.laws.lattice_pairs`: below a microsecond); the
  few that it hands back, of more than 1e6 draws or very uneven laws, go one n at a time.
* ``Hypoexponential``: a negative-binomial mixture of gamma tails, some 30 microseconds
  (`detect.laws.hypoexponential`).

The smaller of the two tails is the one computed; the other is its complement, so p near 1 is accurate too.
Every result is rounded towards 0 by a bound on the arithmetic's error: about 1e-13 of log10 p for a hundred
draws, 5e-10 for 1e9. A reported p is never below the true one.

References
----------
.. [1] R. R. Bahadur and R. Ranga Rao, "On deviations of the sample mean", Ann. Math. Statist. 31, 1960.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detect.laws.binomial_gamma import ROUNDING, binomial_pairs, gamma_pairs
from detect.laws.hypoexponential import hypoexponential_pairs
from detect.laws.lattice import LatticeSum
from detect.laws.lattice_pairs import LatticePairs
from watermark.laws import Bernoulli, Exponential, Hypoexponential, Lattice, Law, WeightedBits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_KEPT_SUMS = 1024
_KEPT_LAWS = 4
_MOST_DRAWS = 2**53  # beyond, a float can't hold n


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
    if isinstance(law, WeightedBits | Lattice):
        return _for_distinct(whole_numbers(totals), LatticeSum.of(law, np.array([1]), np.array([n])).log_sf, draws=n)
    return log10_sf_pairs(law, np.full(np.shape(totals), n), totals)


def log10_sf_weighted_many(law: Bernoulli | WeightedBits | Lattice, weights: ArrayLike, totals: ArrayLike) -> Floats:
    """Log10 of P(S >= total), for each total, for S = sum_j ``weights[j]`` X_j with independent draws X_j of ``law``.

    Parameters
    ----------
    law
        The law of one draw.
    weights
        Integers of shape (n,), of either sign and chosen without the key, such as the counts of n token types.
    totals
        The observed weighted sums, integers.

    Returns
    -------
    array
        float64 in the shape of ``totals``; as `log10_sf`.

    Raises
    ------
    ValueError
        If a weight is no integer, or the sum is spread over too many separate values.
    """
    check_law(law)
    distinct, counts = np.unique(whole_numbers(weights), return_counts=True)
    lattice_sum = LatticeSum.of(law, distinct, counts)
    return _for_distinct(whole_numbers(totals), lattice_sum.log_sf, draws=int(counts.sum()))


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
    """
    check_law(law)
    draws = whole_numbers(ns)
    if draws.size and not (0 <= draws.min() and draws.max() < _MOST_DRAWS):
        raise ValueError(f"ns must lie in 0 .. 2^53, got {draws.min()} .. {draws.max()}")
    if isinstance(law, Exponential):
        n, x = np.broadcast_arrays(draws, finite_nats(totals))
        return np.asarray(gamma_pairs(n.ravel(), x.ravel())).reshape(n.shape)
    if isinstance(law, Hypoexponential):
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
    log10_p: Floats = log_p * (1 - ROUNDING * (1 + np.sqrt(ns))) / math.log(10)
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
    log10_p = log_p * (1 - ROUNDING * (1 + math.sqrt(draws))) / math.log(10)
    return (np.minimum(log10_p, 0.0) + 0.0)[inverse].reshape(np.shape(totals))  # + 0.0: never -0
