"""Corrections for looking more than once, on log10 p-values and log10 e-values of any size.

Sub-keys, tenants, epochs, segments and documents are all looks. P-values are given and returned as log10 p,
at most 0; ``-inf`` stands for p = 0.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from watermark.backends.numba_backend import jit

Floats = NDArray[np.float64]


def sidak_log10(log10_p: ArrayLike) -> float:
    """Log10 p of the smallest of k independent p-values: 1 - (1 - min p)^k (Šidák 1967).

    Parameters
    ----------
    log10_p
        Shape (k,), k >= 1. The p-values must be independent; they may be larger than uniform.

    Raises
    ------
    ValueError
        If there is no p-value, or one is NaN or above 1.

    References
    ----------
    Z. Šidák, "Rectangular confidence regions for the means of multivariate normal distributions", J. Amer.
    Statist. Assoc. 62, 1967.
    """
    p_values = _checked(log10_p)
    if not p_values.size:
        raise ValueError("the smallest of no p-values has no p-value; give at least one")
    return float(_sidak(float(p_values.min()), p_values.size))


def sidak_of_smallest_log10(smallest: Floats, k: int) -> Floats:
    """`sidak_log10` of many families of ``k`` p-values each, by the smallest of each: elementwise, to the same bit."""
    return np.asarray(_sidak_each(_checked(smallest).ravel(), k)).reshape(smallest.shape)


def sidak_rows_log10(log10_ps: Floats) -> Floats:
    """`sidak_log10` of each column, for many at a time: (k, n) -> (n,)."""
    smallest, k = log10_ps.min(axis=0), len(log10_ps)
    with np.errstate(divide="ignore"):
        bulk = np.log10(-np.expm1(k * np.log1p(-(10.0**smallest))))
    return np.asarray(np.minimum(np.where(smallest < -12, smallest + np.log10(k), bulk), 0.0))


def holm_log10(log10_ps: ArrayLike, tests: int | None = None) -> Floats:
    """Log10 of Holm's step-down adjusted p-values: family-wise error under any dependence.

    Parameters
    ----------
    log10_ps
        Shape (k,).
    tests
        How many tests there were, where these are not all: at least k. Every test that is rejected among all must be
        here, and then those are rejected and no others; None for k.

    Returns
    -------
    array
        Shape (k,), in the order given. Rejecting where it is at most log10 alpha keeps the chance of any
        false rejection at or below alpha.

    Raises
    ------
    ValueError
        If a p-value is NaN or above 1.

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
    """
    p_values = _checked(log10_ps)
    order = np.argsort(p_values)
    hypotheses_left = (p_values.size if tests is None else max(tests, p_values.size)) - np.arange(p_values.size)
    adjusted = np.maximum.accumulate(p_values[order] + np.log10(hypotheses_left))
    return _in_order(np.minimum(adjusted, 0.0), order)


def benjamini_hochberg_log10(log10_ps: ArrayLike) -> Floats:
    """Log10 of Benjamini and Hochberg's adjusted p-values: false-discovery rate.

    Parameters
    ----------
    log10_ps
        Shape (k,), independent or positively dependent.

    Returns
    -------
    array
        Shape (k,), in the order given. Rejecting where it is at most log10 q keeps the expected share of
        false rejections at or below q.

    Raises
    ------
    ValueError
        If a p-value is NaN or above 1.

    References
    ----------
    Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate", J. R. Statist. Soc. B 57, 1995.
    """
    p_values = _checked(log10_ps)
    order = np.argsort(p_values)
    tests_per_rank = p_values.size / np.arange(1, p_values.size + 1)
    adjusted = np.minimum.accumulate((p_values[order] + np.log10(tests_per_rank))[::-1])[::-1]
    return _in_order(np.minimum(adjusted, 0.0), order)


def e_benjamini_hochberg(log10_es: ArrayLike, rate: float) -> NDArray[np.bool_]:
    """Discoveries by e-values at a false-discovery rate, under any dependence (e-BH).

    Parameters
    ----------
    log10_es
        Shape (k,); ``-inf`` is an e-value of 0.
    rate
        The false-discovery rate q, in (0, 1).

    Returns
    -------
    array
        bool, shape (k,): the r largest e-values, for the largest r such that each of them is at least k / (q r).

    Raises
    ------
    ValueError
        If an e-value is NaN, or the rate is not in (0, 1).

    References
    ----------
    R. Wang and A. Ramdas, "False discovery rate control with e-values", J. R. Statist. Soc. B 84, 2022.
    """
    e_values = np.asarray(log10_es, dtype=np.float64)
    if np.isnan(e_values).any():
        raise ValueError("log10 e-values must be numbers, got NaN")
    if not 0 < rate < 1:
        raise ValueError(f"rate must lie in (0, 1), got {rate}")
    ranked = np.sort(e_values)[::-1]
    enough = ranked >= np.log10(e_values.size / (rate * np.arange(1, e_values.size + 1)))
    if not enough.any():
        return np.zeros(e_values.shape, dtype=np.bool_)
    # Where r suffices for the r-th largest value, it does for every equal one too.
    return np.asarray(e_values >= ranked[np.flatnonzero(enough)[-1]])


def mean_log10_e(log10_es: ArrayLike) -> float:
    """Log10 of the average of e-values, which is an e-value under any dependence (Vovk and Wang 2021).

    Parameters
    ----------
    log10_es
        Shape (k,), k >= 1; ``-inf`` is an e-value of 0.

    Raises
    ------
    ValueError
        If there is no e-value, or one is NaN.

    References
    ----------
    V. Vovk and R. Wang, "E-values: calibration, combination and applications", Ann. Statist. 49, 2021.
    """
    e_values = np.asarray(log10_es, dtype=np.float64)
    if not e_values.size or np.isnan(e_values).any():
        raise ValueError(f"log10 e-values must be one or more numbers, got {e_values}")
    largest = float(e_values.max())
    if math.isinf(largest):
        return largest
    return largest + math.log10(float(np.mean(10.0 ** (e_values - largest))))


def _checked(log10_p: ArrayLike) -> Floats:
    p_values = np.asarray(log10_p, dtype=np.float64)
    if not np.all(p_values <= 0):  # false for NaN as well
        raise ValueError(f"log10 p-values must be at most 0, got {p_values[~(p_values <= 0)]}")
    return p_values


def _in_order(adjusted: Floats, order: NDArray[np.intp]) -> Floats:
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result


@jit()
def _sidak_each(smallest: Floats, k: int) -> Floats:
    out = np.empty(smallest.size)
    for i in range(smallest.size):
        out[i] = _sidak(smallest[i], k)
    return out


@jit()
def _sidak(log10_p: float, k: int) -> float:
    log_p, log_k = log10_p * math.log(10), math.log(k)
    if log_p + log_k < -40:  # k p falls short of the formula by no more than itself squared, and p may underflow
        return (log_p + log_k) / math.log(10)
    log_family: float = _log1mexp(k * _log1mexp(log_p))
    return min(0.0, log_family / math.log(10))


@jit()
def _log1mexp(x: float) -> float:
    """Log(1 - exp(x)) for x <= 0 (M. Mächler, "Accurately computing log(1 - exp(-|a|))", 2012)."""
    if x == 0:
        return -math.inf
    log: float = math.log(-math.expm1(x)) if x > -math.log(2) else math.log1p(-math.exp(x))
    return log
