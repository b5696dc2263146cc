"""`sbw`: Stateless Bernoulli Watermarking, the green lists of sbw and vllm-sbw, drawn without permuting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from watermark.backends.numba_backend import jit
from watermark.errors import DyetraceError
from watermark.formats.parts.fingerprints import as_int64, fingerprints
from watermark.formats.parts.native_keys import decimal_key, drawn
from watermark.formats.parts.philox import LANES, pick, rounds
from watermark.formats.parts.shapes import LARGEST_INT64, Greens
from watermark.formats.protocol import ABSENT, I64, U64, NativeKey
from watermark.laws import Bernoulli
from watermark.prf import U32

WIDTHS = {"simple_1": 1, "simple_4": 4, "minhash": 4, "skipgram": 5, "selfhash": 3}
"""Context tokens of each seeding; "selfhash" hashes the token too, which sbw counts as a fourth."""

_SUM, _MINHASH, _SKIPGRAM, _SELFHASH = range(4)
_KIND = {"simple_1": _SUM, "simple_4": _SUM, "minhash": _MINHASH, "skipgram": _SKIPGRAM, "selfhash": _SELFHASH}
_HALF = 2**31


@dataclass(frozen=True)
class Sbw(Greens):
    """Adds a bias to tokens whose Philox word, under a seed of the context, is green: low 31 bits < gamma (2^31 - 1).

    The seed is one of lm-watermarking's functions of the hash key and the tokens (Kirchenbauer et al. 2023 and 2024),
    with Jenkins' integer hash for the table: the key times the sum of the context ("simple_1", "simple_4"), the hash of
    the key times the oldest token ("skipgram"), the least such hash ("minhash"), or the least of key h(w) h(token) over
    the context's tokens w and the token itself ("selfhash", vllm-sbw's default).

    The context is the last tokens before the position, prompt included, 0 before the beginning (`ABSENT`). Repeated
    contexts are marked again. Some settings bias only the likeliest candidates; other tokens dilute the evidence.

    Under some seeds no key has a say: the key times a sum or a token of 0 is 0 whatever the key. Their greens are the
    same for all keys and prove nothing, so such tuples are never green here, and all of them are one input.

    Attributes
    ----------
    seeding
        One of `WIDTHS`: what stands in sbw's own name after "gpu-" and "fused-", "selfhash" of
        "gpu-fused-selfhash-fullvocab". Names without "gpu-" are lm-watermarking's, which permute the vocabulary.
    gamma
        Green share, in (0, 1).
    """

    seeding: str = "selfhash"
    gamma: float = 0.5

    name: ClassVar[str] = "sbw"
    writer: ClassVar[str] = "vllm-sbw"
    system: ClassVar[str] = "sbw 1.0.0 and vllm-sbw 1.0.0"
    licence: ClassVar[str] = "EUPL-1.2; formula re-implemented"
    why_not_exact: ClassVar[str] = (
        "Philox itself is sound, but its seeds are products of the hash key with sums or hashes of tokens, and hash "
        "keys in use are short (the default has 24 bits and is published)"
    )
    seed_bits: ClassVar[int] = 24

    def __post_init__(self) -> None:
        if self.seeding not in WIDTHS:
            raise DyetraceError(f"{self.name}: seeding must be one of {', '.join(WIDTHS)} (got {self.seeding!r})")
        if not 0.0 < self.gamma < 1.0:
            raise DyetraceError(f"{self.name}: gamma must lie in (0, 1) (got {self.gamma})")

    @property
    def context_width(self) -> int:
        """Context tokens that are hashed, the token itself not counted."""
        return WIDTHS[self.seeding]

    @property
    def threshold(self) -> int:
        """Green are words whose low 31 bits are below this (vllm-sbw holds gamma in float32)."""
        return int(float(np.float32(self.gamma)) * (_HALF - 1))

    @property
    def law(self) -> Bernoulli:
        """Green with the probability that the threshold gives."""
        return Bernoulli(self.threshold / _HALF)

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """1 where the token is green and a key had a say in it, else 0, (n,) uint32."""
        out = np.empty(len(tokens), dtype=np.uint32)
        seeds = self._seeds(key, contexts, tokens)
        _greens(seeds, as_int64(tokens), np.uint32(self.threshold), out)
        out[seeds == self._keyless_seed] = 0
        return out

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """Fingerprints of (seed, token): contexts of one seed share all their greens. They depend on the key."""
        seeds = self._seeds(key, contexts, tokens)
        found = fingerprints(seeds[:, None], tokens)
        found[seeds == self._keyless_seed] = 1
        return found

    def draw_key(self, seed: bytes) -> NativeKey:
        """63 uniform bits, odd, so that no seed loses bits of the key."""
        return (drawn(seed, "dyt:sbw", 63) | 1,)

    def parse_key(self, text: str) -> NativeKey:
        """sbw's ``hash_key``, a decimal number below 2^63."""
        return (decimal_key(text, "sbw", LARGEST_INT64),)

    @property
    def _keyless_seed(self) -> int:
        """The seed that no key changes: 0, or where the key's product is hashed, the hash of 0."""
        return int(_jenkins(np.int64(0))) if self.seeding in ("minhash", "skipgram") else 0

    def _seeds(self, key: NativeKey, contexts: I64, tokens: I64) -> I64:
        out = np.empty(len(tokens), dtype=np.int64)
        _seed(_KIND[self.seeding], np.int64(key[0]), as_int64(contexts), as_int64(tokens), out)
        return out


