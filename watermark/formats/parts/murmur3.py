"""MurmurHash3, x86, 32 bits (Appleby 2011), over sequences of 32-bit words: what SGLang's mark is drawn with."""

from __future__ import annotations

import numpy as np

from watermark.backends.numba_backend import jit
from watermark.formats.parts.fingerprints import as_int64
from watermark.formats.protocol import ABSENT, I64
from watermark.prf import U32

_C1, _C2 = np.uint32(0xCC9E2D51), np.uint32(0x1B873593)
_ADD = np.uint32(0xE6546B64)
_F1, _F2 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


@jit(inline="always")
def mix(state: np.uint32, word: np.uint32) -> np.uint32:
    """Take one word into the state; a bijection of either for a given other."""
    word = np.uint32(word * _C1)
    word = np.uint32((word << np.uint32(15)) | (word >> np.uint32(17)))
    state = np.uint32(state ^ np.uint32(word * _C2))
    state = np.uint32((state << np.uint32(13)) | (state >> np.uint32(19)))
    return np.uint32(state * np.uint32(5) + _ADD)


@jit(inline="always")
def finish(state: np.uint32, length: np.uint32) -> np.uint32:
    """The hash of a state after ``length`` bytes."""
    state = np.uint32(state ^ length)
    state = np.uint32((state ^ (state >> np.uint32(16))) * _F1)
    state = np.uint32((state ^ (state >> np.uint32(13))) * _F2)
    return np.uint32(state ^ (state >> np.uint32(16)))


@jit()
def state_of(words: U32) -> np.uint32:
    """The state after some words, (n,), from seed 0."""
    state = np.uint32(0)
    for word in words:
        state = mix(state, word)
    return state


@jit()
def _contexts(contexts: I64, out: U32) -> None:
    for i in range(len(out)):
        state, length = np.uint32(0), np.uint32(0)
        for j in range(contexts.shape[1]):
            if contexts[i, j] != ABSENT:
                state = mix(state, np.uint32(contexts[i, j]))
                length += np.uint32(4)
        out[i] = finish(state, length)


def hash_contexts(contexts: I64) -> U32:
    """Hashes of n contexts, (n, width) -> (n,); tokens before the beginning are no part of what is hashed."""
    out = np.empty(len(contexts), dtype=np.uint32)
    _contexts(as_int64(contexts), out)
    return out
