"""What a check is: one thing that is looked at, and how it comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
import numpy.typing as npt

from detect.laws.agreement import RELATIVE
from watermark.errors import DyetraceError

Floats = npt.NDArray[np.float64]
Outcome = Literal["ok", "failed", "not done"]


class NotDone(Exception):
    """A check that can't be done here, and why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, how it came out, and a line about it."""

    name: str
    outcome: Outcome
    line: str


def check(name: str, look: Callable[[], str]) -> Check:
    """Look: a line says what holds, `DyetraceError` what doesn't, and `NotDone` why nothing could be said."""
    try:
        return Check(name, "ok", look())
    except NotDone as reason:
        return Check(name, "not done", str(reason))
    except DyetraceError as error:
        return Check(name, "failed", " ".join(str(error).split()))


def refuse(what: str) -> NoReturn:
    """Say what does not hold."""
    raise DyetraceError(what)


def same(what: str, said: object, computed: object) -> None:
    """Refuse unless both are equal."""
    if said != computed:
        refuse(f"{what}: {said} on record, {computed} computed")


def close(what: str, said: npt.ArrayLike, computed: npt.ArrayLike) -> None:
    """Refuse unless the numbers agree to rounding; infinities must agree as they are."""
    a, b = np.asarray(said, dtype=np.float64), np.asarray(computed, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        equal = (a == b) | (np.abs(a - b) <= slack(b)) if a.shape == b.shape else np.zeros(1, np.bool_)
    if not equal.all():
        i = int(np.argmin(equal))
        detail = f": log10 {a.flat[i]:.6g} on record, {b.flat[i]:.6g} computed" if a.shape == b.shape else ""
        refuse(f"{what} does not follow{detail}")


def slack(values: Floats) -> Floats:
    """By how much numbers may differ that were rounded differently."""
    return np.asarray(RELATIVE * np.maximum(1.0, np.abs(values)))
