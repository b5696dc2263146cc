"""64-bit fingerprints of tuples for `Format.inputs` where what is hashed does not itself fit one number.

They are not keyed: two different tuples with one fingerprint (0.03 pairs expected among 10^9) lose one tuple, which
costs power, never validity.
"""

from __future__ import annotations

import numpy as np

from watermark.backends.numba_backend import jit
from watermark.formats.protocol import I64, U64


@jit()
def _fill(contexts: I64, tokens: I64, out: U64) -> None:
    """Mix one column at a time into all states (SplitMix64's finaliser, Steele, Lea and Flood 2014)."""
    out[:] = np.uint64(contexts.shape[1])
    for column in range(contexts.shape[1] + 1):
        last = column == contexts.shape[1]
        for i in range(len(out)):
            value = np.uint64(tokens[i] if last else contexts[i, column])
            z = (out[i] ^ value) + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            out[i] = z ^ (z >> np.uint64(31))
    for i in range(len(out)):
        out[i] = max(out[i], np.uint64(1))


def fingerprints(contexts: I64, tokens: I64) -> U64:
    """Fingerprints of n tuples, never 0: contexts (n, c) of any integers, tokens (n,) -> (n,) uint64."""
    out = np.empty(len(tokens), dtype=np.uint64)
    _fill(as_int64(contexts), as_int64(tokens), out)
    return out


def as_int64(array: I64) -> I64:
    """The array as the kernels read it: int64 without gaps."""
    return np.ascontiguousarray(array, dtype=np.int64)
