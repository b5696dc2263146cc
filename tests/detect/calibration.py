"""Null material and checks shared by the calibration tests and the full run in benchmarks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import bdtrc, smirnov

from watermark.keys import SecretKey

LEVELS = (1e-2, 1e-3, 1e-4)


def fresh_keys(seed: str, count: int) -> Iterator[SecretKey]:
    """Keys that no document knew, the same in every run."""
    root = SecretKey(seed.encode().ljust(32, b".")[:32])
    return (root.derive("decoy", number) for number in range(count))


def log10_excess(pvalues: np.ndarray, level: float) -> float:
    """log10 chance of so many p-values at or below ``level`` if each had that chance: P(Bin(n, level) >= k)."""
    k = int(np.sum(pvalues <= level))
    return 0.0 if k == 0 else math.log10(max(float(bdtrc(k - 1, len(pvalues), level)), 1e-300))


def log10_too_small(pvalues: np.ndarray) -> float:
    """log10 p-value of the one-sided Kolmogorov-Smirnov test against "uniform or larger"."""
    p = np.sort(pvalues)
    distance = float(np.max(np.arange(1, len(p) + 1) / len(p) - p))
    return 0.0 if distance <= 0 else math.log10(max(float(smirnov(len(p), min(1.0, distance))), 1e-300))


def assert_calibrated(pvalues: np.ndarray) -> None:
    """Fail when p-values are smaller than uniform anywhere that their number can show."""
    assert log10_too_small(pvalues) > -5
    for level in LEVELS:
        assert log10_excess(pvalues, level) > -5, f"{np.sum(pvalues <= level)} of {len(pvalues)} at {level}"
