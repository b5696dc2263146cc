"""Where in a document is the mark? Stretches of tuples whose statistics are too large, with family-wise control.

Each tuple gets a score, the log-likelihood ratio of a tilted law to the null, rounded to an integer; a marked stretch
is a segment whose scores sum to a maximum [1]_. Several tilts are tried, for weak long stretches and strong short ones.

The null of the best segment needs neither simulation nor a limit law. The best segment is the highest point of the walk
W_t = max(0, W_{t-1} + score), and P(max W >= B) is at most the expected number of times that W leaves 0 and comes to B
before it is back. Under the law tilted by exp(lambda * score), E exp(lambda * score) = 1, the walk drifts upwards, and

    P(reach B) = exp(-lambda B) * E_tilted[exp(-lambda * overshoot); reach B]

which leaves probabilities of ordinary size: they come from linear equations over the walk's integer heights. For high
B this becomes n K exp(-lambda B) [2]_.

References
----------
.. [1] W. L. Ruzzo and M. Tompa, "A linear time algorithm for finding all maximal scoring subsequences", Proc.
   ISMB 1999.
.. [2] S. Karlin and S. F. Altschul, "Methods for assessing the statistical significance of molecular sequence features
   by using general scoring schemes", Proc. Natl. Acad. Sci. USA 87, 1990.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detect.corpus.bins import StatisticBins
from detect.laws.evalues import cgf, moments, theta_with_effect
from watermark.backends.numba_backend import jit
from watermark.laws import Law

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EFFECTS = (0.12, 0.24, 0.48, 0.96, 1.92)
"""Shifts of the mean in standard deviations that scores are made for; between two of them 11% of the growth is lost."""

_STEPS_PER_SD = np.arange(6, 14, 0.25)  # tried as the fineness of scores: the one that rounding biases least is taken
_ORDINARY = 12.0  # nats; walks that come so high fall back with a chance of exp(-12)
_LIMIT_ERROR = 1e-3  # nats, generous
_TRANSIENT = 512  # tuples until the walk has forgotten its start


@dataclass(frozen=True, eq=False)
class _Score:
    """Integer scores for one effect, and what the null says of their best segment.

    Attributes
    ----------
    of_bin
        Score of each bin of the statistic, (bins,).
    rate
        Lambda: exp(rate * score) has mean 1 under the null.
    log_reach
        Log of exp(rate * B) P(leave 0 and reach B before coming back), for B = 0 .. len - 1; the last value holds for
        all larger B.
    starts
        Expected number of t < n with W_t = 0, for n = 0 .. `_TRANSIENT`.
    """

    of_bin: Ints
    rate: float
    log_reach: Floats
    starts: Floats

    def log_p(self, scores: Ints, tuples: Ints) -> Floats:
        """Log P(the best segment of so many tuples has at least this score) in nats, elementwise."""
        last = len(self.starts) - 1
        starts = self.starts[np.minimum(tuples, last)]
        # W_t = 0 is ever less likely: what it was at the last t counted bounds all later ones.
        starts = starts + np.maximum(tuples - last, 0) * (self.starts[last] - self.starts[last - 1])
        reach = self.log_reach[np.minimum(scores, len(self.log_reach) - 1)] - self.rate * scores
        bounds: Floats = np.log(np.maximum(starts, 1.0)) + reach
        return np.where(scores > 0, np.minimum(bounds, 0.0), 0.0)


def marked_segments(
    law: Law, unit: float, statistics: ArrayLike, alpha: float, looks: int = 1
) -> list[tuple[int, int, float]]:
    """Find the marked stretches of one document.

    Parameters
    ----------
    law, unit
        Of the scheme.
    statistics
        Of the document's distinct tuples under one sub-key, in the order of the text: integers, (n,).
    alpha
        The chance, over the whole document, that any stretch is returned of an unmarked document, in (0, 1).
    looks
        Among how many sub-keys and keys this one was chosen; each of them is paid for.

    Returns
    -------
    list
        Disjoint ``(start, end, log10_p)`` in ascending order, tuples [start, end), with log10 p paid for over all
        segments of the document, all effects and all looks.

    Raises
    ------
    ValueError
        If alpha is not in (0, 1), or ``looks`` below 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    if looks < 1:
        raise ValueError(f"looks must be at least 1, got {looks}")
    values = np.asarray(statistics, dtype=np.int64)
    bins, price = StatisticBins.of_law(law, unit).of(values), math.log(len(EFFECTS) * looks)
    found: list[tuple[float, int, int]] = []
    for score in _scores(law, unit):
        starts, ends, sums = _maximal_segments(score.of_bin, bins)
        log_ps = score.log_p(sums, np.full(len(sums), len(values))) + price
        enough = log_ps <= math.log(alpha)
        log10_ps = log_ps[enough] / math.log(10)
        found.extend(zip(log10_ps.tolist(), starts[enough].tolist(), ends[enough].tolist(), strict=True))
    chosen: list[tuple[int, int, float]] = []
    for log10_p, start, end in sorted(found):
        if all(end <= a or b <= start for a, b, _ in chosen):
            chosen.append((start, end, log10_p))
    return sorted(chosen)


