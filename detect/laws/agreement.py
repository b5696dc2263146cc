"""When numbers that were computed twice, elsewhere or by other versions of packages, are the same."""

from __future__ import annotations

from collections.abc import Sequence

RELATIVE = 1e-6
"""Of log10 p and what else comes from floating point, which libraries round differently. Totals are integers and must
agree exactly."""


def slack(value: float) -> float:
    """By how much a number may differ that was rounded differently."""
    return RELATIVE * max(1.0, abs(value))


def agree(a: float | None, b: float | None) -> bool:
    """Whether two numbers on record are the same but for rounding; none is as none."""
    return a == b or (a is not None and b is not None and abs(a - b) <= slack(a))


def all_agree(before: Sequence[float | None], after: Sequence[float | None]) -> bool:
    """Whether there are as many numbers as before and each is the same but for rounding."""
    return len(before) == len(after) and all(map(agree, before, after))
