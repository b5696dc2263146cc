"""What share of the training data was marked: read off students that the analyst trained on known shares.

A trace alone does not tell the share: half as much marked text, remembered twice as well, looks the same. Calibration
students, trained from the same base in the same way on known shares, tell how effect grows with share; then the
suspect's effect can be turned into a share.

All of them read the same contexts under the same words, so that the noise of contexts is common to them and tells
nothing of how far a student's effect strays by its own training. Only several students of one share tell that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from detect.records.scan import Interval
from detect.records.trace import DosePoint, TrainingShare

CONFIDENCE = 0.95
METHOD = (
    "each calibrated share is tested against the suspect's effect, from either end and up to the first that is not "
    "excluded, at 2.5% a side: it is excluded where the effect lies beyond mean +- t s sqrt(1 + 1/m) of its m "
    "students, with t s the larger of their own and their neighbours' (Student's t, m - 1 degrees of freedom); the "
    "ends are the last shares excluded, nothing is drawn between shares, and an end where none is excluded is open"
)
_FEW = 3  # students of one share; with two alone Student's t is so large that little is excluded


def effect_of(by_context: npt.ArrayLike, expected: float) -> tuple[float, float]:
    """Mean excess of the total per context, and its standard error over contexts.

    Parameters
    ----------
    by_context
        Each context's part of the total under the true key, shape (c,).
    expected
        Of the whole total without the key.
    """
    parts = np.asarray(by_context, dtype=np.float64)
    c = len(parts)
    if c < 2:
        return 0.0, math.inf
    return float((parts.sum() - expected) / c), float(parts.std(ddof=1) / math.sqrt(c))


@dataclass(frozen=True, slots=True)
class Level:
    """A calibrated share: how many students have it, and the mean and standard deviation of their effects."""

    share: float
    students: int
    mean: float
    spread: float

    @property
    def reach(self) -> float:
        """The spread times the quantile of Student's t that leaves 2.5% above it."""
        return _quantile(self.students - 1) * self.spread


@lru_cache(maxsize=64)
def _quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def levels_of(doses: Sequence[DosePoint]) -> list[Level]:
    """The shares of two students or more, ascending.

    A share with one student is left out, as nothing tells how far another student of that share would stray; so is one
    whose students have exactly the same effect: they are one student twice, or too weak to be told apart.
    """
    found = []
    for share in sorted({dose.share for dose in doses}):
        effects = [dose.effect for dose in doses if dose.share == share]
        if len(effects) < 2:
            continue
        mean = math.fsum(effects) / len(effects)
        spread = math.sqrt(math.fsum((effect - mean) ** 2 for effect in effects) / (len(effects) - 1))
        if min(effects) < max(effects):
            found.append(Level(share, len(effects), mean, spread))
    return found


def ends(effect: float, levels: Sequence[Level]) -> tuple[float, float | None]:
    """The 95% interval of the share: its lower end, 0 where open, and its upper end, None where open.

    Lower end: going up the levels, "the share is at most this one" is rejected where the effect is above the level's
    limit; the first that is not rejected ends it. Levels below the true share s are rejected rightly, so the only error
    is to reject the first level j at or above s: no choice has to be paid for (fixed sequence, Maurer et al. 1995).
    Say that effects are normal around a mean that does not fall with the share, and that the suspect's spread is at
    most the larger one, S, of levels j - 1 and j, between which s lies (of the outermost level, beyond it). Then
    effect - mean_j has a mean of at most 0 and a variance of at most S^2 (1 + 1/m_j), and the limit is at least
    t s sqrt(1 + 1/m_j) with the s of the students whose spread is S: the chance of the error is at most 2.5%. How
    spreads differ between shares does not matter, nor what the curve does between them: where it saturates, levels
    can't be told apart, none is rejected, and the end is open. The upper end is its mirror.

    Parameters
    ----------
    effect
        The suspect's.
    levels
        Shares ascending.
    """
    low: float = 0.0
    high: float | None = None
    for below, level in zip([None, *levels[:-1]], levels, strict=True):
        if effect <= level.mean + _limit(level, below):
            break
        low = level.share
    for above, level in zip([None, *levels[:0:-1]], levels[::-1], strict=True):
        if effect >= level.mean - _limit(level, above):
            break
        high = level.share
    return low, high