def log10_segment_pvalues(law: Law, unit: float, statistics: Ints, offsets: Ints) -> Floats:
    """Log10 p that no stretch of a document is marked, from its best segment, of many documents.

    Parameters
    ----------
    law, unit
        Of the scheme.
    statistics
        Of all documents' tuples under one sub-key, one document after the other, (n,).
    offsets
        Where documents begin and end, (D + 1,).

    Returns
    -------
    array
        Shape (D,), float64, at most 0.
    """
    scores, tuples = _scores(law, unit), np.diff(offsets)
    bins = StatisticBins.of_law(law, unit).of(statistics)
    log_ps = np.stack([score.log_p(_best_scores(score.of_bin, bins, offsets), tuples) for score in scores])
    return np.asarray(np.minimum((log_ps.min(axis=0) + math.log(len(scores))) / math.log(10), 0.0))


# --- scores and their null -------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _scores(law: Law, unit: float) -> tuple[_Score, ...]:
    bins = StatisticBins.of_law(law, unit)
    survival = 10.0**bins.log10_survival
    pmf = survival - np.append(survival[1:], 0.0)
    sd = moments(law)[1]
    found = []
    for effect in EFFECTS:
        theta = theta_with_effect(law, effect)
        log_ratio = (theta * bins.least_values - cgf(law, theta)) / (theta * sd)
        expected = pmf @ log_ratio
        steps = min(_STEPS_PER_SD, key=lambda steps: abs(pmf @ np.rint(steps * log_ratio) / (steps * expected) - 1))
        found.append(_with_null(np.rint(steps * log_ratio).astype(np.int64), pmf))
    return tuple(found)


