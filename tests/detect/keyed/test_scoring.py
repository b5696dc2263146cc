"""Tallies: integer sums that agree with the primitive one tuple at a time, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest

from detect.keyed import scoring
from detect.keyed.owners import owned
from detect.keyed.scoring import totals
from detect.text.distinct import distinct_tuples
from watermark.keys import KeyRing, SecretKey
from watermark.prf import prf_u32
from watermark.registry import make_scheme
from watermark.spec import WatermarkSpec

KEYS = [SecretKey(bytes([i]) * 32) for i in range(3)]


@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 7])
def test_totals_are_the_sum_of_the_primitive_s_statistics(width: int) -> None:
    ids = np.random.default_rng(width).integers(0, 50, 200, dtype=np.uint32)
    tuples = distinct_tuples(ids, width)
    pairs = list(zip(tuples.contexts.tolist(), tuples.tokens.tolist(), strict=True))
    words = [np.array([prf_u32(key, c, t) for c, t in pairs], dtype=np.uint32) for key in KEYS]
    for scheme in ("gumbel", "tournament", "green_list"):
        made = make_scheme(scheme, {})
        expected = [int(made.statistic(some) @ tuples.counts) for some in words]
        assert totals(made, KEYS, tuples).tolist() == expected, scheme


def test_chunks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tuples = distinct_tuples(np.random.default_rng(1).integers(0, 900, 5_000, dtype=np.uint32), 2)
    scheme = make_scheme("gumbel", {})
    whole = totals(scheme, KEYS, tuples)
    monkeypatch.setattr(scoring, "_CHUNK", 97)
    assert totals(scheme, KEYS, tuples).tolist() == whole.tolist()


def test_the_selector_gives_each_context_to_one_key_in_the_spec_s_share() -> None:
    key = KEYS[0]
    tuples = distinct_tuples(np.random.default_rng(2).integers(0, 900, 20_000, dtype=np.uint32), 2)
    ring = KeyRing.from_master(key)

    def share(global_share: float) -> float:
        spec = WatermarkSpec(
            vocabulary_size=900, tokenizer="t", key_fingerprint=key.fingerprint, global_share=global_share
        )
        return float(owned(spec, ring.selector, tuples)[True].mean())

    assert share(1.0) == 1.0 and share(0.0) == 0.0
    assert abs(share(0.5) - 0.5) < 0.02 and abs(share(0.2) - 0.2) < 0.02


def test_a_document_of_no_tuples_has_totals_of_zero() -> None:
    empty = distinct_tuples(np.array([], dtype=np.uint32), 2)
    assert totals(make_scheme("gumbel", {}), KEYS, empty).tolist() == [0, 0, 0]
