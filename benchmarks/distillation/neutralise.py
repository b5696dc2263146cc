"""Neutralised students: what it costs our tests when whoever runs one subtracts at inference what it learnt.

The attack is the published one in its simplest form: for each context, the mean over prefixes of the change of the log
probabilities from the base model to the student, on text of the attacker's own, is subtracted from the student's
logits, times a strength. It knows h and the base model, and no key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import Floats
from benchmarks.distillation.experiment import BASE, Bench, Found, Seen, labels
from benchmarks.distillation.suspects import Suspect
from detect.student.verdict.weights import readout

I64 = npt.NDArray[np.int64]
STRENGTHS = (0.5, 1.0, 1.5)
_FLOOR = 1e-5
_LOG10_2 = np.log10(2.0)


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a student learnt at each (context, token): the mean over prefixes of log q - log b, in nats.

    Attributes
    ----------
    contexts
        Distinct contexts, shape (c, h), in lexical order.
    pairs
        Index of the context * 2^32 + token, ascending, shape (n,).
    change
        Nats, shape (n,).
    """

    contexts: npt.NDArray[np.uint32]
    pairs: I64
    change: Floats

    @classmethod
    def of(cls, seen: Seen) -> Learnt:
        """From the student and its base on the attacker's text."""
        contexts, group, times = np.unique(
            seen.text.contexts[seen.chosen], axis=0, return_inverse=True, return_counts=True
        )
        change = np.log(np.maximum(seen.suspect, _FLOOR)) - np.log(np.maximum(seen.references[BASE], _FLOOR))
        real = seen.ids >= 0
        keys = (group.reshape(-1, 1) << 32 | np.maximum(seen.ids, 0))[real]
        pairs, place = np.unique(keys, return_inverse=True)
        sums = np.bincount(place, weights=change[real], minlength=len(pairs))
        return cls(contexts, pairs, sums / times[pairs >> 32])

    def at(self, contexts: npt.NDArray[np.uint32], ids: I64) -> Floats:
        """The change at given contexts (n, h) and candidates (n, m); 0 where nothing is known: (n, m)."""
        known = {row.tobytes(): number for number, row in enumerate(self.contexts)}
        number = np.array([known.get(row.tobytes(), -1) for row in np.ascontiguousarray(contexts)], dtype=np.int64)
        keys = np.where((number[:, None] >= 0) & (ids >= 0), number[:, None] << 32 | np.maximum(ids, 0), -1)
        place = np.minimum(np.searchsorted(self.pairs, keys), len(self.pairs) - 1)
        return np.where(self.pairs[place] == keys, self.change[place], 0.0)

    def covers(self, contexts: npt.NDArray[np.uint32]) -> float:
        """Share of contexts that the attacker knows."""
        known = {row.tobytes() for row in self.contexts}
        return float(np.mean([row.tobytes() in known for row in np.ascontiguousarray(contexts)]))


def neutralised(probabilities: Floats, change: Floats, strength: float) -> Floats:
    """Subtract ``strength`` times what was learnt from the logits: (n, m) -> (n, m); other tokens keep their logits."""
    changed = probabilities * np.exp(-strength * change)
    rest = np.clip(1 - probabilities.sum(axis=1, keepdims=True), 0, None)
    return np.asarray(changed / (changed.sum(axis=1, keepdims=True) + rest))


def neutralised_rows(bench: Bench, suspect: Suspect) -> Iterator[dict[str, Any]]:
    """The base-reference test before and after, where the attacker has text of its own, and the owner's."""
    served = Seen.of(bench, suspect, bench.served(suspect.mark, suspect.answers), suspect.marked)
    own = Seen.of(bench, suspect, bench.attackers(suspect.mark))
    contexts = served.text.contexts[served.chosen]
    yield _row(bench, suspect, served, served.suspect, "none", 0.0, 0.0)
    for name, source in (("its own", own), ("the owner's", served)):
        learnt = Learnt.of(source)
        change, covered = learnt.at(contexts, served.ids), learnt.covers(contexts)
        for strength in STRENGTHS:
            q = neutralised(served.suspect, change, strength)
            yield _row(bench, suspect, served, q, name, strength, covered)


def _row(
    bench: Bench, suspect: Suspect, seen: Seen, q: Floats, text: str, strength: float, covered: float
) -> dict[str, Any]:
    tuples = seen.tuples(readout("reference", q, seen.references[BASE]), known=True)
    test = bench.test(suspect.mark, tuples)
    if not len(tuples):
        upper = lower = log10_e = z = 0.0
    else:
        total = int(test.totals([bench.teacher.key])[0])
        z, log10_e = test.z(total), test.log10_evalue(total, "two-sided")
        upper, lower = float(test.log10_pvalues([total])[0]), float(test.log10_pvalues_lower([total])[0])
    contexts = len(tuples.contexts)
    return {
        **labels(suspect),
        "attacker's text": text,
        "strength": strength,
        "contexts it knows": covered,
        "contexts": contexts,
        "z": z,
        "log10 p": upper,
        "log10 p two-sided": min(0.0, float(_LOG10_2 + min(upper, lower))),
        "log10 e two-sided": log10_e,
        "to 1e-10, upper": Found(contexts, z, upper, log10_e).needed,
        "to 1e-10, two-sided": Found(contexts, abs(z), upper, log10_e).needed,
    }
