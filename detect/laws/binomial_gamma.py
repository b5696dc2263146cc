"""Exact upper tails of the binomial and the gamma law, compiled: Loader's largest term times the series after it [1]_.

All terms are positive, so nothing cancels, and the loop ends where they no longer matter: below a microsecond for
hundreds of draws. `detect.laws.tails` is the public side of this.

References
----------
.. [1] C. Loader, "Fast and accurate computation of binomial probabilities", 2000.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from watermark.backends.numba_backend import jit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROUNDING = 64 * 2.0**-52
"""Of log p, times 1 + the square root of the draws: by so much results are rounded towards 0."""
_NEGLIGIBLE = 2.0**-80  # terms of the series that can't matter: sqrt(n) of them would add less than one bit
_NEXT_TO_NOTHING = 1e-280  # nats: Gamma(n, 1) is at least this but for a chance of 1e-280, and ratios would overflow
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_STIRLING_TABLE = np.array(
    [0.0] + [math.lgamma(k + 1) - (k + 0.5) * math.log(k) + k - _LOG_SQRT_2PI for k in range(1, 16)]
)
_STIRLING_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


@jit()
def binomial_pairs(ns: Ints, gamma: float, totals: Ints) -> Floats:
    """Log10 P(Binomial(n, gamma) >= total) of each pair, shape (m,)."""
    out = np.empty(len(ns))
    for i in range(len(ns)):
        out[i] = in_log10(log_binomial_sf(ns[i], gamma, totals[i]), ns[i])
    return out


@jit()
def gamma_pairs(ns: Ints, totals: Floats) -> Floats:
    """Log10 P(Gamma(n, 1) >= total) of each pair, shape (m,)."""
    out = np.empty(len(ns))
    for i in range(len(ns)):
        out[i] = in_log10(log_gamma_sf(ns[i], totals[i]), ns[i])
    return out


@jit()
def in_log10(log_p: float, n: int) -> float:
    """Nats to log10, towards 0 by more than the arithmetic's error."""
    return min(log_p * (1 - ROUNDING * (1 + math.sqrt(n))) / math.log(10), 0.0) + 0.0


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
    if x < _NEXT_TO_NOTHING:
        return 0.0
    series, term = 1.0, 1.0
    if x > n:
        left, step = float(n - 1), 1 / x
        while left > 0 and term > _NEGLIGIBLE * series:
            term *= left * step
            left -= 1
            series += term
        log_p: float = log_poisson_pmf(n - 1, x) + math.log(series)
        return log_p
    count = float(n)
    while term > _NEGLIGIBLE * series:
        count += 1
        term *= x / count
        series += term
    log_p = _log_of_complement(log_poisson_pmf(n, x) + math.log(series))
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
        - deviance(float(k), n * hit) - deviance(float(n - k), n * miss)
        + 0.5 * math.log(n / (2 * math.pi * float(k) * float(n - k)))
    )  # fmt: skip
    return log_pmf


@jit()
def log_poisson_pmf(k: int, mean: float) -> float:
    """Log P(Poisson(mean) = k) in nats."""
    if k == 0:
        return -mean
    log_pmf: float = -stirling_error(k) - deviance(float(k), mean) - 0.5 * math.log(2 * math.pi * k)
    return log_pmf


@jit()
def deviance(x: float, mean: float) -> float:
    """Loader's D0: x log(x / mean) + mean - x, without cancellation as x nears the mean."""
    delta = (x - mean) / mean
    return mean * ((1 + delta) * math.log1p(delta) - delta)


@jit()
def stirling_error(k: int) -> float:
    """Loader's delta for k >= 1: log k! less Stirling's formula (series: DLMF 5.11.1)."""
    if k < len(_STIRLING_TABLE):
        exact: float = _STIRLING_TABLE[k]
        return exact
    square, series = 1 / (float(k) * float(k)), 0.0
    for coefficient in _STIRLING_SERIES[::-1]:
        series = series * square + coefficient
    return series / k
