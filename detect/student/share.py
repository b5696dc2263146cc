"""What share of the training data was marked: read off students that the analyst trained on known shares.

A trace alone does not tell the share: half as much marked text, remembered twice as well, looks the same. Calibration
students, trained from the same base in the same way on known shares, tell how effect grows with share; then the
suspect's effect can be turned into a share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detect.corpus.record import Interval
from detect.student.record import DosePoint, TrainingShare

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
_Z = 1.959963984540054  # of the normal law, for CONFIDENCE


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


def not_identified(reason: str) -> TrainingShare:
    """Without calibration students."""
    return TrainingShare(interval=None, reason=reason, effect=None, standard_error=None, doses=[])


def estimated(effect: float, standard_error: float, doses: Sequence[DosePoint]) -> TrainingShare:
    """Invert the dose-response curve at the suspect's effect.

    Effects are made to rise with the share (pooled adjacent violators, Ayer et al. 1955) and joined by straight lines.
    The interval inverts effect +- 1.96 (standard errors of suspect and curve combined); an end outside the calibrated
    range stays open: 0 below, none above.

    Parameters
    ----------
    effect, standard_error
        The suspect's.
    doses
        At least two calibration students with different shares.
    """
    ordered = sorted(doses, key=lambda dose: dose.share)
    shares = np.array([dose.share for dose in ordered])
    errors = np.array([dose.standard_error for dose in ordered])
    if len(set(shares.tolist())) < 2:
        return not_identified(
            "not identified: the dose-response curve needs calibration students of two shares or more"
        )
    curve = _rising(np.array([dose.effect for dose in ordered]), 1 / np.maximum(errors, 1e-12) ** 2)
    if curve[-1] <= curve[0]:
        return TrainingShare(
            interval=None,
            reason="the calibration students' effect does not grow with their share",
            effect=effect,
            standard_error=standard_error,
            doses=list(ordered),
        )
    estimate = _inverse(effect, curve, shares)
    beside = float(np.interp(shares[0] if estimate is None else estimate, shares, errors))
    reach = _Z * math.hypot(standard_error, beside)
    low, high = _inverse(effect - reach, curve, shares, upper=False), _inverse(effect + reach, curve, shares)
    if effect > curve[-1]:
        estimate = None
    interval = Interval(
        low=0.0 if low is None else low,
        estimate=estimate,
        high=None if effect + reach > curve[-1] else high,
        confidence=CONFIDENCE,
        method="inverse of the calibration students' dose-response curve",
    )
    reason = f"read off {len(ordered)} calibration students; valid as far as the suspect was trained as they were"
    return TrainingShare(
        interval=interval, reason=reason, effect=effect, standard_error=standard_error, doses=list(ordered)
    )


def _rising(effects: Floats, precisions: Floats) -> Floats:
    """Isotonic regression by pooling adjacent violators."""
    blocks: list[list[float]] = []
    for value, weight in zip(effects.tolist(), precisions.tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            last, before = blocks.pop(), blocks.pop()
            weight_sum = last[1] + before[1]
            mean = (last[0] * last[1] + before[0] * before[1]) / weight_sum
            blocks.append([mean, weight_sum, last[2] + before[2]])
    return np.array([block[0] for block in blocks for _ in range(int(block[2]))])


def _inverse(effect: float, curve: Floats, shares: Floats, *, upper: bool = True) -> float | None:
    """The share at an effect: the largest one that the curve allows, or the smallest; None below the curve."""
    if effect < curve[0]:
        return None if not upper else float(shares[0])
    if effect >= curve[-1]:
        return float(shares[-1] if upper else shares[np.argmax(curve >= curve[-1])])
    right = int(np.searchsorted(curve, effect, side="right"))
    left = right - 1
    step = curve[right] - curve[left]
    return float(shares[left] + (shares[right] - shares[left]) * (effect - curve[left]) / step)
