"""A scheme by a third party: four shades of green instead of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from watermark import DyetraceError
from watermark.laws import Lattice

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Shades:
    """Adds ``strength`` nats times a token's shade, 0 to 3: the two lowest bits of its word."""

    strength: float = 1.0

    name: ClassVar[str] = "shades"
    samples: ClassVar[bool] = False
    unit: ClassVar[float] = 1.0
    law: ClassVar[Lattice] = Lattice(values=(0, 1, 2, 3), probabilities=(0.25,) * 4)

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 5:
            raise DyetraceError(f"shades: strength must lie in (0, 5] nats (got {self.strength})")

    def statistic(self, words: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        return (words & 3).astype(np.int64)

    def transform(self, logits: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        return logits + self.strength * (words & 3).to(logits.dtype)
