"""How much of a corpus is marked: bounds that assume nothing about the mark, and an estimate against a reference.

Everything rests on one fact: of m p-values of unmarked things, at most Binomial(m, x) are at or below x. So what
exceeds that is marked, whatever marked things look like [1]_; it bounds the marked documents (from their p-values) and
the marked tuples (from a histogram of statistics). How *many* are marked in truth can't be told without knowing what
marked text looks like; a sample of it turns the corpus's mean excess into a share.

References
----------
.. [1] N. Meinshausen and J. Rice, "Estimating the proportion of false null hypotheses among a large number of
   independently tested hypotheses", Ann. Statist. 34, 2006 (there with other bounding functions).
.. [2] J. D. Storey, "A direct approach to false discovery rates", J. R. Statist. Soc. B 64, 2002.
.. [3] E. C. Fieller, "Some problems in interval estimation", J. R. Statist. Soc. B 16, 1954.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detect.corpus.bins import StatisticBins
from detect.laws.binomial_gamma import log_binomial_sf
from detect.laws.evalues import moments
from detect.records.scan import Interval
from watermark.backends.numba_backend import jit
from watermark.laws import Law, in_nats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SETTLED = 1e-6  # of all things: a smaller improvement of the bound is not worth another round
_EXTRA_OCTAVES = 5  # the smallest threshold lies so far below 1 / documents: nothing unmarked is expected there


# --- documents -------------------------------------------------------------------------------------------


def marked_documents(log10_ps: ArrayLike, confidence: float = 0.95) -> Interval:
    """Bound from below the share of documents that hold the mark, and estimate it.

    Parameters
    ----------
    log10_ps
        Log10 p-values of all tested documents, independent and uniform or larger where unmarked.
    confidence
        Of the lower bound, in (0, 1).

    Returns
    -------
    Interval
        ``high`` is None: weak marks in any number of documents can't be excluded. The estimate is Storey's [2]_, the
        bound without its margin; like the bound it counts only what the mark makes visible. Where the bound is 0 there
        is none: it could be anything (of one unmarked document, 100%).

    Raises
    ------
    ValueError
        If a p-value is NaN or above 1, or the confidence is not in (0, 1).
    """
    _check_confidence(confidence)
    ps = np.asarray(log10_ps, dtype=np.float64)
    if not np.all(ps <= 0):
        raise ValueError("log10 p-values must be numbers of at most 0")
    if not ps.size:
        return _nothing(confidence, "no document was tested")
    octaves = np.arange(1, math.ceil(math.log2(ps.size)) + _EXTRA_OCTAVES + 1)
    thresholds = np.ldexp(1.0, -octaves)
    counts = np.searchsorted(np.sort(ps), np.log10(thresholds), side="right")
    least, best = least_marked(counts, thresholds, ps.size, confidence)
    x = float(thresholds[best])
    estimate = max(least, (int(counts[best]) - ps.size * x) / (1 - x)) / ps.size if least else None
    how = f"estimate: Storey's at the threshold {x:.2g}" if least else "no estimate, as the bound is 0"
    method = (
        f"one-sided binomial bounds on the p-values at or below each of {len(octaves)} thresholds, simultaneously; "
        f"{how}; documents whose mark is too weak to show are not counted"
    )
    return Interval(low=least / ps.size, estimate=estimate, high=None, confidence=confidence, method=method)


def least_marked(counts: Ints, thresholds: Floats, things: int, confidence: float) -> tuple[int, int]:
    """Lower confidence bound on how many of ``things`` independently tested things are not null.

    If m of them are null, with the confidence no threshold x has more than its binomial quantile q(m, x) of nulls at or
    below it, so ``counts - q`` are not null. The bound for m = ``things`` lowers m, which raises the bound, until
    nothing changes; every step holds on that same event, so all of them together keep the confidence.

    Parameters
    ----------
    counts
        How many p-values are at or below each threshold, (J,).
    thresholds
        In (0, 1), (J,), chosen without looking at the p-values; the chance of error is shared equally.
    things, confidence
        Number of p-values, and the chance that the bound holds.

    Returns
    -------
    tuple
        The bound, and the index of the threshold that gives it.
    """
    log_error = math.log((1 - confidence) / len(thresholds))
    least, best = 0, 0
    while True:
        excess = counts - _binomial_quantiles(things - least, thresholds, log_error)
        best = int(np.argmax(excess))
        if excess[best] <= least + _SETTLED * things:
            return max(least, int(excess[best])), best
        least = int(excess[best])


@jit()
def _binomial_quantiles(n: int, thresholds: Floats, log_error: float) -> Ints:
    """The smallest c with log P(Binomial(n, x) > c) <= log_error, for each threshold x."""
    out = np.empty(len(thresholds), dtype=np.int64)
    for j in range(len(thresholds)):
        # The answer lies near the mean, and tails near it are the quick ones: search outwards from there.
        mean, step = n * thresholds[j], math.sqrt(n * thresholds[j]) + 1
        low = max(-1, int(mean) - 1)
        high = low
        while log_binomial_sf(n, thresholds[j], high + 1) > log_error:
            low, high = high, min(n, high + int(step))
        while high - low > 1:
            middle = (low + high) // 2
            if log_binomial_sf(n, thresholds[j], middle + 1) <= log_error:
                high = middle
            else:
                low = middle
        out[j] = high
    return out


# --- tuples ----------------------------------------------------------------------------------------------


def least_marked_tokens(law: Law, unit: float, histogram: ArrayLike, tuples: int, confidence: float = 0.95) -> Interval:
    """Bound from below the share of tuples that were sampled under the mark, whatever the mark does to them.

    Each tuple has a statistic under each sub-key; all that are not marked under that sub-key are independent draws of
    the law. So the cells (tuple, sub-key) are bounded as documents are, by the share of large statistics among them.

    Parameters
    ----------
    law, unit
        Of the scheme.
    histogram
        Of all distinct tuples' statistics under all sub-keys of one key, in the bins of `StatisticBins.of_law`: shape
        (bins,) or (subkeys, bins).
    tuples
        Number of distinct tuples.
    confidence
        Of the lower bound, in (0, 1).

    Returns
    -------
    Interval
        Estimate and ``high`` are None: a marked token that was certain anyway looks like any other.
    """
    _check_confidence(confidence)
    counts = np.atleast_2d(np.asarray(histogram, dtype=np.int64)).sum(axis=0)
    bins = StatisticBins.of_law(law, unit)
    if counts.shape != (bins.count,) or counts.min() < 0 or counts.sum() % max(1, tuples):
        raise ValueError(
            f"histogram must hold {bins.count} counts of {tuples} tuples under one or more sub-keys, "
            f"got shape {np.shape(histogram)} and sum {counts.sum()}"
        )
    if not tuples:
        return _nothing(confidence, "no tuple was tested")
    survival = 10.0**bins.log10_survival
    # Two thresholds an octave: more would cost more than they tell.
    first_below = np.searchsorted(-survival, -np.exp2(-np.arange(0.5, 14, 0.5)))
    chosen = np.unique(first_below[first_below < bins.count])
    at_or_above = np.cumsum(counts[::-1])[::-1]
    least, _ = least_marked(at_or_above[chosen], survival[chosen], int(counts.sum()), confidence)
    method = (
        f"one-sided binomial bounds on large statistics at {len(chosen)} thresholds, simultaneously, under all "
        "sub-keys together; tokens that the model was certain of carry no mark and are not counted"
    )
    return Interval(low=min(1.0, least / tuples), estimate=None, high=None, confidence=confidence, method=method)


@dataclass(frozen=True, eq=False)
class Excess:
    """What documents have above expectation: the sum of a tuple's statistics under all sub-keys of one key.

    A mark lies under one sub-key, unknown which, and the others add nothing in expectation: the sum needs no choice.

    Attributes
    ----------
    tuples
        Distinct tuples of each document, (D,).
    excess
        Sum over tuples and sub-keys, less its expectation without the key, in the scheme's units, (D,).
    """

    tuples: Ints
    excess: Floats

    @classmethod
    def of(cls, law: Law, unit: float, tuples: ArrayLike, totals: ArrayLike) -> Excess:
        """From each document's tuples (D,) and integer totals (D, subkeys)."""
        n, sums = np.asarray(tuples, dtype=np.int64), np.asarray(totals, dtype=np.int64)
        return cls(n, sums.sum(axis=1) - n * (sums.shape[1] * _moments_in_units(law, unit)[0]))

    def mean_and_variance(self, null_variance: float) -> tuple[float, float, float]:
        """Mean excess of a tuple, its variance and that variance's degrees of freedom.

        Documents are the sampling units, as tuples of one document are marked together (the ratio estimator's variance,
        W. G. Cochran, "Sampling Techniques", 1977, 6.4); never less than what the null law alone gives.
        """
        size = float(self.tuples.sum())
        mean = float(self.excess.sum()) / size
        squares = (self.excess - mean * self.tuples) ** 2
        documents = len(self.tuples)
        between = float(squares.sum()) / size**2 * documents / max(1, documents - 1)
        # Few documents may make up most of the variance: the estimate is as uncertain as theirs.
        freedom = float(squares.sum()) ** 2 / max(float((squares**2).sum()), 1e-300)
        return mean, max(between, null_variance / size), max(freedom - 1, 2.0)