@jit(inline="always")
def _jenkins(value: np.int64) -> np.int64:
    """Bob Jenkins' integer hash of value + 1 in signed 32-bit arithmetic."""
    i = np.int32(value + 1)
    i = np.int32(i - np.int32(i << 6))
    i = np.int32(i ^ (i >> 17))
    i = np.int32(i - np.int32(i << 9))
    i = np.int32(i ^ np.int32(i << 4))
    i = np.int32(i - np.int32(i << 3))
    i = np.int32(i ^ np.int32(i << 10))
    i = np.int32(i ^ (i >> 15))
    return np.int64(i)


@jit()
def _seed(kind: int, key: np.int64, contexts: I64, tokens: I64, out: I64) -> None:
    for i in range(len(out)):
        if kind == _SELFHASH:
            anchor = _jenkins(tokens[i])
            seed = key * anchor * anchor
        elif kind == _SUM:
            seed = np.int64(0)
        else:
            seed = np.int64(2**62)
        for j in range(1 if kind == _SKIPGRAM else contexts.shape[1]):
            token = np.int64(0) if contexts[i, j] == ABSENT else contexts[i, j]
            if kind == _SUM:
                seed += key * token
            elif kind == _SELFHASH:
                seed = min(seed, key * _jenkins(token) * anchor)
            else:
                seed = min(seed, _jenkins(key * token))
        out[i] = seed


@jit()
def _greens(seeds: I64, tokens: I64, threshold: np.uint32, out: U32) -> None:
    lanes = np.zeros((6, LANES), dtype=np.uint32)
    c0, c1, c2, c3, k0, k1 = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5]
    for start in range(0, len(out), LANES):
        count = min(LANES, len(out) - start)
        c1[:], c2[:], c3[:] = np.uint32(0), np.uint32(0), np.uint32(0)
        for i in range(count):
            c0[i] = np.uint32(tokens[start + i]) >> np.uint32(2)
            k0[i] = np.uint32(seeds[start + i])
            k1[i] = np.uint32(seeds[start + i] >> np.int64(32))
        rounds(c0, c1, c2, c3, k0, k1)
        for i in range(count):
            word = pick(c0[i], c1[i], c2[i], c3[i], np.uint32(tokens[start + i]))
            out[start + i] = 1 if (word & np.uint32(0x7FFFFFFF)) < threshold else 0
