"""What formats of one kind share: read only; a green list, a race, a tournament's layers, or two keys score alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from watermark.errors import DyetraceError
from watermark.formats.parts.native_keys import decimal_key, drawn, several
from watermark.formats.parts.pairs import blend, pack, unpack
from watermark.formats.protocol import I64, U64, NativeKey
from watermark.laws import Exponential, Hypoexponential, WeightedBits
from watermark.prf import U32
from watermark.schemes.gumbel import Gumbel
from watermark.schemes.tournament import Tournament

if TYPE_CHECKING:
    import torch

LARGEST_INT64 = 2**63 - 1


class ReadOnly:
    """A mark that another system writes; of a format that says no more p is its key's rank among decoys."""

    name: ClassVar[str]
    system: ClassVar[str]
    writer: ClassVar[str] = ""
    """Who writes it, where that is not ``system`` as it stands."""
    exact: ClassVar[bool] = False
    why_not_exact: ClassVar[str] = ""
    seed_bits: ClassVar[int] = 0
    reads_prompt: ClassVar[bool] = True
    samples: ClassVar[bool] = True

    def transform(self, logits: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Never: always a DyetraceError that says who writes this mark."""
        writer = self.writer or self.system
        raise DyetraceError(f"{self.name} is read, not written: mark with {writer} itself")


class Greens(ReadOnly):
    """A green list: words are 1 where the token is green, else 0."""

    samples: ClassVar[bool] = False

    @property
    def unit(self) -> float:
        """One unit is one green token."""
        return 1.0

    def statistic(self, words: U32) -> I64:
        """1 for green, else 0."""
        return words.astype(np.int64)


class Race(ReadOnly):
    """An exponential race: a token's score is -log(1 - u) nats, as for our own `Gumbel`."""

    @property
    def law(self) -> Exponential:
        """Standard exponential, in nats."""
        return Exponential()

    @property
    def unit(self) -> float:
        """One unit is 2^-24 nats."""
        return Gumbel().unit

    def statistic(self, words: U32) -> I64:
        """-log(1 - u) at the lower end of each word's cell, in units of 2^-24 nats."""
        return Gumbel().statistic(words)


class OneOfTwoKeys(Protocol):
    """How each of two keys marks by itself."""

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Words of n tuples, (n,) uint32."""
        ...

    def statistic(self, words: U32) -> I64:
        """Scores of words."""
        ...


class TwoKeyRace(ReadOnly):
    """A race under one of two keys, and no one knows which: both scores are blended."""

    @property
    def single(self) -> OneOfTwoKeys:
        """How each of the two keys marks by itself."""
        raise NotImplementedError

    @property
    def weights(self) -> tuple[float, float]:
        """The weights of key A's and of key B's score."""
        raise NotImplementedError

    def key_pair(self, key: NativeKey) -> tuple[NativeKey, NativeKey]:
        """Keys A and B, each as `single` takes it."""
        raise NotImplementedError

    @property
    def law(self) -> Hypoexponential:
        """The two weights' exponentials, in nats."""
        return Hypoexponential(self.weights)

    @property
    def unit(self) -> float:
        """One unit is 2^-24 nats."""
        return Gumbel().unit

    def statistic(self, words: U32 | U64) -> I64:
        """The blended scores of packed words (n,) uint64, in units of 2^-24 nats, rounded down."""
        words_a, words_b = unpack(words)
        return blend(self.single.statistic(words_a), self.single.statistic(words_b), self.weights)

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """Packed words of n tuples, (n,) uint64: key A's in the low half, key B's in the high half."""
        key_a, key_b = self.key_pair(key)
        return pack(self.single.words(key_a, contexts, tokens), self.single.words(key_b, contexts, tokens))


class Layers(ReadOnly):
    """A tournament of ``depth`` layers with one key each, scored as our own `Tournament`."""

    depth: int
    context_width: int
    key_bits: int

    purpose: ClassVar[str]
    """What decoys' keys are drawn for."""

    def check_layers(self) -> None:
        """Raise DyetraceError unless width, depth and size of keys are what the system allows."""
        if self.context_width < 1:
            raise DyetraceError(f"{self.name}: context_width must be at least 1 (got {self.context_width})")
        if not 1 <= self.depth <= 32:
            raise DyetraceError(f"{self.name}: depth must lie in 1 .. 32 (got {self.depth})")
        if not 6 <= self.key_bits <= 63:
            raise DyetraceError(f"{self.name}: key_bits must lie in 6 .. 63 (got {self.key_bits})")

    @property
    def law(self) -> WeightedBits:
        """A weighted sum of fair bits."""
        return Tournament(self.depth).law

    @property
    def unit(self) -> float:
        """One unit is one layer of weight 1."""
        return 1.0

    def statistic(self, words: U32) -> I64:
        """Weighted sum of each word's bits."""
        return Tournament(self.depth).statistic(words)

    def draw_key(self, seed: bytes) -> NativeKey:
        """``depth`` different uniform numbers of ``key_bits`` bits, none of them 0."""
        keys: dict[int, None] = {}
        number = 0
        while len(keys) < self.depth:
            key = drawn(seed, self.purpose, self.key_bits, number)
            number += 1
            if key:
                keys[key] = None
        return tuple(keys)

    def parse_key(self, text: str) -> NativeKey:
        """``keys``: one decimal number for each layer, separated by commas, in brackets or not."""
        keys = tuple(decimal_key(part, self.name, LARGEST_INT64) for part in several(text))
        self.check_count(keys)
        return keys

    def check_count(self, key: NativeKey) -> None:
        """Raise DyetraceError unless there is one key for each layer."""
        if len(key) != self.depth:
            raise DyetraceError(f"{self.name} needs one key for each of its {self.depth} layers (got {len(key)})")
