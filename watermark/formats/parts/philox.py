"""Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011), which vLLM's and sbw's marks are drawn with.

State and key stand in arrays of `LANES` words that every round goes through in turn: LLVM makes SIMD code of such
loops, about four times as fast as one tuple after the other.
"""

from __future__ import annotations

import numpy as np

from watermark.backends.numba_backend import jit
from watermark.prf import U32

LANES = 256
_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_HIGH = np.uint64(32)


@jit()
def rounds(c0: U32, c1: U32, c2: U32, c3: U32, k0: U32, k1: U32) -> None:
    """Encrypt `LANES` counters in place under as many keys: all shapes (LANES,); the keys are used up."""
    for _ in range(_ROUNDS):
        for i in range(LANES):
            first, second = np.uint64(c0[i]) * _M0, np.uint64(c2[i]) * _M1
            c0[i] = np.uint32(second >> _HIGH) ^ c1[i] ^ k0[i]
            c1[i] = np.uint32(second)
            c2[i] = np.uint32(first >> _HIGH) ^ c3[i] ^ k1[i]
            c3[i] = np.uint32(first)
            k0[i] += _W0
            k1[i] += _W1


@jit()
def pick(c0: np.uint32, c1: np.uint32, c2: np.uint32, c3: np.uint32, token: np.uint32) -> np.uint32:
    """Word ``token & 3`` of four."""
    low = c1 if token & np.uint32(1) else c0
    high = c3 if token & np.uint32(1) else c2
    return high if token & np.uint32(2) else low


def blocks(counters: U32, keys: U32) -> U32:
    """Philox blocks of n counters under n keys: (4, n) and (2, n) -> (4, n)."""
    out = np.empty(counters.shape, dtype=np.uint32)
    _blocks(np.ascontiguousarray(counters), np.ascontiguousarray(keys), out)
    return out


@jit()
def _blocks(counters: U32, keys: U32, out: U32) -> None:
    lanes = np.zeros((6, LANES), dtype=np.uint32)
    for start in range(0, out.shape[1], LANES):
        count = min(LANES, out.shape[1] - start)
        lanes[:4, :count] = counters[:, start : start + count]
        lanes[4:, :count] = keys[:, start : start + count]
        rounds(lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5])
        out[:, start : start + count] = lanes[:4, :count]
