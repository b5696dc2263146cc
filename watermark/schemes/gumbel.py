"""`gumbel`: the exponential-race watermark (Aaronson 2022), distortion-free for each token; the default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from watermark.laws import Exponential
from watermark.prf import U32
from watermark.schemes.protocol import I64

if TYPE_CHECKING:
    import torch

_FRACTION_BITS = 24


@dataclass(frozen=True)
class Gumbel:
    """Chooses argmax over v of log(u_v) / p_v, u = (word + 1/2) / 2^32 (Aaronson 2022; Kuditipudi et al. 2023, 2.3).

    The uniforms have steps of 2^-32, so the choice's law is off by less than 2^-33 for each vocabulary entry in total
    variation. A token's score is -log(1 - u) nats at the lower end of its word's cell, rounded down to 2^-24 nats;
    so P(score >= s) <= e^-s, and n scores sum to at most Gamma(n, 1) under the null.
    """

    name: ClassVar[str] = "gumbel"
    samples: ClassVar[bool] = True

    @property
    def law(self) -> Exponential:
        """Standard exponential, in nats."""
        return Exponential()

    @property
    def unit(self) -> float:
        """One unit is 2^-24 nats."""
        return 2.0**-_FRACTION_BITS

    def statistic(self, words: U32) -> I64:
        """-log(1 - u) of each word, in units of 2^-24 nats."""
        # The upper end of the word's cell of 1 - u, so that P(score >= s) <= e^-s for every s.
        complement = np.float64(2**32) - words
        nats = 32 * np.log(2.0) - np.log(complement)
        units: I64 = np.floor(nats * 2**_FRACTION_BITS).astype(np.int64)
        return units

    def transform(self, logits: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Leave 0 at the chosen token and -inf elsewhere."""
        import torch

        u = (words.to(torch.float64) + 0.5) * 2.0**-32
        race = logits.to(torch.float64) - torch.log(-torch.log(u))
        choice = race.argmax(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter_(-1, choice, 0.0)

    def transform_rows(self, logits: torch.Tensor, keys: object, nonces: object) -> torch.Tensor | None:
        """The same for whole rows without forming the words that cannot win."""
        from watermark.backends import rows

        return rows.gumbel(logits, keys, nonces)

    def choose_rows(self, logits: torch.Tensor, keys: object, nonces: object) -> torch.Tensor | None:
        """The chosen tokens alone."""
        from watermark.backends import rows

        return rows.gumbel_choices(logits, keys, nonces)
