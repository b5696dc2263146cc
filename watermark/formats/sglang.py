"""`sglang` and `sglang-two-keys`: the mark that SGLang writes under ``--enable-watermark``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from watermark.backends.numba_backend import jit
from watermark.errors import DyetraceError
from watermark.formats.parts.fingerprints import as_int64
from watermark.formats.parts.murmur3 import finish, hash_contexts, mix, state_of
from watermark.formats.parts.native_keys import drawn, hex_key, several
from watermark.formats.parts.shapes import Race
from watermark.formats.protocol import I64, U64, NativeKey
from watermark.prf import U32

_LARGEST_WINDOW = 64
_WHY = (
    "murmur3 folds the key into 32 bits of state before it meets the text, so a key is one of 2^32 tables, and it is a "
    "hash for tables of data, not a cipher"
)


@dataclass(frozen=True)
class Sglang(Race):
    """Chooses argmax of log(u) / p, u = (word + 1/2) / 2^32, the word a murmur3 hash of key, context hash and token.

    The context is the last ``context_width`` tokens before the position, the prompt's tail included; fewer where the
    prompt is shorter, and then the hash is of those alone (`ABSENT` ones are left out, not padded). It is hashed to 32
    bits without the key, so different contexts may share all their words: `inputs` counts them as one.

    Unmarked are a context whose hash the request has used before, all that follows its first 4,096 distinct contexts,
    greedy text, a first token with nothing before it, and tokens above the server's ``max_probability``. Such tokens
    only dilute the evidence. Where the prompt isn't known, the first ``context_width`` tokens can't be scored.
    """

    context_width: int = 4

    name: ClassVar[str] = "sglang"
    system: ClassVar[str] = "SGLang 0.5.23"
    licence: ClassVar[str] = "Apache-2.0; formula re-implemented"
    why_not_exact: ClassVar[str] = _WHY
    seed_bits: ClassVar[int] = 32

    def __post_init__(self) -> None:
        _check_window(self.name, self.context_width)

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Words of n tuples, (n,) uint32; see `Format.words`."""
        out = np.empty(len(tokens), dtype=np.uint32)
        _words(_key_state(key), hash_contexts(contexts), as_int64(tokens), out)
        return out

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """The context's 32-bit hash and the token, exactly."""
        return _hashed(contexts, tokens)

    def draw_key(self, seed: bytes) -> NativeKey:
        """64 uniform bits."""
        return (drawn(seed, "dyt:sglang", 64),)

    def parse_key(self, text: str) -> NativeKey:
        """The "key" of SGLang's configuration or of a request: 1 to 16 hex digits."""
        return (hex_key(text, "SGLang"),)


@dataclass(frozen=True)
class SglangTwoKeys(Race):
    """`Sglang` with ``key_b`` set: a coin hashed from both keys and the context's hash says which key marks a context.

    The coin is known to who holds the keys, so each tuple has one word, that of the key which marks its context. What
    a context is and what stays unmarked: see `Sglang`.

    Attributes
    ----------
    context_width
        Tokens before the position that are hashed, prompt included.
    mixing_probability
        Share of contexts that key A marks, in (0, 1).
    """

    context_width: int = 4
    mixing_probability: float = 0.5

    name: ClassVar[str] = "sglang-two-keys"
    system: ClassVar[str] = "SGLang 0.5.23"
    licence: ClassVar[str] = "Apache-2.0; formula re-implemented"
    why_not_exact: ClassVar[str] = _WHY
    seed_bits: ClassVar[int] = 32

    def __post_init__(self) -> None:
        _check_window(self.name, self.context_width)
        if not 0.0 < self.mixing_probability < 1.0:
            raise DyetraceError(f"{self.name}: mixing_probability must lie in (0, 1) (got {self.mixing_probability})")

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Words of n tuples under the key that marks each one's context, (n,) uint32."""
        out = np.empty(len(tokens), dtype=np.uint32)
        threshold = np.uint64(math.floor(self.mixing_probability * 2**32))
        states = np.array([_key_state(key[:1]), _key_state(key[1:]), _key_state(key)], dtype=np.uint32)
        _words_of_two(states, threshold, hash_contexts(contexts), as_int64(tokens), out)
        return out

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """The context's 32-bit hash and the token, exactly."""
        return _hashed(contexts, tokens)

    def draw_key(self, seed: bytes) -> NativeKey:
        """Two independent keys of 64 uniform bits."""
        return tuple(drawn(seed, "dyt:sglang-two", 64, number) for number in range(2))

    def parse_key(self, text: str) -> NativeKey:
        """The "key" and "key_b" of SGLang's configuration, separated by a comma."""
        keys = tuple(hex_key(part, "SGLang") for part in several(text))
        if len(keys) != 2:
            raise DyetraceError(f"{self.name} needs two keys, key and key_b, separated by a comma (got {len(keys)})")
        return keys


def _check_window(name: str, width: int) -> None:
    if not 1 <= width <= _LARGEST_WINDOW:
        raise DyetraceError(f"{name}: context_width must lie in 1 .. {_LARGEST_WINDOW} (got {width})")


def _hashed(contexts: I64, tokens: I64) -> U64:
    hashed: U64 = hash_contexts(contexts).astype(np.uint64) << np.uint64(32) | tokens.astype(np.uint64)
    return np.maximum(hashed, np.uint64(1))  # 0 is kept free for empty slots of hash tables


def _key_state(key: NativeKey) -> np.uint32:
    """Murmur3's state after the low and high words of some 64-bit keys."""
    words = [word for part in key for word in (part & 0xFFFFFFFF, part >> 32)]
    return np.uint32(state_of(np.array(words, dtype=np.uint32)))


@jit()
def _words(key_state: np.uint32, contexts: U32, tokens: I64, out: U32) -> None:
    for i in range(len(out)):
        out[i] = finish(mix(mix(key_state, contexts[i]), np.uint32(tokens[i])), np.uint32(16))


@jit()
def _words_of_two(states: U32, threshold: np.uint64, contexts: U32, tokens: I64, out: U32) -> None:
    for i in range(len(out)):
        coin = finish(mix(states[2], contexts[i]), np.uint32(20))
        key_state = states[0] if np.uint64(coin) < threshold else states[1]
        out[i] = finish(mix(mix(key_state, contexts[i]), np.uint32(tokens[i])), np.uint32(16))
