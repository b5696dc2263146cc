"""What a foreign format is: another system's mark, read with that system's own pseudo-random values.

A format is a scheme whose words come from its own function of (key, context, token) in place of `watermark.prf`; all
else (statistic, law, unit) is as in `watermark.schemes.protocol`, so that detection, scans and traces take it as it is.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt

from watermark.keys.foreign import NativeKey as NativeKey
from watermark.prf import U32
from watermark.schemes.protocol import Scheme

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

ABSENT = -1
"""Stands in a context for a token before the beginning."""


@runtime_checkable
class Format(Scheme, Protocol):
    """One foreign format with its published parameters: a frozen dataclass whose fields are what the spec publishes."""

    system: ClassVar[str]
    """The system and version whose code this was checked against, e.g. "vLLM 0.32.0"."""

    exact: ClassVar[bool]
    """Whether the words of distinct inputs are independent and uniform over the choice of the key, to the precision
    that a p-value shows; where not, p-values come from decoy keys of the same format."""

    why_not_exact: ClassVar[str]
    """One sentence for the report; empty where ``exact``."""

    seed_bits: ClassVar[int]
    """Of a format that is not exact: bits of the seeds that stand between the key and its words, where words under
    distinct seeds are otherwise as good as independent (and those under one seed drawn without replacement, or equal
    and then of equal ``inputs``); the law then bounds p down to 2^-seed_bits. 0 where tuples hang together in ways
    that only decoy keys show: p is then the true key's rank among them."""

    reads_prompt: ClassVar[bool]
    """Whether contexts reach back into the prompt; False where they hold generated tokens alone, and then `ABSENT`
    stands before the first of them."""

    licence: ClassVar[str]
    """The system's licence, and what was taken from it, in a few words."""

    @property
    def context_width(self) -> int:
        """Context tokens that the words depend on."""
        ...

    def words(self, key: NativeKey, contexts: I64, tokens: I64) -> U32 | U64:
        """Words of n tuples: contexts (n, context_width), oldest first, `ABSENT` before the beginning; tokens (n,) ->
        (n,) uint32. For a green list 1 is green; for layers bit l is layer l's. A format whose law is `Hypoexponential`
        gives uint64, key A's word in the low half and key B's in the high half, and has a property ``single``: the
        format with one key whose statistic each half has.
        """
        ...

    def inputs(self, key: NativeKey, contexts: I64, tokens: I64) -> U64:
        """What is really hashed, as one number a tuple, (n,): tuples of one number share their word and count once."""
        ...

    # A format that is ranked may also have
    #     log10_bound(key, contexts, tokens) -> float
    # a proven bound on the chance, over keys as `draw_key` draws them, that tuples which count once each have as large
    # a total statistic as under this key; it takes over where no decoy is as extreme.

    def draw_key(self, seed: bytes) -> NativeKey:
        """A fresh key of the format's own key space, derived from 32 seed bytes; decoys are drawn with it."""
        ...

    def parse_key(self, text: str) -> NativeKey:
        """The key as the system's own configuration spells it; DyetraceError otherwise, which shows nothing of it."""
        ...


def is_format(scheme: Scheme) -> TypeGuard[Format]:
    """Whether a scheme is a foreign format, which is read and never written."""
    return hasattr(scheme, "draw_key")


def is_exact(scheme: Scheme) -> bool:
    """Whether p-values are the law's own tails: always for dyetrace's schemes."""
    return not is_format(scheme) or scheme.exact


def reads_prompt(scheme: Scheme) -> bool:
    """Whether contexts reach back into the prompt, as dyetrace's own do."""
    return bool(getattr(scheme, "reads_prompt", True))
