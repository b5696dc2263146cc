"""`textseal-green`, `textseal-gumbel` and `textseal-dual-key`: Meta's textseal, all drawn with one short hash."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from watermark.backends.numba_backend import jit
from watermark.errors import DyetraceError
from watermark.formats.parts.fingerprints import as_int64
from watermark.formats.parts.native_keys import decimal_key, drawn, several
from watermark.formats.parts.shapes import LARGEST_INT64, Greens, Race, TwoKeyRace
from watermark.formats.protocol import ABSENT, I64, U64, NativeKey
from watermark.laws import Bernoulli
from watermark.prf import U32

VALUES = 2**13 - 1
"""How many different hashes there are."""

_PRIMES = np.array(
    [10000019, 10000247, 10000439, 10000643, 10000747, 10000867, 10000993, 10001213, 10001357, 10001501], dtype=np.int64
)
_TOKEN_PRIME, _KEY_PRIME = np.int64(100000007), np.int64(500001713)
_MULTIPLIER = np.int64(15485863 * 40499)
_SHIFT = np.int64(13)
_WHY = (
    "the hash has 8,191 values, and key, context and token meet in one sum, so that tuples whose sums are alike share "
    "or shift their values under every key"
)


class _Textseal:
    """What its three marks share."""

    system: ClassVar[str] = "textseal 0.0.5"
    licence: ClassVar[str] = "Apache-2.0; formula re-implemented"
    why_not_exact: ClassVar[str] = _WHY

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """The sum over context and token that a key is added to."""
        return _sums(contexts, tokens)

    def draw_key(self, seed: bytes) -> NativeKey:
        """63 uniform bits; a key B follows, since keys at a fixed distance have fixed relations between their words."""
        return (drawn(seed, "dyt:textseal", 63),)

    def parse_key(self, text: str) -> NativeKey:
        """textseal's ``secret_key``, a decimal number below 2^63."""
        return (decimal_key(text, "textseal", LARGEST_INT64),)


@dataclass(frozen=True)
class TextsealGreen(_Textseal, Greens):
    """Adds a bias to green tokens, hash / 8,191 < ``gamma`` in float32 (textseal's watermark type "greenlist").

    The context is the last ``context_width`` tokens, the prompt's tail included; where there are fewer, 0 stands in
    (`ABSENT`). Repeated contexts are marked again. textseal's own detectors leave out the first ``context_width`` + 1
    tokens of a text.

    Attributes
    ----------
    context_width
        textseal's ``ngram``, 1 to 10.
    gamma
        Green share, in (0, 1); the law has the share that the 8,191 values really give (.50006 for .5).
    """

    context_width: int = 1
    gamma: float = 0.5

    name: ClassVar[str] = "textseal-green"

    def __post_init__(self) -> None:
        _check_width(self.name, self.context_width)
        if not 0.0 < self.gamma < 1.0:
            raise DyetraceError(f"{self.name}: gamma must lie in (0, 1) (got {self.gamma})")

    @property
    def greens(self) -> int:
        """How many of the 8,191 hashes are green: those below this number."""
        return _greens(self.gamma)

    @property
    def law(self) -> Bernoulli:
        """Green with the share that the hashes give."""
        return Bernoulli(self.greens / VALUES)

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """1 where the token is green, else 0, (n,) uint32."""
        return (_hashes(key[0], contexts, tokens) < np.uint32(self.greens)).astype(np.uint32)


