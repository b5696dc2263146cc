"""The placebo key: a watermark whose answers are never served to anybody, so that a sound test finds it nowhere.

The same pipeline, run on answers to the same prompts under a key that the suspect can't have met, shows what decoy keys
can't: a suspect that copies what it reads, one that looks ahead, one that was loaded wrongly, and rules of choosing
that favour marked text. Decoys test the arithmetic; a placebo tests the way to it.
"""

from __future__ import annotations

import msgspec

from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.spec import WatermarkSpec


def placebo(spec: WatermarkSpec, master: SecretKey, tenants: tuple[str, ...] = ()) -> tuple[WatermarkSpec, KeyRing]:
    """The placebo of a watermark: the same spec under a key of its own, and that key's ring.

    Parameters
    ----------
    spec
        The watermark.
    master
        Its master key; the placebo's is derived from it, so that there is nothing more to keep.
    tenants
        Accounts that the ring is to hold keys of.

    Raises
    ------
    DyetraceError
        The key is not the spec's.

    Examples
    --------
    >>> master = SecretKey(bytes(32))
    >>> spec = WatermarkSpec(vocabulary_size=100, tokenizer="t", key_fingerprint=master.fingerprint)
    >>> other, ring = placebo(spec, master)
    >>> other.key_fingerprint == ring.master_fingerprint != spec.key_fingerprint
    True
    """
    if master.fingerprint != spec.key_fingerprint:
        raise DyetraceError(
            f"wrong key: the spec is of key {spec.key_fingerprint}, and this key is {master.fingerprint}; a placebo is "
            "derived from the spec's own master key"
        )
    key = master.derive("placebo")
    return msgspec.structs.replace(spec, key_fingerprint=key.fingerprint), KeyRing.from_master(key, spec.epoch, tenants)
