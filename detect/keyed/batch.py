"""The sums of many documents under many keys at once: what `dyetrace detect` and `dyetrace scan` both compute with.

A call of the cipher has a cost of its own, so tuples of many documents are scored together under each key, and only
then added up by document. Sums are integers: which documents stand side by side changes none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from detect.keyed.owners import owned
from detect.keyed.words import Source
from detect.records.key_name import KeyName
from detect.text.distinct import I64, Tuples, once
from watermark.backends.numba_backend import jit
from watermark.keys import MarkingKey, SecretKey
from watermark.prf import MISSING
from watermark.schemes.protocol import Scheme
from watermark.spec import WatermarkSpec

Rows = npt.NDArray[np.int32]

CHUNK = 1 << 16
"""Tuples whose words stay in cache, few enough that no backend starts threads of its own."""


@dataclass(frozen=True, slots=True)
class TestedKey:
    """A key under test.

    Attributes
    ----------
    name
        For reports.
    spec
        Index of its spec.
    subkeys
        Its sub-keys.
    """

    __test__ = False  # no test class of pytest's

    name: KeyName
    spec: int
    subkeys: tuple[MarkingKey, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Tuples of several documents, one after another.

    Attributes
    ----------
    tuples
        Of all documents, shape (n,).
    rows
        Index of each tuple's document, shape (n,), ascending.
    documents
        How many there are.
    """

    tuples: Tuples
    rows: Rows
    documents: int

    @classmethod
    def of(cls, parts: Sequence[Tuples]) -> Batch:
        """Documents side by side, `MISSING` tokens between them: no context reaches into the document before."""
        if len(parts) == 1:
            return cls(parts[0], np.zeros(len(parts[0]), np.int32), 1)
        width = parts[0].width
        gap = np.full(width, MISSING, dtype=np.uint32)
        lengths = np.array([width + len(part.sequence) for part in parts], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths + width
        index = np.concatenate([part.index + start for part, start in zip(parts, starts.tolist(), strict=True)])
        counts = np.concatenate([part.counts for part in parts]) if width == 0 else once(len(index))
        sequence = np.concatenate([piece for part in parts for piece in (gap, part.sequence)])
        rows = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        return cls(Tuples(sequence, width, index, counts, 0), rows, len(parts))

    def spans(self, count: int) -> list[Batch]:
        """The tuples in so many parts of whole chunks or fewer, each of all documents."""
        step = CHUNK * max(1, -(-len(self.tuples) // (CHUNK * count)))
        parts = [slice(start, start + step) for start in range(0, len(self.tuples), step)]
        return [Batch(self.tuples.take(part), self.rows[part], self.documents) for part in parts] or [self]

    def chunks(self) -> Iterator[tuple[Tuples, Rows]]:
        """The tuples and their documents, few enough at a time to stay in cache."""
        for start in range(0, len(self.tuples), CHUNK):
            part = slice(start, start + CHUNK)
            yield self.tuples.take(part), self.rows[part]


def document_sums(
    batch: Batch,
    spec: WatermarkSpec,
    scheme: Scheme,
    selector: SecretKey,
    keys: Sequence[TestedKey],
    seen: Callable[[TestedKey, I64], None] | None = None,
) -> tuple[dict[bool, I64], I64]:
    """Tuples that each document has for the global key (True) and for tenants' (False), and each key's sums.

    Parameters
    ----------
    batch
        The documents, D of them.
    spec, scheme, selector
        The watermark, its scheme, and the key that splits contexts between the global key and tenants'.
    keys
        Of this spec, K of them with S sub-keys each.
    seen
        Called with a key and the statistics of its tuples, for each sub-key, as they come.

    Returns
    -------
    tuple
        Counts (D,) by owner, and sums of count times statistic (K, S, D) in integer units.
    """
    sums = np.zeros((len(keys), spec.subkeys, batch.documents), np.int64)
    counts = {True: np.zeros(batch.documents, np.int64), False: np.zeros(batch.documents, np.int64)}
    for chunk, places in batch.chunks():
        masks = owned(spec, selector, chunk)
        for owner in sorted({key.name.is_global for key in keys}):
            chosen = masks[owner]
            part, where = (chunk, places) if chosen.all() else (chunk.take(chosen), places[chosen])
            counts[owner] += np.bincount(where, minlength=batch.documents)
            source = Source.of(scheme, part)
            for number, key in enumerate(keys):
                if key.name.is_global != owner:
                    continue
                for s, sub in enumerate(key.subkeys):
                    statistics = scheme.statistic(source.under(sub))
                    add_by_row(statistics if part.width else statistics * part.counts, where, sums[number, s])
                    if seen is not None:
                        seen(key, statistics)
    return counts, sums


@jit()
def add_by_row(statistics: I64, rows: Rows, out: I64) -> None:
    """Add each statistic to its document's sum."""
    for i in range(len(rows)):
        out[rows[i]] += statistics[i]