def _with_null(of_bin: Ints, pmf: Floats) -> _Score:
    lowest = int(of_bin[0])  # below 0, and of_bin never falls
    chances = np.bincount(of_bin - lowest, pmf).astype(np.float64)
    steps = lowest + np.arange(len(chances), dtype=np.float64)
    rate = _unit_mean_rate(chances, steps)
    levels = math.ceil(_ORDINARY / rate)
    log_reach = np.log(_scaled_reach(chances, chances * np.exp(rate * steps), lowest, rate, levels))
    # Far up, the overshoot no longer knows how high the level is: from here on the value is constant.
    limit = log_reach[len(log_reach) // 2 :].max() + _LIMIT_ERROR
    starts = np.append(0.0, np.cumsum(_at_zero(chances, lowest, len(log_reach))))
    return _Score(of_bin, rate, np.append(log_reach, limit), starts)


def _unit_mean_rate(chances: Floats, steps: Floats) -> float:
    """The positive root of E exp(rate * step) = 1; a step is negative on average. Rounded down: p grows."""
    low, high = 0.0, 1e-6
    while chances @ np.exp(high * steps) < 1:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chances @ np.exp(middle * steps) < 1 else (low, middle)
    return low


@jit()
def _scaled_reach(chances: Floats, tilted: Floats, lowest: int, rate: float, levels: int) -> Floats:
    """exp(rate * B) P(step above 0 and reach B or more before being at 0 or below), for B = 0 (not used) .. levels - 1.

    With Q the tilted walk's moves among the heights 1 .. B - 1 and r(y) = E_tilted[exp(-rate * overshoot); B passed in
    one step from y], this is r(0) + first' (I - Q)^-1 r. One triangular factorisation serves all B, for the matrix of a
    lower B is the upper left corner of that of a higher one; it needs no pivots, as no diagonal entry is the smaller.
    """
    size, top = levels - 1, lowest + len(chances) - 1
    factors = np.zeros((size, size))  # of I - Q; heights less 1
    for y in range(size):
        for z in range(max(0, y + lowest), min(size, y + top + 1)):
            factors[y, z] = -tilted[z - y - lowest]
        factors[y, y] += 1.0
    first = np.zeros(size)
    for z in range(min(size, top)):
        first[z] = tilted[z + 1 - lowest]
    for k in range(size):
        for y in range(k + 1, min(size, k - lowest + 1)):  # steps down are at most -lowest
            factor = factors[y, k] / factors[k, k]
            factors[y, k] = factor
            for z in range(k + 1, min(size, k + top + 1)):
                factors[y, z] -= factor * factors[k, z]
        first[k] /= factors[k, k]
        for z in range(k + 1, min(size, k + top + 1)):
            first[z] -= first[k] * factors[k, z]
    passing = np.zeros(max(levels, top + 1) + 1)  # exp(rate y) P(step >= y)
    above = 0.0
    for y in range(top, 0, -1):
        above += chances[y - lowest]
        passing[y] = math.exp(rate * y) * above
    out, solved = np.ones(levels), np.empty(size)
    for level in range(1, levels):
        out[level] = passing[level]
        for y in range(level - 1):
            value = passing[level - 1 - y]
            for k in range(max(0, y + lowest), y):
                value -= factors[y, k] * solved[k]
            solved[y] = value
            out[level] += first[y] * value
    return out


@jit()
def _at_zero(chances: Floats, lowest: int, states: int) -> Floats:
    """P(W_t = 0) under the null for t = 0 .. _TRANSIENT - 1; W is held below ``states``, so never too small."""
    out, now, after = np.empty(_TRANSIENT), np.zeros(states), np.zeros(states)
    now[0] = 1.0
    for t in range(_TRANSIENT):
        out[t] = now[0]
        after[:] = 0.0
        for w in range(states):
            if now[w] > 1e-18:
                for j in range(len(chances)):
                    after[min(max(w + lowest + j, 0), states - 1)] += now[w] * chances[j]
        now, after = after, now
    return out


# --- segments --------------------------------------------------------------------------------------------


@jit()
def _best_scores(of_bin: Ints, bins: Ints, offsets: Ints) -> Ints:
    """Score of the best segment of each document: offsets (D + 1,) -> (D,)."""
    out = np.zeros(len(offsets) - 1, dtype=np.int64)
    for d in range(len(out)):
        walk, best = 0, 0
        for i in range(offsets[d], offsets[d + 1]):
            walk = max(0, walk + of_bin[bins[i]])
            best = max(best, walk)
        out[d] = best
    return out


@jit()
def _maximal_segments(of_bin: Ints, bins: Ints) -> tuple[Ints, Ints, Ints]:
    """All maximal scoring segments (Ruzzo and Tompa 1999): starts, ends and sums, in ascending order.

    Candidates are kept as a list with the cumulative scores before (``left``) and after (``right``) each of them. A new
    one joins the last candidate with a lower left end, if its own right end is higher than that one's.
    """
    starts, ends = np.empty(len(bins), dtype=np.int64), np.empty(len(bins), dtype=np.int64)
    left, right = np.empty(len(bins), dtype=np.int64), np.empty(len(bins), dtype=np.int64)
    below = np.empty(len(bins), dtype=np.int64)  # the last candidate before with a lower left end, -1 for none
    count, total = 0, 0
    for i in range(len(bins)):
        score = of_bin[bins[i]]
        before, total = total, total + score
        if score <= 0:
            continue
        start, low = i, before
        while True:
            j = count - 1
            while j >= 0 and left[j] >= low:
                j = below[j]
            if j < 0 or right[j] >= total:
                break
            start, low, count = starts[j], left[j], j
        starts[count], ends[count], left[count], right[count], below[count] = start, i + 1, low, total, j
        count += 1
    return starts[:count], ends[:count], right[:count] - left[:count]
