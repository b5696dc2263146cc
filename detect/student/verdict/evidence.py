"""What a trace rests on: weighted tuples in the order in which they were found, kept as a file beside the report.

They were made without a key. Whoever has the spec and the key computes every total and p-value from them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from detect.laws.level import DEFAULT_ALPHA, check_alpha
from detect.records.arrays import encode_arrays, read_arrays
from detect.student.verdict.hypothesis import Sided
from detect.student.verdict.weights import WeightedTuples
from watermark.errors import DyetraceError, EvidenceError

I64 = npt.NDArray[np.int64]
Basis = Literal["p-value", "e-value"]

EVIDENCE_FILE = "evidence.npz"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Evidence:
    """Weighted tuples and how they were found.

    Attributes
    ----------
    tuples
        Contexts in the order in which they were found.
    steps
        The step that found each context, ascending from 1, shape (c,): its own number, or that of the answer.
    looks
        Steps after which the evidence was looked at, ascending, where their moments were fixed beforehand; none where
        it is one look at the end, or where one may look at any time (`detect.student.verdict.conclude.log10_evalue`).
    planned
        How many looks there might have been.
    """

    tuples: WeightedTuples
    steps: I64
    looks: tuple[int, ...] = ()
    planned: int = 0

    @property
    def contexts(self) -> int:
        """How many."""
        return len(self.tuples.contexts)

    def until(self, step: int) -> Evidence:
        """What was known after so many steps."""
        known = self.steps <= step
        looks = tuple(look for look in self.looks if look <= step)
        return Evidence(self.tuples.of_contexts(known), self.steps[known], looks, self.planned)


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """What decides a trace's numbers beside the evidence.

    Attributes
    ----------
    alpha
        The mark is found when the p-value, adjusted over keys, is at or below this.
    sided
        Whether a mark that was subtracted too far counts as well.
    decoy_count, decoy_seed
        Decoy keys, from a public seed.
    """

    alpha: float = DEFAULT_ALPHA
    sided: Sided = "upper"
    decoy_count: int = 100
    decoy_seed: str = "dyetrace"

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if self.decoy_count < 0:
            raise DyetraceError(f"the number of decoys must be 0 or more (got {self.decoy_count})")


def encode_evidence(evidence: Evidence) -> bytes:
    """The bytes of the file; the same evidence gives the same bytes."""
    tuples = evidence.tuples
    arrays = {
        "version": np.array(_VERSION),
        "contexts": tuples.contexts.astype("<u4"),
        "subkeys": tuples.subkeys.astype("<i4"),
        "steps": evidence.steps.astype("<i8"),
        "context": tuples.context.astype("<i8"),
        "tokens": tuples.tokens.astype("<u4"),
        "weights": tuples.weights.astype("<i2"),
    }
    if evidence.planned:
        arrays |= {"looks": np.array(evidence.looks, dtype="<i8"), "planned": np.array(evidence.planned)}
    return encode_arrays(arrays)


def read_evidence(path: Path) -> Evidence:
    """Read the file.

    Raises
    ------
    DyetraceError
        It cannot be read, is damaged, or its arrays don't fit together.
    """
    arrays = read_arrays(path)
    try:
        if int(arrays["version"]) != _VERSION:
            raise DyetraceError(f"{path} has version {int(arrays['version'])}, but this dyetrace reads {_VERSION}")
        tuples = WeightedTuples(
            arrays["contexts"].astype(np.uint32),
            arrays["context"].astype(np.int64),
            arrays["tokens"].astype(np.uint32),
            arrays["weights"].astype(np.int64),
            arrays["subkeys"].astype(np.int64),
        )
        steps = arrays["steps"].astype(np.int64)
        planned = int(arrays.get("planned", 0))
        looks = tuple(arrays["looks"].astype(np.int64).tolist()) if planned else ()
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceError(
            f"{path} is not a trace's evidence ({error}); give the report's own {EVIDENCE_FILE}"
        ) from None
    _check(tuples, steps, path)
    if len(looks) > planned or list(looks) != sorted(looks):
        raise EvidenceError(f"{path} is damaged: its looks don't fit their number; restore it from a copy")
    return Evidence(tuples, steps, looks, planned)


def _check(tuples: WeightedTuples, steps: I64, path: Path) -> None:
    c, n = len(tuples.contexts), len(tuples.tokens)
    shapes = tuples.contexts.ndim == 2 and len(tuples.subkeys) == len(steps) == c
    shapes = shapes and len(tuples.context) == len(tuples.weights) == n
    if not shapes or (n and not (0 <= tuples.context.min() and tuples.context.max() < c)):
        raise EvidenceError(f"{path} is damaged: its arrays don't fit together; restore it from a copy")
    # A tuple that stood twice would be counted twice, and the law of the total would be another.
    pairs = np.unique(np.stack([tuples.context, tuples.tokens.astype(np.int64)]), axis=1)
    # A context under "all sub-keys" has the words of each of them, and may stand beside none.
    _, group = np.unique(tuples.contexts, axis=0, return_inverse=True)
    marks = np.unique(np.stack([group.ravel(), tuples.subkeys]), axis=1)
    shared = np.isin(marks[0], marks[0, marks[1] < 0])
    twice = marks.shape[1] != c or len(np.unique(marks[0, shared])) != int(shared.sum())
    if pairs.shape[1] != n or twice:
        raise EvidenceError(f"{path} holds a tuple twice: no p-value can rest on it")
