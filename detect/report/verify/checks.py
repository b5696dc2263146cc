"""What a check is: one thing that is looked at, and how it comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from detect.keyed.decoys import LOG10_CONTRADICTION, log10_agreement
from detect.laws.agreement import RELATIVE
from detect.records.results import Check
from detect.records.scan import ScanRecord
from detect.records.trace import TraceRecord
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
    except (ArithmeticError, ValueError, OSError) as error:  # a forger may write any number, and any name of a file
        return Check(name, "failed", f"with what is on record nothing can be computed ({type(error).__name__})")


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


def found_fits(record: ScanRecord | TraceRecord) -> None:
    """Refuse an answer that isn't that of its p-value."""
    if record.log10_pvalue is not None and record.found != (record.log10_pvalue <= math.log10(record.alpha)):
        refuse(f"found is {record.found}, which does not fit the p-value and alpha")


def sound_decoys(record: ScanRecord | TraceRecord) -> None:
    """Refuse another agreement of the decoys than that of their p-values, and an answer that it forbids."""
    agreement = log10_agreement(np.array(record.controls.decoy_log10_pvalues))
    close("agreement of the decoys", [record.controls.decoy_log10_agreement], [agreement])
    if record.refused is None and agreement < LOG10_CONTRADICTION:
        refuse("the decoys contradict the test, and yet an answer is given")


def slack(values: Floats) -> Floats:
    """By how much numbers may differ that were rounded differently."""
    return np.asarray(RELATIVE * np.maximum(1.0, np.abs(values)))
