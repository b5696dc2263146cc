"""The placebo's key is another one, and the same one each time; whoever lacks the master key has none."""

from __future__ import annotations

import pytest

from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.placebo import placebo
from watermark.spec import WatermarkSpec, check_key

MASTER = SecretKey(bytes(range(32)))
SPEC = WatermarkSpec(vocabulary_size=100, tokenizer="t", key_fingerprint=MASTER.fingerprint, epoch=3)


def test_a_placebo_is_the_same_watermark_under_an_unrelated_key() -> None:
    spec, ring = placebo(SPEC, MASTER, ("acme",))
    check_key(spec, ring.master_fingerprint)
    own = KeyRing.from_master(MASTER, 3, ("acme",))
    assert ring.global_key != own.global_key and ring.tenants["acme"] != own.tenants["acme"]
    assert ring.selector != own.selector
    assert spec.spec_id != SPEC.spec_id
    assert placebo(SPEC, MASTER, ("acme",))[1].global_key == ring.global_key
    assert (spec.scheme, spec.context_width, spec.subkeys, spec.tokenizer) == (
        SPEC.scheme,
        SPEC.context_width,
        SPEC.subkeys,
        SPEC.tokenizer,
    )


def test_a_placebo_of_another_key_is_refused() -> None:
    with pytest.raises(DyetraceError, match="derived from the spec's own master key"):
        placebo(SPEC, SecretKey(bytes(32)))