def _limit(level: Level, neighbour: Level | None) -> float:
    reach = level.reach if neighbour is None else max(level.reach, neighbour.reach)
    return reach * math.sqrt(1 + 1 / level.students)


def not_identified(reason: str) -> TrainingShare:
    """Without calibration students."""
    return TrainingShare(interval=None, reason=reason, effect=None, standard_error=None, doses=[])


def estimated(effect: float, standard_error: float, doses: Sequence[DosePoint]) -> TrainingShare:
    """The suspect's share by `ends`, or why it is not identified and what to train.

    The estimate between the ends lies on straight lines between the levels' means, made to rise (pooled adjacent
    violators, Ayer et al. 1955); it is null where the upper end is open, as the curve may be flat there, and where the
    effect is outside of all means.

    Parameters
    ----------
    effect, standard_error
        The suspect's; the error is that of contexts, common to all students, and for the record alone.
    doses
        The calibration students.
    """
    ordered = sorted(doses, key=lambda dose: (dose.share, dose.name))
    levels = levels_of(ordered)
    interval, reason = None, _lacking(ordered, levels)
    if reason is None:
        low, high = ends(effect, levels)
        curve = _rising(levels)
        if curve[-1] <= curve[0]:
            reason = (
                "the calibration students' effect does not grow with their share: train some on larger marked shares, "
                "or for longer"
            )
        elif low == 0 and (high is None or high == 1):
            reason = (
                "no end of an interval can be given, as students of the same share differ too much or their effect "
                "saturates: train more students of each share, and of smaller and larger shares "
                f"({_counted(levels)} so far)"
            )
        else:
            estimate = None if high is None else _inverse(effect, curve, levels)
            interval = Interval(low=low, estimate=estimate, high=high, confidence=CONFIDENCE, method=METHOD)
            reason = _read_off(levels, len(ordered) - sum(level.students for level in levels))
    return TrainingShare(
        interval=interval, reason=reason, effect=effect, standard_error=standard_error, doses=list(ordered)
    )


def _lacking(doses: Sequence[DosePoint], levels: Sequence[Level]) -> str | None:
    """What to train, where fewer than two shares have students to compare."""
    if len(levels) >= 2:
        return None
    known = {level.share for level in levels}
    alone = [f"{share:g}" for share in sorted({dose.share for dose in doses} - known)]
    so_far = f"; train more students of the shares {', '.join(alone)}" if alone else "; train some of another share"
    return (
        "it takes two shares or more with several students each, trained alike but with other seeds and other samples "
        f"of the text, since only they show how far training by itself moves the effect{so_far} ({_FEW} or more of "
        "each give much narrower intervals than two)"
    )


def _read_off(levels: Sequence[Level], left_out: int) -> str:
    few = min(level.students for level in levels) < _FEW
    return (
        f"read off {_counted(levels)} calibration students by marked share"
        + (f", {left_out} more left out as the only ones of their share" if left_out else "")
        + "; it holds if the suspect was trained as they were, and effects of one share are about normal"
        + (f"; {_FEW} or more students of each share would narrow it" if few else "")
    )


def _counted(levels: Sequence[Level]) -> str:
    return ", ".join(f"{level.students} of {level.share:g}" for level in levels)


def _rising(levels: Sequence[Level]) -> list[float]:
    """Isotonic regression of the levels' means by pooling adjacent violators, weighed by students."""
    blocks: list[tuple[float, int, int]] = []  # mean, students, levels
    for level in levels:
        blocks.append((level.mean, level.students, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (mean, m, n), (before, m_before, n_before) = blocks.pop(), blocks.pop()
            students = m + m_before
            blocks.append(((mean * m + before * m_before) / students, students, n + n_before))
    return [mean for mean, _, count in blocks for _ in range(count)]


def _inverse(effect: float, curve: list[float], levels: Sequence[Level]) -> float | None:
    """The share at an effect by straight lines between levels; None outside of the curve and where it is flat."""
    if curve.count(effect) > 1:
        return None
    for i, (left, right) in enumerate(itertools.pairwise(curve)):
        if left <= effect <= right and left < right:
            low, high = levels[i].share, levels[i + 1].share
            return low + (high - low) * (effect - left) / (right - left)
    return None
