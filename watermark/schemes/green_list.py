"""`green_list`: a bias towards a keyed part of the vocabulary (Kirchenbauer et al. 2023); works with any decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from watermark.errors import DyetraceError
from watermark.laws import Bernoulli
from watermark.prf import U32
from watermark.schemes.protocol import I64

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GreenList:
    """Adds ``delta`` to the logits of green tokens, word < gamma 2^32 (Kirchenbauer et al. 2023, algorithm 2).

    Attributes
    ----------
    gamma
        Green share of the vocabulary, in (0, 1).
    delta
        Bias in nats, in (0, 20]. It distorts the text: above 2 it is visible on small models.
    """

    gamma: float = 0.25
    delta: float = 2.0

    name: ClassVar[str] = "green_list"
    samples: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0.0 < self.gamma < 1.0:
            raise DyetraceError(f"green_list: gamma must lie in (0, 1) (got {self.gamma})")
        if not 0.0 < self.delta <= 20.0:
            raise DyetraceError(f"green_list: delta must lie in (0, 20] nats (got {self.delta})")

    @property
    def threshold(self) -> int:
        """A token is green when its word is below this: gamma 2^32, rounded."""
        return min(2**32 - 1, max(1, round(self.gamma * 2**32)))

    @property
    def law(self) -> Bernoulli:
        """Green with the probability that the 32-bit threshold really gives."""
        return Bernoulli(self.threshold / 2**32)

    @property
    def unit(self) -> float:
        """One unit is one green token."""
        return 1.0

    def statistic(self, words: U32) -> I64:
        """1 for green, else 0."""
        return (words < np.uint32(self.threshold)).astype(np.int64)

    def transform(self, logits: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Logits plus delta on green."""
        return logits + (words < self.threshold).to(logits.dtype) * self.delta

    def transform_rows(self, logits: torch.Tensor, keys: object, nonces: object) -> torch.Tensor | None:
        """The same in one pass over the logits."""
        from watermark.backends import rows

        return rows.green_list(logits, keys, nonces, self.threshold, self.delta)