def marked_tokens(
    law: Law, unit: float, subkeys: int, corpus: Excess, reference: Excess, confidence: float = 0.95
) -> Interval:
    """Estimate the share of a corpus's tuples that were sampled under the mark, from a reference of marked text.

    Parameters
    ----------
    law, unit, subkeys
        Of the scheme and the key.
    corpus
        All documents.
    reference
        Documents known to be marked throughout and like the corpus's marked ones: of the same model, temperature and
        kind of text, cut to distinct tuples in the same way.
    confidence
        Of the two-sided interval, in (0, 1).

    Returns
    -------
    Interval
        Ratio of mean excesses with Fieller's interval [3]_, documents being the units; clipped to [0, 1]. Estimate and
        ``high`` are None where the reference is too small to show the mark itself.

    Raises
    ------
    ValueError
        If the confidence is not in (0, 1).
    """
    _check_confidence(confidence)
    if not corpus.tuples.sum() or np.count_nonzero(reference.tuples) < 2:
        return _nothing(confidence, "the corpus is empty, or the reference has fewer than two documents")
    null_variance = subkeys * _moments_in_units(law, unit)[1] ** 2
    a, a_variance, a_freedom = corpus.mean_and_variance(null_variance)
    b, b_variance, b_freedom = reference.mean_and_variance(null_variance)
    shares = np.array([a_variance, (a / b) ** 2 * b_variance]) if b else np.array([0.0, 1.0])
    shares /= shares.sum()
    # Satterthwaite's degrees of freedom of a sum of two variances
    t = student_quantile((1 + confidence) / 2, 1 / float(shares**2 @ [1 / a_freedom, 1 / b_freedom]))
    leading = b * b - t * t * b_variance
    if b <= 0 or leading <= 0:
        return _nothing(confidence, "the reference is too small, or not marked: its own mean excess may be 0")
    spread = t * math.sqrt(a * a * b_variance + a_variance * leading)
    low, high = (a * b - spread) / leading, (a * b + spread) / leading
    method = (
        f"mean excess over that of {len(reference.tuples)} marked reference documents; Fieller's interval, documents "
        "being the units; holds as far as the corpus's marked text is like the reference"
    )
    return Interval(
        low=_clipped(low), estimate=_clipped(a / b), high=_clipped(high), confidence=confidence, method=method
    )


def student_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t by its expansion about the normal's (Abramowitz and Stegun 26.7.5); freedom >= 2."""
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / freedom + second / freedom**2 + third / freedom**3 + fourth / freedom**4


def _moments_in_units(law: Law, unit: float) -> tuple[float, float]:
    mean, sd = moments(law)
    return (mean / unit, sd / unit) if in_nats(law) else (mean, sd)


def _clipped(share: float) -> float:
    return min(1.0, max(0.0, share))


def _nothing(confidence: float, method: str) -> Interval:
    return Interval(low=0.0, estimate=None, high=None, confidence=confidence, method=method)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
