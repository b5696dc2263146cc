"""From tuples and a key to a tally: how many tuples, and the sum of their statistics in integer units.

Sums are integers, so the order of tuples, chunks and threads cannot change them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from detect.keyed.words import Source
from detect.text.distinct import I64, Tuples
from watermark.keys import MarkingKey
from watermark.keys.foreign import ForeignKey
from watermark.laws import in_nats
from watermark.schemes.protocol import Scheme

_CHUNK = 1 << 16  # tuples whose words stay in cache; small enough that no backend starts threads of its own
_WORTH_THREADS = 1 << 20  # words from which on starting threads pays


@dataclass(frozen=True, slots=True)
class Tally:
    """``n`` tuples (for h = 0: token types) whose statistics sum to ``total`` units."""

    n: int
    total: int


def as_drawn(scheme: Scheme, totals: npt.ArrayLike) -> npt.NDArray[Any]:
    """Integer totals as the scheme's law draws them, as `laws.tails` takes them: nats where it is in nats."""
    sums = np.asarray(totals)
    return sums * scheme.unit if in_nats(scheme.law) else sums


def counting(scheme: Scheme, key: MarkingKey, tuples: Tuples) -> Tuples:
    """The tuples that count under a key: of those that a foreign format hashes alike only the first."""
    first = None if tuples.width == 0 else Source.of(scheme, tuples).first_inputs(key)
    return tuples if first is None or first.all() else tuples.take(first)


def statistics_of(scheme: Scheme, key: MarkingKey, tuples: Tuples) -> I64:
    """The statistic of each tuple under one key in integer units, shape (n,)."""
    return scheme.statistic(Source.of(scheme, tuples).under(key))


def totals(scheme: Scheme, keys: Sequence[MarkingKey], tuples: Tuples) -> I64:
    """Sum of count times statistic over the tuples that count, for each key: shape (len(keys),)."""
    return tallies(scheme, keys, tuples)[1]


def tallies(scheme: Scheme, keys: Sequence[MarkingKey], tuples: Tuples) -> tuple[I64, I64]:
    """How many tuples count under each key, and the sum of count times statistic over them: shapes (len(keys),).

    Work is cut into chunks that stay in cache and spread over threads; memory does not grow with the number of keys.
    """
    if any(isinstance(key, ForeignKey) for key in keys):
        return _foreign_tallies(scheme, keys, tuples)
    return np.full(len(keys), len(tuples), dtype=np.int64), _totals(scheme, keys, tuples)


def _foreign_tallies(scheme: Scheme, keys: Sequence[MarkingKey], tuples: Tuples) -> tuple[I64, I64]:
    """In one thread: a format may start its own."""
    source = Source.of(scheme, tuples)
    ns, sums = np.full(len(keys), len(tuples), dtype=np.int64), np.empty(len(keys), dtype=np.int64)
    for i, key in enumerate(keys):
        statistic = scheme.statistic(source.under(key))
        first = source.first_inputs(key) if tuples.width else None
        if first is not None:
            ns[i], sums[i] = np.count_nonzero(first), statistic[first].sum()
        else:
            sums[i] = statistic @ tuples.counts
    return ns, sums


def _totals(scheme: Scheme, keys: Sequence[MarkingKey], tuples: Tuples) -> I64:
    chunks = [tuples.take(slice(start, start + _CHUNK)) for start in range(0, len(tuples), _CHUNK)]
    score = partial(_chunk_totals, scheme, keys)
    nothing = np.zeros(len(keys), dtype=np.int64)
    threads = min(numba.get_num_threads(), len(chunks))
    if threads < 2 or len(tuples) * len(keys) < _WORTH_THREADS:
        return sum(map(score, chunks), start=nothing)
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(score, chunks), start=nothing)


def _chunk_totals(scheme: Scheme, keys: Sequence[MarkingKey], tuples: Tuples) -> I64:
    source = Source.of(scheme, tuples)
    sums = np.empty(len(keys), dtype=np.int64)
    for i, key in enumerate(keys):
        statistic = scheme.statistic(source.under(key))
        sums[i] = statistic.sum() if tuples.width else statistic @ tuples.counts
    return sums
