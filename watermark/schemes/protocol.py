"""What a scheme is: how it marks a distribution, what it scores, and the law of that score without the key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from watermark.laws import Law
from watermark.prf import U32

if TYPE_CHECKING:
    import torch

I64 = npt.NDArray[np.int64]


@runtime_checkable
class Scheme(Protocol):
    """One watermark scheme with its parameters: a frozen dataclass whose fields are what the spec publishes.

    A scheme may also define ``transform_rows(logits, keys, nonces) -> Tensor | None``: the same marking fused with the
    generation of the words for a whole vocabulary, or None where no fused kernel serves that device. One that leaves a
    single choice, and chooses the same among fewer candidates as long as its choice is among them, may define
    ``choose_rows(logits, keys, nonces) -> Tensor | None``: the choices alone, (b,) int64.
    """

    name: ClassVar[str]
    """The name in specs and of the entry point."""

    samples: ClassVar[bool]
    """True: the scheme stands in for sampling and must see the final distribution (after temperature, top-k, top-p
    and penalties); it cannot mark greedy text. False: it adds a bias and works with any decoding."""

    @property
    def law(self) -> Law:
        """The law of one tuple's statistic when the key is unknown to the text's author."""
        ...

    @property
    def unit(self) -> float:
        """What one unit of the integer statistic is worth (nats for `gumbel`, 1 for counts)."""
        ...

    def statistic(self, words: U32) -> I64:
        """Score of each tuple from its word, in integer units: (n,) uint32 -> (n,) int64."""
        ...

    def transform(self, logits: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Mark distributions; the definition that every fused kernel is checked against.

        Parameters
        ----------
        logits
            Shape (b, k) float32, -inf where a token is excluded: the whole vocabulary, or k candidates.
        words
            Shape (b, k) int64 in [0, 2^32): the word of each entry.

        Returns
        -------
        Shape (b, k) float32 logits. A scheme that chooses leaves 0 at its choice and -inf elsewhere.
        """
        ...


def parameters(scheme: Scheme) -> dict[str, Any]:
    """The scheme's published parameters, as they stand in a spec."""
    from dataclasses import asdict

    return asdict(scheme)  # type: ignore[call-overload, no-any-return]
