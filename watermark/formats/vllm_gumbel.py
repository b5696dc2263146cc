"""`vllm-gumbel`: the mark that vLLM writes under ``--watermark-config`` with algorithm "gumbel" (PRF "philox")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from watermark.backends.numba_backend import jit
from watermark.errors import DyetraceError
from watermark.formats.parts.fingerprints import as_int64, fingerprints
from watermark.formats.parts.native_keys import decimal_key, drawn
from watermark.formats.parts.philox import LANES, pick, rounds
from watermark.formats.parts.shapes import Race
from watermark.formats.protocol import I64, U64, NativeKey
from watermark.prf import U32

_CONTEXT_DOMAIN = np.uint32(0x574D4358)
_TOKEN_DOMAIN = np.uint32(0x574D544B)
_LARGEST_KEY = 2**64 - 1


@dataclass(frozen=True)
class VllmGumbel(Race):
    """Chooses argmax of logit - log(-log u), u = (m + 1) / (2^24 + 1), m the word's high 24 bits.

    The context is the last ``context_width`` tokens that the request generated, `ABSENT` (vLLM's own -1) before the
    first: no prompt token is hashed. With vLLM's defaults a context that the request has already generated is sampled
    without the mark (the last 8,192 positions are searched; ``deduplicate_contexts: all`` searches the prompt too and
    leaves the first ``context_width`` tokens unmarked), and so is greedy text. Such tokens only dilute the evidence.

    The context is chained through Philox4x32-10 in blocks of four tokens, and the token's block is encrypted under the
    chain's end; each word is a fresh output of the cipher. A token's score is -log(1 - m / 2^24) nats, rounded down to
    2^-24: P(score >= s) <= e^-s, where vLLM's own -log(1 - u) exceeds it by up to 2^-24.
    """

    context_width: int = 4

    name: ClassVar[str] = "vllm-gumbel"
    system: ClassVar[str] = "vLLM 0.32.0"
    licence: ClassVar[str] = "Apache-2.0; formula re-implemented"
    exact: ClassVar[bool] = True
    reads_prompt: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.context_width < 1:
            raise DyetraceError(f"{self.name}: context_width must be at least 1 (got {self.context_width})")

    def statistic(self, words: U32) -> I64:
        """-log(1 - m / 2^24) of each word's high 24 bits m, in units of 2^-24 nats."""
        return super().statistic(words & np.uint32(0xFFFFFF00))

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Words of n tuples, (n,) uint32; see `Format.words`."""
        out = np.empty(len(tokens), dtype=np.uint32)
        low, high = np.uint32(key[0] & 0xFFFFFFFF), np.uint32(key[0] >> 32)
        _words(low, high, as_int64(contexts), as_int64(tokens), out)
        return out

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """Fingerprints of (context, token): nothing of either is lost on the way to the cipher."""
        return fingerprints(contexts, tokens)

    def draw_key(self, seed: bytes) -> NativeKey:
        """64 uniform bits."""
        return (drawn(seed, "dyt:vllm-gumbel", 64),)

    def parse_key(self, text: str) -> NativeKey:
        """The "key" of vLLM's configuration, a decimal number below 2^64."""
        return (decimal_key(text, "vLLM", _LARGEST_KEY),)


@jit()
def _words(key_low: np.uint32, key_high: np.uint32, contexts: I64, tokens: I64, out: U32) -> None:
    width = contexts.shape[1]
    lanes = np.zeros((6, LANES), dtype=np.uint32)
    c0, c1, c2, c3, k0, k1 = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5]
    for start in range(0, len(out), LANES):
        count = min(LANES, len(out) - start)
        c0[:], c1[:], c2[:], c3[:] = _CONTEXT_DOMAIN, np.uint32(width), np.uint32(0), np.uint32(0)
        for offset in range(0, width, 4):
            for index in range(4):
                lane = lanes[index]
                if offset + index < width:
                    for i in range(count):
                        lane[i] ^= np.uint32(contexts[start + i, offset + index])
                else:
                    lane ^= np.uint32(0xFFFFFFFF - index)
            k0[:], k1[:] = key_low ^ np.uint32(offset), key_high
            rounds(c0, c1, c2, c3, k0, k1)
        for i in range(count):
            k0[i], k1[i] = key_low ^ c3[i], key_high ^ _TOKEN_DOMAIN
            c3[i], c2[i], c1[i] = c2[i], c1[i], c0[i]
            c0[i] = np.uint32(tokens[start + i]) >> np.uint32(2)
        rounds(c0, c1, c2, c3, k0, k1)
        for i in range(count):
            out[start + i] = pick(c0[i], c1[i], c2[i], c3[i], np.uint32(tokens[start + i]))
