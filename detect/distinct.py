"""Distinct (context, token) tuples of token sequences: what every test counts, each tuple once.

Tuples are told apart by an unkeyed 64-bit fingerprint, so that one pass serves any number of keys. Two different tuples
with one fingerprint (0.03 pairs expected among 10^9) lose one tuple: that costs power, never validity, because the
choice of tuples does not look at the key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from watermark.prf import MISSING, U32

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BUCKET = 1 << 13  # tuples per bucket: its table of 2 x 8 bytes each stays in the second-level cache
_CHUNK = 1 << 17


def _jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    jit: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(nogil=True, cache=True, **options)
    return jit


@dataclass(frozen=True, slots=True)
class Tuples:
    """The distinct tuples of one document, in order of first occurrence; contexts are looked up when asked for.

    Attributes
    ----------
    sequence
        The token ids that contexts are read from: the prompt's, where known, and the document's.
    width
        h, the context width.
    index
        Where in ``sequence`` each tuple's token stood first, shape (n,), ascending.
    counts
        How often each occurred, shape (n,); 1 unless ``width`` is 0.
    prompt_length
        How many of ``sequence`` are the prompt's.
    """

    sequence: U32
    width: int
    index: I64
    counts: I64
    prompt_length: int

    def __len__(self) -> int:
        return len(self.index)

    @property
    def tokens(self) -> U32:
        """Shape (n,)."""
        return self.sequence[self.index]

    @property
    def contexts(self) -> U32:
        """Shape (n, h), oldest token first, `MISSING` before the beginning."""
        out = np.empty((len(self.index), self.width), dtype=np.uint32)
        _gather(self.sequence, self.index, out)
        return out

    @property
    def positions(self) -> I64:
        """Index of each token in the document itself, without the prompt."""
        return self.index - self.prompt_length

    def take(self, chosen: Mask | slice) -> Tuples:
        """The chosen ones."""
        return Tuples(self.sequence, self.width, self.index[chosen], self.counts[chosen], self.prompt_length)


def distinct_tuples(ids: U32, width: int, prompt: U32 | None = None) -> Tuples:
    """The distinct tuples of a document.

    Parameters
    ----------
    ids
        The document's token ids, shape (n,).
    width
        h, the context width.
    prompt
        The token ids before them as the model saw them, from the very beginning; None where unknown, and then the
        first ``width`` tokens have no known context and are left out.
    """
    sequence = np.ascontiguousarray(ids if prompt is None else np.concatenate([prompt, ids]), dtype=np.uint32)
    lead = 0 if prompt is None else len(prompt)
    first = width if prompt is None else lead
    if width == 0:
        # Without a context a document's many tokens are few types: the test weighs each type by its count.
        _, index, counts = np.unique(sequence[first:], return_index=True, return_counts=True)
        order = np.argsort(index)
        return Tuples(sequence, 0, index[order] + first, counts[order].astype(np.int64), lead)
    index = np.flatnonzero(first_occurrences(tuple_fingerprints(sequence, width, first))) + first
    return Tuples(sequence, width, index, np.ones(len(index), dtype=np.int64), lead)


@_jit()
def _gather(sequence: U32, index: I64, out: U32) -> None:
    width = out.shape[1]
    for i in range(len(index)):
        for j in range(width):
            place = index[i] - width + j
            out[i, j] = sequence[place] if place >= 0 else MISSING


@_jit(parallel=True)
def _fingerprints(sequence: U32, width: int, first: int, out: U64) -> None:
    for i in numba.prange(len(out)):
        place = first + i
        state = np.uint64(width)
        for back in range(width, -1, -1):
            state = _mix(state, sequence[place - back] if place >= back else np.uint32(MISSING))
        out[i] = max(state, np.uint64(1))


@_jit(inline="always")
def _mix(state: np.uint64, word: np.uint32) -> np.uint64:
    """One step of SplitMix64's finaliser (Steele, Lea and Flood 2014) over state and word; a bijection of the state."""
    z = (state ^ np.uint64(word)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def tuple_fingerprints(sequence: U32, width: int, first: int) -> U64:
    """Fingerprints of the tuples at positions ``first`` .. end of ``sequence`` (n,) -> (n - first,) uint64, never 0."""
    out = np.empty(max(0, len(sequence) - first), dtype=np.uint64)
    _fingerprints(sequence, width, first, out)
    return out


@_jit()
def _mark_first(fingerprints: U64, positions: U32, mask: Mask) -> None:
    """Set the mask where a fingerprint stands first, by an open-addressing table that holds one bucket."""
    bits = 4
    while (1 << bits) < 2 * len(fingerprints):
        bits += 1
    table = np.zeros(1 << bits, dtype=np.uint64)
    last = np.uint64((1 << bits) - 1)
    for i in range(len(fingerprints)):
        value = fingerprints[i]
        slot = value & last  # buckets are cut by the high bits, slots by the low ones
        while table[slot] != 0 and table[slot] != value:
            slot = (slot + np.uint64(1)) & last
        if table[slot] == 0:
            table[slot] = value
            mask[positions[i]] = True


@_jit(parallel=True)
def _bucketed(fingerprints: U64, bits: int, mask: Mask) -> None:
    n = len(fingerprints)
    shift = np.uint64(64 - bits)
    buckets = 1 << bits
    chunks = (n + _CHUNK - 1) // _CHUNK
    starts = np.zeros((chunks, buckets), dtype=np.int64)
    for chunk in numba.prange(chunks):
        for i in range(chunk * _CHUNK, min(n, (chunk + 1) * _CHUNK)):
            starts[chunk, fingerprints[i] >> shift] += 1
    total = 0
    bounds = np.empty(buckets + 1, dtype=np.int64)
    for bucket in range(buckets):
        bounds[bucket] = total
        for chunk in range(chunks):
            count = starts[chunk, bucket]
            starts[chunk, bucket] = total
            total += count
    bounds[buckets] = total
    sorted_fingerprints = np.empty(n, dtype=np.uint64)
    sorted_positions = np.empty(n, dtype=np.uint32)
    for chunk in numba.prange(chunks):
        place = starts[chunk]
        for i in range(chunk * _CHUNK, min(n, (chunk + 1) * _CHUNK)):
            bucket = fingerprints[i] >> shift
            sorted_fingerprints[place[bucket]] = fingerprints[i]
            sorted_positions[place[bucket]] = i
            place[bucket] += 1
    for bucket in numba.prange(buckets):
        low, high = bounds[bucket], bounds[bucket + 1]
        _mark_first(sorted_fingerprints[low:high], sorted_positions[low:high], mask)


def first_occurrences(fingerprints: U64) -> Mask:
    """Mask of the positions where a fingerprint stands for the first time: (n,) uint64 (no 0) -> (n,) bool.

    Radix buckets that fit the cache, then a hash table for each: linear time, 13 bytes of working memory a tuple.
    """
    mask = np.zeros(len(fingerprints), dtype=np.bool_)
    bits = max(0, (len(fingerprints) // _BUCKET).bit_length())
    if bits < 4:
        _mark_first(fingerprints, np.arange(len(fingerprints), dtype=np.uint32), mask)
    else:
        _bucketed(fingerprints, min(bits, 14), mask)
    return mask
