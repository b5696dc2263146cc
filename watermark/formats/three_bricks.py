"""`three-bricks` and `three-bricks-gumbel`: the code of "Three Bricks" and of "Watermarking Makes LLMs Radioactive".

Fernandez et al. 2023 (arXiv 2308.00113), Sander et al. 2024 (arXiv 2402.14904); their ``seeding="hash"``. The other
seedings use a table from torch's global generator, which nobody wrote down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from watermark.errors import DyetraceError
from watermark.formats.parts.native_keys import decimal_key, drawn
from watermark.formats.parts.permutation import SEED_MODULUS, Mask, uniforms
from watermark.formats.parts.seeded_greens import (
    LARGEST_SEED,
    SeededGreens,
    check_vocabulary,
    seed_and_token,
)
from watermark.formats.parts.shapes import Race
from watermark.formats.protocol import I64, U64, NativeKey
from watermark.prf import U32

_LICENCE = "CC-BY-NC-4.0; formula re-implemented, no code taken"
_FRACTION_BITS = 24
_MODULUS = np.uint64(SEED_MODULUS)


@dataclass(frozen=True)
class ThreeBricks(SeededGreens):
    """Green lists ("maryland"): seed = hash of the window, greens rolled by the payload.

    The window is the last ``context_width`` tokens of the model's input, the prompt's tail included. Repeated
    contexts are marked alike.

    Attributes
    ----------
    vocabulary_size
        The width of the model's logits; the system's own detector takes the tokenizer's ``vocab_size``, and finds
        nothing where they differ.
    gamma
        Green share.
    context_width
        ``ngram``.
    payload
        The message, a number below the vocabulary's size: token v is green where v + payload is in the list.
    salt_key
        The hash's multiplier.
    """

    vocabulary_size: int
    gamma: float = 0.5
    context_width: int = 1
    payload: int = 0
    salt_key: int = 35317

    name: ClassVar[str] = "three-bricks"
    system: ClassVar[str] = "three_bricks (commit e7b7909)"
    why_not_exact: ClassVar[str] = "torch keeps 32 bits of the seed, which is linear in the key and in the context"
    licence: ClassVar[str] = _LICENCE
    largest_key: ClassVar[int] = LARGEST_SEED

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window(self)

    def seeds(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """The window's hash."""
        return _seeds(key[0], self.salt_key, contexts)

    def is_green(self, seeds: U32, tokens: I64) -> Mask:
        """What the system itself has for tokens under their seeds, (n,) bool."""
        return super().is_green(seeds, _rolled(tokens, self.payload, self.vocabulary_size))

    def draw_key(self, seed: bytes) -> NativeKey:
        """A seed of 32 bits."""
        return (drawn(seed, f"dyt:{self.name[-12:]}", 32),)


@dataclass(frozen=True)
class ThreeBricksGumbel(Race):
    """The exponential race ("openai"): argmax of r^(1/p), r = rand(V) in float32 under a hash of the window.

    The window and the payload are as in `ThreeBricks`. The word is r in units of 2^-24; a token's score is
    -log(1 - r) nats, rounded down to 2^-24 nats, so that P(score >= s) <= e^-s. Where the system's z-test is used,
    its variance is wrong (pi^2/6 in place of 1).

    Attributes
    ----------
    vocabulary_size
        The tokenizer's ``vocab_size``; tokens beyond it have the word 0.
    context_width
        ``ngram``.
    payload
        The message, a number below the vocabulary's size: token v has the r of v + payload.
    salt_key
        The hash's multiplier.
    """

    vocabulary_size: int
    context_width: int = 1
    payload: int = 0
    salt_key: int = 35317

    name: ClassVar[str] = "three-bricks-gumbel"
    system: ClassVar[str] = "three_bricks (commit e7b7909)"
    seed_bits: ClassVar[int] = 32
    why_not_exact: ClassVar[str] = "torch keeps 32 bits of the seed, which is linear in the key and in the context"
    licence: ClassVar[str] = _LICENCE

    def __post_init__(self) -> None:
        check_vocabulary(self.name, self.vocabulary_size)
        _check_window(self)

    def statistic(self, words: U32) -> I64:
        """-log(1 - r) of each word, in units of 2^-24 nats."""
        nats = _FRACTION_BITS * np.log(2.0) - np.log(2.0**_FRACTION_BITS - words)
        units: I64 = np.floor(nats * 2.0**_FRACTION_BITS).astype(np.int64)
        return units

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """r * 2^24."""
        rolled = _rolled(tokens, self.payload, self.vocabulary_size)
        return uniforms(_seeds(key[0], self.salt_key, contexts), rolled, self.vocabulary_size)

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """Seed and token: all that the word depends on."""
        return seed_and_token(_seeds(key[0], self.salt_key, contexts), tokens)

    def draw_key(self, seed: bytes) -> NativeKey:
        """A seed of 32 bits."""
        return (drawn(seed, f"dyt:{self.name[-12:]}", 32),)

    def parse_key(self, text: str) -> NativeKey:
        """``seed``, in decimal; the system's default is 0."""
        return (decimal_key(text, self.name, LARGEST_SEED),)


def _seeds(key: int, salt: int, contexts: I64) -> U32:
    """The 32 bits that torch keeps of s: s = key, then s = (s * salt + token) mod (2^64 - 1) for each token."""
    s = np.full(len(contexts), key % SEED_MODULUS, dtype=np.uint64)
    for column in contexts.T:
        s = _plus(_times(s, np.uint64(salt)), np.where(column < 0, _MODULUS - np.uint64(1), column.astype(np.uint64)))
    return (s & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def _times(s: U64, salt: np.uint64) -> U64:
    """s * salt mod (2^64 - 1) for salt < 2^32, where 2^64 counts as 1."""
    low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
    upper = (s >> high) * salt
    return _plus(_plus((s & low) * salt, upper >> high), (upper & low) << high)


def _plus(a: U64, b: U64) -> U64:
    """a + b mod (2^64 - 1), with the carry added at the other end."""
    total = a + b
    total += total < a
    return np.where(total == _MODULUS, np.uint64(0), total)


def _rolled(tokens: I64, payload: int, size: int) -> I64:
    """Where each token stands in the unrolled list; -1 for one outside the vocabulary."""
    return np.where((tokens >= 0) & (tokens < size), (tokens + payload) % size, -1)


def _check_window(scheme: ThreeBricks | ThreeBricksGumbel) -> None:
    if scheme.context_width < 0:
        raise DyetraceError(f"{scheme.name}: context_width must be 0 or more (got {scheme.context_width})")
    if not 0 <= scheme.payload < scheme.vocabulary_size:
        raise DyetraceError(f"{scheme.name}: payload must lie below vocabulary_size (got {scheme.payload})")
    if not 0 < scheme.salt_key < 2**32:
        raise DyetraceError(f"{scheme.name}: salt_key must lie in 1 .. 2^32 - 1 (got {scheme.salt_key})")
