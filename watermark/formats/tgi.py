"""`tgi`: what Text Generation Inference writes for a request with ``watermark: true``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from watermark.formats.parts.permutation import seeds_of_products
from watermark.formats.parts.seeded_greens import SeededGreens
from watermark.formats.protocol import I64, NativeKey
from watermark.prf import U32


@dataclass(frozen=True)
class Tgi(SeededGreens):
    """Kirchenbauer et al. 2023, algorithm 2: seed = key * previous token.

    The key stands in the server's source (15485863), so anyone can write and strip this mark. The context is the last
    token of the model's input, for the first generated token the prompt's last. Repeated contexts are marked alike.
    After token 0 the seed is 0 under every key: such tokens prove nothing and count as one that is red.

    Attributes
    ----------
    vocabulary_size
        The width of the model's logits.
    gamma
        The server's environment variable ``WATERMARK_GAMMA``.
    """

    vocabulary_size: int
    gamma: float = 0.5

    name: ClassVar[str] = "tgi"
    system: ClassVar[str] = "Text Generation Inference (commit 05e9a79)"
    why_not_exact: ClassVar[str] = "the key is public, and torch keeps 32 bits of the seed key * previous token"
    licence: ClassVar[str] = "Apache-2.0 (HFOILv1.0 in 1.0 to 1.3); formula re-implemented"

    @property
    def context_width(self) -> int:
        """The previous token."""
        return 1

    @property
    def keyless_seed(self) -> int:
        """That of token 0."""
        return 0

    def seeds(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Key * previous; torch itself takes a negative seed mod (2^64 - 1)."""
        return seeds_of_products(key[0], contexts[:, -1])