@dataclass(frozen=True)
class TextsealGumbel(_Textseal, Race):
    """Chooses argmax of r^(1/p), r = hash / 8,191 (textseal's watermark type "gumbelmax").

    Contexts as in `TextsealGreen`. A token's score is -log(1 - r) nats, rounded down to 2^-24; hashes of one key that
    were uniform would give P(score >= s) <= e^-s.
    """

    context_width: int = 1

    name: ClassVar[str] = "textseal-gumbel"

    def __post_init__(self) -> None:
        _check_width(self.name, self.context_width)

    def statistic(self, words: U32) -> I64:
        """-log(1 - r) of each hash, in units of 2^-24 nats."""
        return _scores()[words]

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Hashes of n tuples, 0 .. 8,190, (n,) uint32."""
        return _hashes(key[0], contexts, tokens)


@dataclass(frozen=True)
class TextsealDualKey(_Textseal, TwoKeyRace):
    """Each token is chosen as `TextsealGumbel` does, by key A with probability ``mixing_alpha``, else by key B.

    Which key chose is not recorded (textseal's watermark type "textseal", also under its speculative decoding, where
    key A marks drafts and key B corrections). Contexts as in `TextsealGreen`. A token's score is ``mixing_alpha`` times
    key A's plus the rest times key B's, as in textseal's own detector.

    Attributes
    ----------
    context_width
        textseal's ``ngram``, 1 to 10.
    mixing_alpha
        Probability of key A, in (0, 1). (In vLLM's dual keys alpha is key B's.)
    """

    context_width: int = 1
    mixing_alpha: float = 0.5

    name: ClassVar[str] = "textseal-dual-key"
    writer: ClassVar[str] = "textseal"
    system: ClassVar[str] = "textseal's repository of 2026 (its package 0.0.5 has no dual keys)"

    KEY_OFFSET: ClassVar[int] = 12345
    """Key B is key A plus this unless it is given."""

    def __post_init__(self) -> None:
        _check_width(self.name, self.context_width)
        if not 0.0 < self.mixing_alpha < 1.0:
            raise DyetraceError(f"{self.name}: mixing_alpha must lie in (0, 1) (got {self.mixing_alpha})")

    @property
    def single(self) -> TextsealGumbel:
        """How each of the two keys marks by itself."""
        return TextsealGumbel(self.context_width)

    @property
    def weights(self) -> tuple[float, float]:
        """The weights of key A's and of key B's score."""
        return self.mixing_alpha, 1.0 - self.mixing_alpha

    def key_pair(self, key: NativeKey) -> tuple[NativeKey, NativeKey]:
        """Keys A and B, each as `single` takes it."""
        return (key[0],), (key[1] if len(key) > 1 else key[0] + self.KEY_OFFSET,)

    def parse_key(self, text: str) -> NativeKey:
        """textseal's ``secret_key``, and after a comma ``secret_key_b`` where it is set: decimal numbers below 2^63."""
        keys = tuple(decimal_key(part, "textseal", LARGEST_INT64) for part in several(text))
        if len(keys) > 2:
            raise DyetraceError(f"{self.name} has one key or two, separated by a comma (got {len(keys)})")
        return keys


def _check_width(name: str, width: int) -> None:
    if not 1 <= width <= len(_PRIMES):
        raise DyetraceError(f"{name}: context_width must lie in 1 .. {len(_PRIMES)}, as textseal's ngram (got {width})")


@cache
def _greens(gamma: float) -> int:
    shares = np.arange(VALUES, dtype=np.float32) / np.float32(VALUES)
    return int(np.count_nonzero(shares < np.float32(gamma)))


@cache
def _scores() -> I64:
    """-log(1 - h / 8,191) of each hash h, in units of 2^-24 nats, shape (8191,)."""
    nats = np.array([math.log(VALUES) - math.log(VALUES - h) for h in range(VALUES)])
    scores: I64 = np.floor(nats * 2**24).astype(np.int64)
    scores.flags.writeable = False  # it is shared by all calls
    return scores


def _sums(contexts: I64, tokens: I64) -> U64:
    out = np.empty(len(tokens), dtype=np.int64)
    _add(as_int64(contexts), as_int64(tokens), out)
    return np.maximum(out.view(np.uint64), np.uint64(1))  # 0 is kept free for empty slots of hash tables


def _hashes(key: int, contexts: I64, tokens: I64) -> U32:
    sums = np.empty(len(tokens), dtype=np.int64)
    _add(as_int64(contexts), as_int64(tokens), sums)
    out = np.empty(len(tokens), dtype=np.uint32)
    wrapped = np.uint64(key % 2**64).astype(np.int64)
    _hash(wrapped, sums, out)
    return out


@jit()
def _add(contexts: I64, tokens: I64, out: I64) -> None:
    for i in range(len(out)):
        total = tokens[i] * _TOKEN_PRIME
        for j in range(contexts.shape[1]):
            if contexts[i, j] != ABSENT:
                total += contexts[i, j] * _PRIMES[j]
        out[i] = total


@jit()
def _hash(key: np.int64, sums: I64, out: U32) -> None:
    """In wrapping int64, with an arithmetic shift and the remainder of the floor, as torch has them."""
    for i in range(len(out)):
        h = (sums[i] + _KEY_PRIME * key) * _MULTIPLIER
        out[i] = (h ^ (h >> _SHIFT)) % VALUES
