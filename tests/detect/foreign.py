"""Text under foreign marks: what each system would choose among random candidates, computed with the format's words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.watermark.formats.test_registry import VOCABULARY, spec
from watermark.formats.protocol import ABSENT, Format
from watermark.keys import KeyRing
from watermark.keys.foreign import ForeignKey
from watermark.spec import WatermarkSpec

CANDIDATES = 8


def fresh_keys(scheme: Format, seed: str, count: int) -> Iterator[ForeignKey]:
    """Keys that no text knew, drawn as the format's users draw them."""
    for number in range(count):
        drawn = hashlib.sha256(f"{seed} {number}".encode()).digest()
        yield ForeignKey(scheme.name, scheme.draw_key(drawn), drawn[:16])


def owner(name: str, **changes: Any) -> tuple[WatermarkSpec, KeyRing, ForeignKey]:
    """A spec of the format with a key of its own."""
    scheme: Any = spec(name, **changes).build_scheme()
    [key] = fresh_keys(scheme, "owner", 1)
    return spec(name, key_fingerprint=key.fingerprint, **changes), KeyRing.from_foreign(key), key


def marked(made: WatermarkSpec, key: ForeignKey | None, length: int, seed: int = 0) -> np.ndarray:
    """Ids of one answer: the candidate with the largest statistic, or the first one where there is no key."""
    scheme: Any = made.build_scheme()
    rng, ids = np.random.default_rng(seed), np.empty(length, dtype=np.int64)
    for position in range(length):
        candidates = rng.integers(0, VOCABULARY, CANDIDATES)
        context = np.full(scheme.context_width, ABSENT, dtype=np.int64)
        known = min(position, scheme.context_width)
        context[scheme.context_width - known :] = ids[position - known : position]
        best = 0
        if key is not None:
            words = scheme.words(key.native, np.tile(context, (CANDIDATES, 1)), candidates)
            best = int(np.argmax(scheme.statistic(words)))
        ids[position] = candidates[best]
    return ids.astype(np.uint32)
