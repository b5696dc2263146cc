"""Exact upper tails of weighted sums of two gamma variables: the total of n choices that two keys may have made.

T = a G + b G' with independent G, G' ~ Gamma(n, 1), 0 < a <= b. The longer exponential is a geometric number of shorter
ones: b G' has the law of a Gamma(n + K, 1), K negative binomial with success a / b [1]_. So

    P(T >= x) = sum_k P(K = k) P(Gamma(2 n + k, 1) >= x / a)

All terms are positive and log-concave in k: they rise to one mode and fall, so the sum is taken over a window around it
and what is left out is below 1e-20 of it. Nothing cancels, at any distance from the mean.

References
----------
.. [1] P. G. Moschopoulos, "The distribution of the sum of independent gamma random variables", Ann. Inst. Statist.
   Math. 37, 1985 (the same mixture for any number of them).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detect.laws.binomial_gamma import ROUNDING, deviance, log_gamma_sf, log_poisson_pmf, stirling_error
from watermark.backends.numba_backend import jit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_WINDOW = 60.0  # nats below the largest term at which a window ends
_NEAR_ONE = 1e-12  # absolute error of a p that is no tail


@jit()
def hypoexponential_pairs(ns: Ints, first: float, second: float, totals: Floats) -> Floats:
    """Log10 P(first Gamma(n, 1) + second Gamma(n, 1) >= total) of each pair, rounded up, shape (m,)."""
    out = np.empty(len(ns))
    for i in range(len(ns)):
        log_p = log_hypoexponential_sf(ns[i], min(first, second), max(first, second), totals[i])
        rounded = log_p * (1 - ROUNDING * (1 + math.sqrt(ns[i]))) + _NEAR_ONE
        out[i] = min(rounded / math.log(10), 0.0) + 0.0
    return out


@jit()
def log_hypoexponential_sf(n: int, short: float, long: float, x: float) -> float:
    """Log P(short Gamma(n, 1) + long Gamma(n, 1) >= x) in nats, not rounded; short <= long."""
    if x <= 0:
        return 0.0
    if n == 0:
        return -math.inf
    y, success = x / short, short / long
    if success == 1:
        same: float = log_gamma_sf(2 * n, y)
        return same
    mode = _mode(n, success, y)
    top = _log_term(n, success, y, mode)
    start = _window_start(n, success, y, mode, top)
    # From term k to k + 1 the tail Q(m) of Gamma(m), m = 2 n + k, grows by the Poisson probability of m: in ratios.
    k = start
    log_first = _log_term(n, success, y, start)
    log_tail: float = log_gamma_sf(2 * n + start, y)
    growth = math.exp(log_poisson_pmf(2 * n + start, y) - log_tail)
    term, total = math.exp(log_first - top), math.exp(log_first - top)
    while k <= mode or term > 1e-24 * total:
        term *= (n + k) / (k + 1.0) * (1 - success) * (1 + growth)
        growth *= y / (2.0 * n + k + 1) / (1 + growth)
        total += term
        k += 1
    log_p: float = min(0.0, top + math.log(total))
    return log_p


@jit()
def _log_term(n: int, success: float, y: float, k: int) -> float:
    """Log of P(K = k) P(Gamma(2 n + k) >= y)."""
    tail: float = log_gamma_sf(2 * n + k, y)
    log_term: float = _log_negative_binomial(n, success, k) + tail
    return log_term


@jit()
def _log_negative_binomial(n: int, success: float, k: int) -> float:
    """Log P(k failures before n successes): n / (n + k) times the binomial probability of n in n + k."""
    if k == 0:
        least: float = n * math.log(success)
        return least
    trials = n + k
    log_pmf: float = (
        stirling_error(trials) - stirling_error(n) - stirling_error(k)
        - deviance(float(n), trials * success) - deviance(float(k), trials * (1 - success))
        + 0.5 * math.log(trials / (2 * math.pi * float(n) * float(k))) + math.log(n / float(trials))
    )  # fmt: skip
    return log_pmf


@jit()
def _mode(n: int, success: float, y: float) -> int:
    """The largest term's place: where the ratio of neighbours falls through 1."""
    low, high = -1, int(max(n / success, y)) + 2  # beyond both, terms fall
    while high - low > 1:
        middle = (low + high) // 2
        if _log_term(n, success, y, middle + 1) > _log_term(n, success, y, middle):
            low = middle
        else:
            high = middle
    return high


@jit()
def _window_start(n: int, success: float, y: float, mode: int, top: float) -> int:
    """The first place from which terms are worth counting."""
    low, high = -1, mode
    while high - low > 1:
        middle = (low + high) // 2
        if _log_term(n, success, y, middle) < top - _WINDOW:
            low = middle
        else:
            high = middle
    return high
