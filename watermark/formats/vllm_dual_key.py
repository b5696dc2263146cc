"""`vllm-dual-key-gumbel`: vLLM's mark for speculative decoding, algorithm "dual_key_gumbel" (PRF "philox")."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from watermark.errors import DyetraceError
from watermark.formats.parts.fingerprints import fingerprints
from watermark.formats.parts.native_keys import decimal_key, drawn
from watermark.formats.parts.shapes import TwoKeyRace
from watermark.formats.protocol import I64, U64, NativeKey
from watermark.formats.vllm_gumbel import VllmGumbel


@dataclass(frozen=True)
class VllmDualKeyGumbel(TwoKeyRace):
    """Each token is chosen as `VllmGumbel` does, by key B with probability ``alpha``, else by key A.

    No one knows by which. Both keys come from the configured one: the first 8 bytes, big-endian, of SHA-256 of
    b"key_a" or b"key_b" and the key's own 8. Under speculative decoding key A marks what the draft model proposed and
    key B what was drawn anew. Contexts are those of `VllmGumbel`: generated tokens only, `ABSENT` before the first,
    repeated ones unmarked.

    A token's score is (1 - alpha) times key A's plus alpha times key B's, as in vLLM's own detector; the sum of n is a
    hypoexponential under the null, where vLLM's detector approximates it by one Gamma whose tail is too light.

    Attributes
    ----------
    context_width
        Generated tokens that are hashed.
    alpha
        Probability of key B, in (0, 1).
    """

    context_width: int = 4
    alpha: float = 0.1

    name: ClassVar[str] = "vllm-dual-key-gumbel"
    system: ClassVar[str] = "vLLM 0.32.0"
    licence: ClassVar[str] = "Apache-2.0; formula re-implemented"
    exact: ClassVar[bool] = True
    reads_prompt: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.context_width < 1:
            raise DyetraceError(f"{self.name}: context_width must be at least 1 (got {self.context_width})")
        if not 0.0 < self.alpha < 1.0:
            raise DyetraceError(f"{self.name}: alpha must lie in (0, 1), or one key marks alone (got {self.alpha})")

    @property
    def single(self) -> VllmGumbel:
        """How each of the two keys marks by itself."""
        return VllmGumbel(self.context_width)

    @property
    def weights(self) -> tuple[float, float]:
        """The weights of key A's and of key B's score."""
        return 1.0 - self.alpha, self.alpha

    def key_pair(self, key: NativeKey) -> tuple[NativeKey, NativeKey]:
        """Keys A and B, each as `single` takes it."""
        return (_derived(key[0], b"key_a"),), (_derived(key[0], b"key_b"),)

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """Fingerprints of (context, token): nothing of either is lost on the way to the cipher."""
        return fingerprints(contexts, tokens)

    def draw_key(self, seed: bytes) -> NativeKey:
        """64 uniform bits, from which both keys are derived."""
        return (drawn(seed, "dyt:vllm-dual", 64),)

    def parse_key(self, text: str) -> NativeKey:
        """The "key" of vLLM's configuration, a decimal number below 2^64."""
        return (decimal_key(text, "vLLM", 2**64 - 1),)


def _derived(key: int, role: bytes) -> int:
    return int.from_bytes(hashlib.sha256(role + key.to_bytes(8, "big")).digest()[:8], "big")
