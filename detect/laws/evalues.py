"""One e-value for each document and sub-key: a mixture of likelihood ratios against tilts of the null law.

Under the null E exp(theta T - n K(theta)) = 1 for the sum T of n statistics and the law's log moment generating
function K, at every theta; so an average over a fixed grid of thetas is an e-value, whatever the text is. Averages of
e-values over sub-keys and keys are e-values under any dependence, and e-BH finds documents without independence.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detect.laws.tails import check_law, finite_nats, whole_numbers
from watermark.backends.numba_backend import jit
from watermark.laws import Bernoulli, Exponential, Hypoexponential, Lattice, Law, WeightedBits, in_nats

Floats = NDArray[np.float64]

EFFECTS = np.geomspace(0.01, 2.5, 13)
"""Mean shifts, in standard deviations of one statistic, whose tilts are mixed.

From what 100,000 tuples can show to what 20 can; at the middle of a step of 1.58 the best tilt's growth is 95% reached.
"""
_MOST_TILTED = 0.98  # of the way from the mean to the largest value: beyond, a single ordinary token would end it all


def log10_evalues(law: Law, ns: ArrayLike, totals: ArrayLike) -> Floats:
    """Log10 of the mean over theta of exp(theta total - n K(theta)).

    Parameters
    ----------
    law
        The law of one statistic.
    ns
        Numbers of statistics; any shape that broadcasts with ``totals``.
    totals
        Their sums: integers for lattice laws, nats for ``Exponential`` and ``Hypoexponential``.

    Returns
    -------
    array
        float64 in the broadcast shape; 0 where n = 0. Its power of 10 has mean at most 1 under the null.

    Raises
    ------
    ValueError
        If the law is no law, an n is negative or no integer, or a total is no number its draws could sum to.

    References
    ----------
    H. Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Statist. 41, 1970
    (mixtures of likelihood ratios); P. Grünwald, R. de Heide and W. Koolen, "Safe testing", J. R. Statist. Soc. B 86,
    2024 (growth).
    """
    check_law(law)
    draws = whole_numbers(ns)
    if draws.size and draws.min() < 0:
        raise ValueError(f"ns must be at least 0, got {draws.min()}")
    sums = finite_nats(totals) if in_nats(law) else whole_numbers(totals).astype(np.float64)
    n, t = np.broadcast_arrays(draws, sums)
    thetas, cgfs = tilts(law)
    mixture: Floats = _log10_mixture(n.ravel().astype(np.float64), t.ravel(), thetas, cgfs)
    return mixture.reshape(n.shape)


@lru_cache(maxsize=64)
def tilts(law: Law) -> tuple[Floats, Floats]:
    """The grid: thetas (per unit of the law's values; per nat for ``Exponential``) and K(theta) in nats."""
    thetas = np.array([theta_with_effect(law, effect) for effect in EFFECTS.tolist()])
    return thetas, np.array([cgf(law, theta) for theta in thetas])


def cgf(law: Law, theta: float) -> float:
    """Log E exp(theta X) of one statistic in nats; infinite where theta times a mean reaches 1."""
    if isinstance(law, Exponential):
        return -math.log1p(-theta) if theta < 1 else math.inf
    if isinstance(law, Hypoexponential):
        return -sum(math.log1p(-theta * w) for w in law.weights) if theta * max(law.weights) < 1 else math.inf
    if isinstance(law, WeightedBits):
        return float(sum(np.logaddexp(0.0, theta * weight) - math.log(2) for weight in law.weights))
    values, probabilities = value_table(law)
    exponents = theta * values
    top = float(exponents.max())
    return top + math.log(probabilities @ np.exp(exponents - top))


def theta_with_effect(law: Law, effect: float) -> float:
    """The tilt that raises the mean by ``effect`` standard deviations, or nearly to the largest value."""
    mean, sd = moments(law)
    target = mean + effect * sd
    if isinstance(law, Exponential):
        return 1 - 1 / target
    if isinstance(law, Hypoexponential):
        low, high = 0.0, 1 / max(law.weights)
        for _ in range(60):
            middle = (low + high) / 2
            tilted = sum(w / (1 - middle * w) for w in law.weights) if middle * max(law.weights) < 1 else math.inf
            low, high = (middle, high) if tilted < target else (low, middle)
        return low
    target = min(target, mean + _MOST_TILTED * (float(value_table(law)[0].max()) - mean))
    low, high = 0.0, 1.0
    while _tilted_mean(law, high) < target:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tilted_mean(law, middle) < target else (low, middle)
    return (low + high) / 2


def _tilted_mean(law: Law, theta: float) -> float:
    if isinstance(law, WeightedBits):
        return sum(weight / (1 + math.exp(-theta * weight)) for weight in law.weights)
    values, probabilities = value_table(law)
    weights = probabilities * np.exp(theta * (values - values.max()))
    return float(weights @ values / weights.sum())


def moments(law: Law) -> tuple[float, float]:
    """Mean and standard deviation of one statistic, in units of the law's values, or nats."""
    if isinstance(law, Exponential):
        return 1.0, 1.0
    if isinstance(law, Hypoexponential):
        return sum(law.weights), math.hypot(*law.weights)
    values, probabilities = value_table(law)
    mean = float(probabilities @ values)
    return mean, math.sqrt(probabilities @ (values - mean) ** 2)


def value_table(law: Law) -> tuple[Floats, Floats]:
    """Values, ascending but for a ``Lattice``, and probabilities of one statistic; empty where it is in nats."""
    match law:
        case Bernoulli(gamma):
            return np.array([0.0, 1.0]), np.array([1 - gamma, gamma])
        case WeightedBits(weights):
            pmf = np.ones(1)
            for weight in weights:
                pmf = 0.5 * (np.append(pmf, np.zeros(weight)) + np.append(np.zeros(weight), pmf))
            return np.arange(len(pmf), dtype=np.float64), pmf
        case Lattice(values, probabilities):
            return np.array(values, dtype=np.float64), np.array(probabilities) / math.fsum(probabilities)
        case Exponential() | Hypoexponential():
            return np.empty(0), np.empty(0)


@jit()
def _log10_mixture(ns: Floats, totals: Floats, thetas: Floats, cgfs: Floats) -> Floats:
    out, exponents = np.empty(len(ns)), np.empty(len(thetas))
    for i in range(len(ns)):
        top = -math.inf
        for j in range(len(thetas)):
            exponents[j] = thetas[j] * totals[i] - ns[i] * cgfs[j]
            top = max(top, exponents[j])
        mass = 0.0
        for j in range(len(thetas)):
            if exponents[j] > top - 40:  # what is less vanishes beside 1, and exp is slow where it underflows
                mass += math.exp(exponents[j] - top)
        out[i] = (top + math.log(mass / len(thetas))) / math.log(10)
    return out


def calibrated_log10(log10_ps: Floats) -> Floats:
    """E-values from p-values, 1 / (2 sqrt(p)), whose mean is at most 1 (Shafer, Shen, Vereshchagin and Vovk 2011)."""
    return np.asarray(-np.log10(2) - log10_ps / 2)
