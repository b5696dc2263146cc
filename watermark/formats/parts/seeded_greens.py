"""What green lists drawn by torch's CPU generator share: a format says how it hashes a tuple to a seed, and is done."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from watermark.errors import DyetraceError
from watermark.formats.parts.native_keys import decimal_key, drawn
from watermark.formats.parts.permutation import Mask, greens
from watermark.formats.parts.shapes import LARGEST_INT64, Greens
from watermark.formats.protocol import I64, U64, NativeKey
from watermark.laws import Bernoulli
from watermark.prf import U32

LARGEST_SEED = 2**64 - 1


class SeededGreens(Greens):
    """Greens are the first int(V gamma) entries of ``randperm(V)`` on torch's CPU generator, under a seed of the tuple.

    The generator keeps 32 bits of the seed. On a GPU the same seed gives another permutation: a text that was marked
    by a generator on a GPU cannot be read by these formats, and looks unmarked.
    """

    vocabulary_size: int
    gamma: float

    seed_bits: ClassVar[int] = 32
    largest_key: ClassVar[int] = LARGEST_INT64

    def __post_init__(self) -> None:
        check_vocabulary(self.name, self.vocabulary_size)
        if not 0 < self.count < self.vocabulary_size:
            raise DyetraceError(
                f"{self.name}: gamma must leave green and red among {self.vocabulary_size} tokens (got {self.gamma})"
            )

    @property
    def count(self) -> int:
        """How many tokens are green."""
        return int(self.vocabulary_size * self.gamma)

    @property
    def law(self) -> Bernoulli:
        """Green with the share that the truncated count really gives."""
        return Bernoulli(self.count / self.vocabulary_size)

    def seeds(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """The 32 bits of seed that each tuple's permutation is drawn from, shape (n,)."""
        raise NotImplementedError

    @property
    def keyless_seed(self) -> int | None:
        """A seed that some contexts have under every key (key * 0); nothing about their greens is secret or random."""
        return None

    def is_green(self, seeds: U32, tokens: I64) -> Mask:
        """What the system itself has for tokens under their seeds, (n,) bool."""
        return greens(seeds, tokens, self.vocabulary_size, self.count)

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """1 for green. A token outside the vocabulary is red, and so is any under the seed that needs no key."""
        seeds = self.seeds(key, contexts, tokens)
        green = self.is_green(seeds, tokens)
        if self.keyless_seed is not None:
            green &= seeds != self.keyless_seed
        return green.astype(np.uint32)

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """Seed and token: all that the word depends on. Tuples under the seed that needs no key count as one."""
        seeds = self.seeds(key, contexts, tokens)
        numbers = seed_and_token(seeds, tokens)
        if self.keyless_seed is not None:
            numbers[seeds == self.keyless_seed] = 1
        return numbers

    def draw_key(self, seed: bytes) -> NativeKey:
        """An odd number of 31 bits, the kind of the common default 15485863."""
        return (drawn(seed, f"dyt:{self.name[-12:]}", 31) | 1,)

    def parse_key(self, text: str) -> NativeKey:
        """One number, in decimal."""
        return (decimal_key(text, self.name, self.largest_key),)


def seed_and_token(seeds: U32, tokens: I64) -> U64:
    """One number for each pair, never 0."""
    return (seeds.astype(np.uint64) << np.uint64(32) | tokens.astype(np.uint32)) + np.uint64(1)


def check_vocabulary(name: str, size: int) -> None:
    """Raise unless the system's permutation is the one that is implemented."""
    if not 2 <= size < 2**27:
        raise DyetraceError(f"{name}: vocabulary_size must lie in 2 .. 2^27 - 1 (got {size})")
