"""`synthid-text`: the mark of the synthid-text repository's head; its package 0.2.1 and transformers hash otherwise."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from watermark.backends.numba_backend import jit
from watermark.formats.parts.congruence import MULTIPLIER, ONE, accumulate
from watermark.formats.parts.fingerprints import as_int64
from watermark.formats.parts.shapes import Layers
from watermark.formats.protocol import I64, U64, NativeKey
from watermark.prf import U32

_STIRS = 12
_SHIFT = np.int64(64 // _STIRS)
_BIT = np.int64(30)


@dataclass(frozen=True)
class SynthidText(Layers):
    """Tournament over ``depth`` layers, one key each (Dathathri et al. 2024), with g-values from a linear congruence.

    The hash starts from SHA-256 of all keys, takes the context's tokens, the token and a layer's key by
    h <- (h + x) m + 1 modulo 2^64, and is then stirred twelve times with a shift; its bit 30 is the layer's g. The
    context is the ``context_width`` last tokens generated, 0 before the first (`ABSENT`), no prompt's. A context
    among the last 1,024 stays unmarked, as do the first ``context_width`` tokens where the mark was made with
    ``skip_first_ngram_calls``. Such tokens only dilute the evidence.

    A token's score is sum_l (depth - l) g_l, as for our own tournament.

    Attributes
    ----------
    context_width
        synthid-text's ``ngram_len`` - 1.
    depth
        Number of layers and keys, 1 to 32.
    key_bits
        Size of the layer keys, from which decoys are drawn; how much layers go together depends on it. The published
        examples stay below 1,024.
    """

    context_width: int = 4
    depth: int = 30
    key_bits: int = 10

    name: ClassVar[str] = "synthid-text"
    purpose: ClassVar[str] = "dyt:synthid-text"
    writer: ClassVar[str] = "synthid-text"
    system: ClassVar[str] = "synthid-text's repository at addb4a1"
    licence: ClassVar[str] = "Apache-2.0; formula re-implemented"
    why_not_exact: ClassVar[str] = (
        "the layers of a tuple differ only by their keys in a linear congruence, and their bits go together (measured "
        "correlations up to 0.1), so that the variance of their sum is off by -5% to +17%, depending on the keys"
    )
    reads_prompt: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check_layers()

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Words of n tuples, (n,) uint32: bit l is layer l's g."""
        out = np.empty(len(tokens), dtype=np.uint32)
        start = np.full(len(tokens), _start(key), dtype=np.int64)
        accumulate(start, as_int64(contexts), as_int64(tokens))
        _layers(np.array(key, dtype=np.int64), start, out)
        return out

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """The congruence of context and token from 0: the keys' start adds the same to all."""
        start = np.zeros(len(tokens), dtype=np.int64)
        accumulate(start, as_int64(contexts), as_int64(tokens))
        return np.maximum(start.view(np.uint64), np.uint64(1))  # 0 is kept free for empty slots of hash tables


def _start(keys: NativeKey) -> int:
    """SHA-256 of the keys as little-endian int64, taken as a big-endian number modulo 2^63 - 1."""
    digest = hashlib.sha256(np.array(keys, dtype="<i8").tobytes()).digest()
    return int.from_bytes(digest, "big") % (2**63 - 1)


@jit()
def _layers(keys: I64, states: I64, out: U32) -> None:
    for i in range(len(out)):
        word = np.uint32(0)
        for layer in range(len(keys)):
            h = (states[i] + keys[layer]) * MULTIPLIER + ONE
            for _ in range(_STIRS):
                h = ((h + ONE) * MULTIPLIER + ONE) >> _SHIFT
            word |= np.uint32((h >> _BIT) & ONE) << np.uint32(layer)
        out[i] = word
