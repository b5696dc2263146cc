"""What a check is: one thing that is looked at, and how it comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from detect.keyed.decoys import LOG10_CONTRADICTION, log10_agreement
from detect.laws.agreement import RELATIVE
from detect.records.results import Check
from watermark.errors import DyetraceError

Floats = npt.NDArray[np.float64]


class NotDone(Exception):
    """A check that can't be done here, and why."""


def check(name: str, look: Callable[[], str]) -> Check:
    """Look: a line says what holds, `DyetraceError` what doesn't, and `NotDone` why nothing could be said."""
    try:
        return Check(name, "ok", look())
    except NotDone as reason:
        return Check(name, "not done", str(reason))
    except DyetraceError as error:
        return Check(name, "failed", " ".join(str(error).split()))


def each(looks: Mapping[str, Callable[..., str]], *given: object) -> Iterator[Check]:
    """Look at the same in several ways, by their names."""
    return (check(name, partial(look, *given)) for name, look in looks.items())


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


def found_fits(found: bool, log10_p: float, alpha: float) -> None:
    """Refuse an answer that isn't that of its p-value."""
    if found != (log10_p <= math.log10(alpha)):
        refuse(f"found is {found}, which does not fit the p-value and alpha")


def sound_decoys(log10_ps: Sequence[float], log10_said: float, *, given: bool) -> None:
    """Refuse another agreement of the decoys than that of their p-values, and one that forbids the answer ``given``."""
    agreement = log10_agreement(np.array(log10_ps))
    close("agreement of the decoys", [log10_said], [agreement])
    if given and agreement < LOG10_CONTRADICTION:
        refuse("the decoys contradict the test, and yet an answer is given")


def slack(values: Floats) -> Floats:
    """By how much numbers may differ that were rounded differently."""
    return np.asarray(RELATIVE * np.maximum(1.0, np.abs(values)))
