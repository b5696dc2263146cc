"""Is any document marked? One exact test from the smallest document p-values, with power when few documents are marked.

The i-th smallest of D independent uniform p-values is itself tested: P_i = P(U_(i) <= p_(i)), a binomial tail. Berk and
Jones [1]_ take the most extreme of these ranks; here each is first divided by its weight 1/i, for ranks near each other
tell the same, so that one strong document costs a factor of 6 and not of 300. The statistic's null is no limit law but
a recursion over the uniform order statistics with positive terms only [2]_, so p is exact at any number of documents.

Only the smallest `KEPT` p-values are looked at: shards of a corpus merge by keeping the smallest of both.

References
----------
.. [1] R. H. Berk and D. H. Jones, "Goodness-of-fit test statistics that dominate the Kolmogorov statistics",
   Z. Wahrscheinlichkeitstheorie verw. Gebiete 47, 1979.
.. [2] M. Noé, "The calculation of distributions of two-sided Kolmogorov-Smirnov type statistics", Ann. Math. Statist.
   43, 1972; A. Moscovich and B. Nadler, "Fast calculation of boundary crossing probabilities for Poisson processes",
   Statist. Probab. Lett. 123, 2017 (the same recursion).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detect.laws.binomial_gamma import log_binomial_sf
from watermark.backends.numba_backend import jit

Floats = NDArray[np.float64]

KEPT = 300
"""How many of the smallest p-values are used. The recursion's time grows with the cube: 5 ms."""

_LEAST_EXACT = (
    -230.0
)  # nats, 1e-100: below, the union over ranks is as good as exact, and the recursion might underflow
_ALL_BUT_CERTAIN = math.log(0.9)
_MAY_UNDERFLOW = -600.0  # nats
_MORE = 64  # counts beyond the boundary that are summed; the chance of more at once is below 1e-60
_ROUNDING = 1e-9  # relative; the arithmetic's error is below 1e-10


def log10_pvalue(smallest_log10_ps: ArrayLike, documents: int) -> float:
    """Log10 p that no document is marked, from independent p-values that are uniform or larger under the null.

    Parameters
    ----------
    smallest_log10_ps
        The smallest of the documents' log10 p-values, ascending: at least min(`KEPT`, ``documents``) of them; those
        beyond are ignored, so that padding with 0 does no harm.
    documents
        How many p-values there are in all.

    Returns
    -------
    float
        At most 0. Exact where above 1e-100, below that above the truth by a factor of less than 1.1. A single p-value
        far below the others gives about 6 times ``documents`` times itself.

    Raises
    ------
    ValueError
        If there are fewer p-values than needed, or they don't ascend, are above 1 or NaN.
    """
    ranks = min(KEPT, documents)
    log10_ps = np.asarray(smallest_log10_ps, dtype=np.float64)
    if len(log10_ps) < ranks:
        raise ValueError(f"the {ranks} smallest of {documents} p-values are needed, got {len(log10_ps)}")
    log10_ps = log10_ps[:ranks]
    if not (np.all(log10_ps <= 0) and np.all(log10_ps[1:] >= log10_ps[:-1])):  # false for NaN as well
        raise ValueError(f"log10 p-values must be at most 0 and ascend, got {log10_ps}")
    if ranks == 0:
        return 0.0
    log_weights = -np.log(np.arange(1, ranks + 1))
    level = float(np.min(log_rank_pvalues(log10_ps * math.log(10), documents) - log_weights))
    if level >= _ALL_BUT_CERTAIN:
        return 0.0
    union = level + math.log(np.exp(log_weights).sum())
    if level >= _LEAST_EXACT:
        exact = math.log(crossing_probability(rank_quantiles(level + log_weights, documents), documents))
        union = min(union, exact)
    return min(0.0, (union + _ROUNDING) / math.log(10))


@jit()
def log_rank_pvalues(log_ps: Floats, documents: int) -> Floats:
    """Log P(U_(i) <= p_i) = log P(Binomial(documents, p_i) >= i) in nats, for log p_i in nats, i = 1 .. k."""
    out, log_choose = np.empty(len(log_ps)), 0.0
    for i in range(len(log_ps)):
        log_choose += math.log((documents - i) / (i + 1))
        if log_ps[i] < _MAY_UNDERFLOW:  # the union bound over which documents they are
            log_p = log_choose + (i + 1) * log_ps[i]
        else:
            p = math.exp(log_ps[i])
            log_p = log_binomial_sf(documents, p, i + 1) if p < 1 else 0.0
        out[i] = min(log_p, 0.0)
    return out


@jit()
def rank_quantiles(log_levels: Floats, documents: int) -> Floats:
    """The b_i at which P(U_(i) <= b_i) = exp(log_levels[i - 1]), rounded up; Newton's method on the logs of both.

    Log P is concave in log b, and the start, where the union bound reaches the level, is too low: steps only go up.
    """
    out, log_choose = np.empty(len(log_levels)), 0.0
    for i in range(len(log_levels)):
        rank = i + 1
        log_choose += math.log((documents - i) / rank)
        log_b = min((log_levels[i] - log_choose) / rank, log_levels[i] / documents)
        for _ in range(100):
            b = math.exp(log_b)
            if b >= 1:
                break
            log_p = log_binomial_sf(documents, b, rank)
            log_pmf = log_choose + rank * log_b + (documents - rank) * math.log1p(-b)
            step = (log_levels[i] - log_p) / (rank * math.exp(log_pmf - log_p))  # d P / d log b = rank * pmf
            log_b = min(log_b + step, 0.0)
            if abs(step) < 1e-13:
                break
        out[i] = min(1.0, math.exp(log_b) * (1 + 1e-11))
    return out


@jit(fastmath={"reassoc", "contract"})  # sums of positive terms: their order is free
def crossing_probability(bounds: Floats, documents: int) -> float:
    """P(U_(i) <= b_i for some i) for the order statistics of ``documents`` uniforms, bounds (k,) ascending.

    N(b_i) < i means that rank i is not crossed. While no rank is, P(N(b_i) = s) =
    D! / ((D - s)! D^s) * (1 - b_i)^(D - s) * q_i(s), with q_i(s) = sum_m q_{i-1}(m) (D (b_i - b_{i-1}))^(s-m) / (s-m)!.
    The counts s >= i are the crossings at rank i, and their sum over i is what is asked: no term is negative.
    """
    size = len(bounds) + _MORE
    log_falling = np.zeros(size + 1)
    for s in range(size):
        log_falling[s + 1] = log_falling[s] + math.log((documents - s) / documents) if s < documents else -math.inf
    weights, jumps, crossed, before = np.zeros(size + 1), np.ones(size + 1), 0.0, 0.0
    weights[0] = 1.0
    for i in range(1, len(bounds) + 1):
        bound = max(bounds[i - 1], before)
        for d in range(1, size + 1):
            jumps[d] = jumps[d - 1] * (documents * (bound - before)) / d
        log_outside = math.log1p(-bound) if bound < 1 else -math.inf
        for s in range(i, min(size, documents) + 1):
            mass = 0.0
            for m in range(max(i - 1, 1)):
                mass += weights[m] * jumps[s - m]
            outside = (documents - s) * log_outside if s < documents else 0.0
            mass *= math.exp(log_falling[s] + outside)
            crossed += mass
            if mass < 1e-17 * crossed:
                break
        for s in range(i - 1, -1, -1):  # downwards, in place: s needs the old weights up to s
            mass = 0.0
            for m in range(min(s, max(i - 2, 0)) + 1):
                mass += weights[m] * jumps[s - m]
            weights[s] = mass
        before = bound
    return crossed
