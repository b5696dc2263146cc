"""`tournament`: SynthID-Text's non-distortionary tournament sampling (Dathathri et al. 2024) in its closed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from watermark.errors import DyetraceError
from watermark.laws import WeightedBits
from watermark.prf import U32
from watermark.schemes.protocol import I64

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tournament:
    """Two-candidate tournament of ``depth`` layers whose g-values are the bits of the word, layer 0 the lowest bit.

    Layer by layer p <- p (1 + g - sum_v p_v g_v) (Dathathri et al. 2024, supplementary information, the vectorised
    form of the two-candidate tournament). A token's score is sum_l (depth - l) g_l: early layers carry more signal.
    """

    depth: int = 30

    name: ClassVar[str] = "tournament"
    samples: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= 32:
            raise DyetraceError(f"tournament: depth must lie in 1 .. 32, the bits of a word (got {self.depth})")

    @property
    def weights(self) -> tuple[int, ...]:
        """The integer weight of each layer, first layer first."""
        return tuple(range(self.depth, 0, -1))

    @property
    def law(self) -> WeightedBits:
        """A weighted sum of fair bits."""
        return WeightedBits(self.weights)

    @property
    def unit(self) -> float:
        """One unit is one layer of weight 1."""
        return 1.0

    def statistic(self, words: U32) -> I64:
        """Weighted sum of the word's bits, by table look-up of its bytes."""
        total = np.zeros(words.shape, dtype=np.int64)
        for byte in range(-(-self.depth // 8)):
            total += _byte_scores(self.weights, byte)[(words >> np.uint32(8 * byte)) & 0xFF]
        return total

    def transform(self, logits: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Log-probabilities after all layers; the engine samples from them."""
        p = logits.softmax(-1)
        for layer in range(self.depth):
            g = ((words >> layer) & 1).to(p.dtype)
            p = p * (1 + g - (p * g).sum(-1, keepdim=True))
        return p.clamp_min_(0).log()

    def transform_rows(self, logits: torch.Tensor, keys: object, nonces: object) -> torch.Tensor | None:
        """The same with every layer's update and the next layer's mean in one pass."""
        from watermark.backends import rows

        return rows.tournament(logits, keys, nonces, self.depth)


@cache
def _byte_scores(weights: tuple[int, ...], byte: int) -> I64:
    """Score of each value of one byte of the word, shape (256,)."""
    values = np.arange(256)
    layers = range(8 * byte, min(len(weights), 8 * byte + 8))
    bits = [weights[layer] * ((values >> (layer - 8 * byte)) & 1) for layer in layers]
    scores: I64 = np.sum(bits, axis=0, dtype=np.int64)
    scores.flags.writeable = False  # it is shared by all calls
    return scores
