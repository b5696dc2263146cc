"""`markllm-kgw` and `markllm-unigram`: two algorithms as MarkLLM writes them.

Kirchenbauer et al. 2023 (arXiv 2301.10226) and Zhao et al. 2023 (arXiv 2306.17439).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from watermark.errors import DyetraceError
from watermark.formats.parts.permutation import permutation
from watermark.formats.parts.seeded_greens import LARGEST_SEED, SeededGreens
from watermark.formats.protocol import I64, U64, NativeKey
from watermark.prf import U32

_FUNCTIONS = ("time", "additive", "skip", "min")
_WINDOWS = ("left", "self")


@dataclass(frozen=True)
class MarkllmKgw(SeededGreens):
    """Green lists under one of ``vocabulary_size`` seeds, which are the same for all keys.

    prf = randperm(V) under the key; f of the prefix is an entry of it; the seed is key * f mod V (``window_scheme``
    left) or f * prf[token] mod V (self). So there are V green lists in the world, and a key only says which belongs
    to which context. The prefix is the last tokens of the model's input, the prompt's tail included; a shorter input
    is left unmarked. Repeated contexts are marked alike.

    Attributes
    ----------
    vocabulary_size
        The ``vocab_size`` that MarkLLM's TransformersConfig was given.
    gamma
        Green share.
    context_width
        ``prefix_length``.
    f_scheme
        time, additive, skip or min.
    window_scheme
        left or self.
    """

    vocabulary_size: int
    gamma: float = 0.5
    context_width: int = 1
    f_scheme: str = "time"
    window_scheme: str = "left"

    name: ClassVar[str] = "markllm-kgw"
    system: ClassVar[str] = "MarkLLM 0.1.5"
    why_not_exact: ClassVar[str] = "all keys share the green lists of the seeds 0 to V - 1, and many contexts share one"
    seed_bits: ClassVar[int] = 0
    licence: ClassVar[str] = "MIT by its package; formulas re-implemented"
    largest_key: ClassVar[int] = LARGEST_SEED

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context_width < 1:
            raise DyetraceError(f"{self.name}: context_width must be 1 or more (got {self.context_width})")
        if self.f_scheme not in _FUNCTIONS:
            raise DyetraceError(f"{self.name}: f_scheme must be one of {', '.join(_FUNCTIONS)} (got {self.f_scheme!r})")
        if self.window_scheme not in _WINDOWS:
            raise DyetraceError(
                f"{self.name}: window_scheme must be one of {', '.join(_WINDOWS)} (got {self.window_scheme!r})"
            )

    def seeds(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Key * f mod V, or f * prf[token] mod V."""
        size = self.vocabulary_size
        prf = permutation(key[0], size)
        f = self._function(prf, contexts)
        factor = key[0] % size if self.window_scheme == "left" else prf[tokens % size]
        seeds: U32 = (factor * f % size).astype(np.uint32)
        return seeds

    def _function(self, prf: I64, contexts: I64) -> I64:
        size = len(prf)
        if self.f_scheme == "min":
            least: I64 = prf[contexts % size].min(1)
            return least
        if self.f_scheme == "skip":
            entry = contexts[:, 0] % size
        elif self.f_scheme == "additive":
            entry = contexts.sum(1) % size
        else:
            entry = np.ones(len(contexts), dtype=np.int64)
            for column in contexts.T:
                entry = entry * column % size
        f: I64 = prf[entry]
        return f


@dataclass(frozen=True)
class MarkllmUnigram(SeededGreens):
    """One green list for all contexts: numpy shuffles a mask under 32 bits of the key's SHA-256.

    There is no context: every token of the text counts, whatever stands before it, each type once or weighted by its
    count. The whole answer is marked from its first token.

    Attributes
    ----------
    vocabulary_size
        The ``vocab_size`` that MarkLLM's TransformersConfig was given.
    gamma
        Green share.
    """

    vocabulary_size: int
    gamma: float = 0.5

    name: ClassVar[str] = "markllm-unigram"
    system: ClassVar[str] = "MarkLLM 0.1.5"
    why_not_exact: ClassVar[str] = "32 bits of the key's hash choose the one green list, whose size is fixed"
    licence: ClassVar[str] = "MIT by its package; formula re-implemented"

    @property
    def context_width(self) -> int:
        """None."""
        return 0

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """1 for green; a token outside the vocabulary is red."""
        inside = (tokens >= 0) & (tokens < self.vocabulary_size)
        mask = _unigram_mask(key[0], self.vocabulary_size, self.count)
        return (mask[np.where(inside, tokens, 0)] & inside).astype(np.uint32)

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """The token, plus 1."""
        return tokens.astype(np.uint64) + np.uint64(1)


@lru_cache(maxsize=4)
def _unigram_mask(key: int, size: int, count: int) -> npt.NDArray[np.bool_]:
    digest = hashlib.sha256(key.to_bytes(8, "little", signed=True)).digest()
    mask = np.arange(size) < count
    np.random.default_rng(int.from_bytes(digest[:4], "little")).shuffle(mask)
    mask.flags.writeable = False
    return mask
