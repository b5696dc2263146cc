"""Marks of two keys where no one knows which of them chose a token: words come in pairs, their scores are blended."""

from __future__ import annotations

import math

import numpy as np

from watermark.formats.protocol import I64, U64
from watermark.prf import U32


def pack(words_a: U32, words_b: U32) -> U64:
    """One uint64 a tuple: key A's word in the low half, key B's in the high half."""
    packed: U64 = words_a.astype(np.uint64) | (words_b.astype(np.uint64) << np.uint64(32))
    return packed


def unpack(words: U32 | U64) -> tuple[U32, U32]:
    """Key A's and key B's words."""
    return (words & np.uint64(0xFFFFFFFF)).astype(np.uint32), (words >> np.uint64(32)).astype(np.uint32)


def blend(units_a: I64, units_b: I64, weights: tuple[float, float]) -> I64:
    """Weighted sum of two scores in the same integer units, rounded down."""
    weight_a, weight_b = (math.floor(weight * 2**20) for weight in weights)
    # Weights of 20 bits and scores below 2^30 units keep this in integers: the same on every machine.
    units: I64 = (weight_a * units_a + weight_b * units_b) >> 20
    return units
