"""Distinct (context, token) tuples of token sequences: what every test counts, each tuple once.

Tuples are told apart by an unkeyed 64-bit fingerprint, so that one pass serves any number of keys. Two different tuples
with one fingerprint (0.03 pairs expected among 10^9) lose one tuple: that costs power, never validity, because the
choice of tuples does not look at the key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from watermark.backends.numba_backend import jit
from watermark.prf import MISSING, NONCE_WORDS, U32, nonces

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Tuples per bucket: its table of 2 x 8 bytes each should stay in the second-level cache, and writing to more than
# some 256 buckets at a time is slower than a table of twice the cache.
_BUCKET, _FEW_BUCKETS, _LARGEST_BUCKET = 1 << 13, 1 << 8, 1 << 16
_CHUNK = 1 << 17
_SPAN = 1 << 14  # tuples per parallel task; fewer are not worth waking a thread


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

    def nonces(self, context_key: U32 | None) -> U32:
        """`watermark.prf.nonces` of the contexts, shape (3, n), for contexts of up to three tokens in one step."""
        if self.width > NONCE_WORDS:
            return nonces(self.contexts, context_key)
        out = np.empty((NONCE_WORDS, len(self.index)), dtype=np.uint32)
        _gather_nonces(self.sequence, self.index, self.width, out)
        return out

    @property
    def positions(self) -> I64:
        """Index of each token in the document itself, without the prompt."""
        return self.index - self.prompt_length

    def take(self, chosen: Mask | slice) -> Tuples:
        """The chosen ones."""
        return Tuples(self.sequence, self.width, self.index[chosen], self.counts[chosen], self.prompt_length)


def once(n: int) -> I64:
    """Counts of ``n`` tuples that occur once, without memory for them."""
    return np.broadcast_to(np.int64(1), n)


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
    index = np.flatnonzero(first_occurrences(tuple_fingerprints(sequence, width, first)))
    index += first
    return Tuples(sequence, width, index, once(len(index)), lead)


@jit()
def _gather(sequence: U32, index: I64, out: U32) -> None:
    width = out.shape[1]
    for i in range(len(index)):
        for j in range(width):
            place = index[i] - width + j
            out[i, j] = sequence[place] if place >= 0 else MISSING


@jit(inline="always")
def _mix(state: np.uint64, word: np.uint32) -> np.uint64:
    """One step of SplitMix64's finaliser (Steele, Lea and Flood 2014) over state and word; a bijection of the state."""
    z = (state ^ np.uint64(word)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@jit()
def _gather_nonces(sequence: U32, index: I64, width: int, out: U32) -> None:
    for back in range(len(out)):
        row = out[back]
        for i in range(len(index)):
            place = index[i] - 1 - back
            row[i] = sequence[place] if back < width and place >= 0 else np.uint32(MISSING)


@jit()
def _fingerprints_span(sequence: U32, width: int, first: int, out: U64) -> None:
    """Mix one token of every tuple at a time, so that LLVM can use SIMD lanes for neighbouring tuples."""
    out[:] = np.uint64(width)
    for back in range(width, -1, -1):
        start = first - back
        missing = min(max(0, -start), len(out))
        for i in range(missing):
            out[i] = _mix(out[i], np.uint32(MISSING))
        states, words = out[missing:], sequence[start + missing : start + len(out)]
        for i in range(len(states)):
            states[i] = _mix(states[i], words[i])
    for i in range(len(out)):
        out[i] = max(out[i], np.uint64(1))


@jit(parallel=True)
def _fingerprints_parallel(sequence: U32, width: int, first: int, out: U64) -> None:
    for task in numba.prange((len(out) + _SPAN - 1) // _SPAN):
        start = task * _SPAN
        _fingerprints_span(sequence, width, first + start, out[start : start + _SPAN])


def tuple_fingerprints(sequence: U32, width: int, first: int) -> U64:
    """Fingerprints of the tuples at positions ``first`` .. end of ``sequence`` (n,) -> (n - first,) uint64, never 0."""
    out = np.empty(max(0, len(sequence) - first), dtype=np.uint64)
    fill = _fingerprints_span if len(out) <= _SPAN else _fingerprints_parallel
    fill(sequence, width, first, out)
    return out


@jit()
def mark_first(fingerprints: U64, positions: U32, mask: Mask) -> None:
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


@jit(parallel=True)
def _bucketed(
    fingerprints: U64, starts: I64, bounds: I64, sorted_fingerprints: U64, sorted_positions: U32, mask: Mask
) -> None:
    n = len(fingerprints)
    chunks, buckets = starts.shape
    shift = np.uint64(64 - int(math.log2(buckets)))
    for chunk in numba.prange(chunks):
        for i in range(chunk * _CHUNK, min(n, (chunk + 1) * _CHUNK)):
            starts[chunk, fingerprints[i] >> shift] += 1
    total = 0
    for bucket in range(buckets):
        bounds[bucket] = total
        for chunk in range(chunks):
            count = starts[chunk, bucket]
            starts[chunk, bucket] = total
            total += count
    bounds[buckets] = total
    for chunk in numba.prange(chunks):
        place = starts[chunk]
        for i in range(chunk * _CHUNK, min(n, (chunk + 1) * _CHUNK)):
            bucket = fingerprints[i] >> shift
            sorted_fingerprints[place[bucket]] = fingerprints[i]
            sorted_positions[place[bucket]] = i
            place[bucket] += 1
    for bucket in numba.prange(buckets):
        low, high = bounds[bucket], bounds[bucket + 1]
        mark_first(sorted_fingerprints[low:high], sorted_positions[low:high], mask)


def first_occurrences(fingerprints: U64) -> Mask:
    """Mask of the positions where a fingerprint stands for the first time: (n,) uint64 (no 0) -> (n,) bool.

    Radix buckets that fit the cache, then a hash table for each: linear time, 13 bytes of working memory a tuple.
    """
    n = len(fingerprints)
    mask = np.zeros(n, dtype=np.bool_)
    if n <= _CHUNK:
        mark_first(fingerprints, np.arange(n, dtype=np.uint32), mask)
        return mask
    buckets = max(min(n // _BUCKET, _FEW_BUCKETS), min(n // _LARGEST_BUCKET, 1 << 14))
    buckets = 1 << (buckets - 1).bit_length()
    # numpy asks for huge pages where it can, and numba does not: scattering over small ones takes twice as long.
    _bucketed(
        fingerprints,
        np.zeros((-(-n // _CHUNK), buckets), dtype=np.int64),
        np.empty(buckets + 1, dtype=np.int64),
        np.empty(n, dtype=np.uint64),
        np.empty(n, dtype=np.uint32),
        mask,
    )
    return mask
