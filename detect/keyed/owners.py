"""Who marks a context: the global key or an account's, by a keyed bit of it; and which keys are tested on which.

A decoy and a foreign format's key stand for a global key that marks every context.
"""

from __future__ import annotations

from dataclasses import dataclass

from detect.records.key_name import GLOBAL, KeyName
from detect.text.distinct import Mask, Tuples
from watermark import prf
from watermark.errors import DyetraceError
from watermark.keys.secret import KeyRing, MarkingKey, SecretKey
from watermark.rowkeys import marks_globally, selector_threshold
from watermark.spec import WatermarkSpec

NO_KEY = "no key to test: the spec marks with tenants' keys alone; name accounts with --tenant"


def owned(spec: WatermarkSpec, selector: SecretKey, tuples: Tuples) -> dict[bool, Mask]:
    """Which tuples the global key marks (True), and which the account's (False): masks (n,), by `KeyName.is_global`."""
    mine = marks_globally(spec, selector, len(tuples), tuples.nonces)
    return {True: mine, False: ~mine}


def parted(spec: WatermarkSpec, selector: SecretKey, tuples: Tuples) -> dict[bool, Tuples]:
    """The tuples that the global key marks (True), and those of the account's (False), by `KeyName.is_global`."""
    return {of_global: tuples.take(mine) for of_global, mine in owned(spec, selector, tuples).items()}


def owned_contexts(spec: WatermarkSpec, selector: SecretKey, contexts: prf.U32) -> dict[bool, Mask]:
    """`owned` of contexts by themselves, shape (n, h)."""
    mine = marks_globally(spec, selector, len(contexts), lambda key: prf.nonces(contexts, key))
    return {True: mine, False: ~mine}


def tested_keys(spec: WatermarkSpec, ring: KeyRing) -> dict[KeyName, MarkingKey]:
    """The keys of the ring that mark anything under this spec."""
    threshold = selector_threshold(spec)
    found: dict[KeyName, MarkingKey] = {}
    if ring.global_key is not None and threshold > 0:
        found[GLOBAL] = ring.global_key
    if threshold < 2**32:
        found |= {KeyName(name): key for name, key in ring.tenants.items()}
    return found


def keys_to_test(spec: WatermarkSpec, ring: KeyRing) -> dict[KeyName, MarkingKey]:
    """`tested_keys`; DyetraceError where there is none."""
    keys = tested_keys(spec, ring)
    if not keys:
        raise DyetraceError(NO_KEY)
    return keys


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key to be tested and the tuples that it would have marked."""

    name: KeyName
    key: MarkingKey
    tuples: Tuples


def candidates(spec: WatermarkSpec, ring: KeyRing, tuples: Tuples) -> list[Candidate]:
    """Each tested key with the tuples whose contexts it marks."""
    parts = parted(spec, ring.selector, tuples)
    return [Candidate(name, key, parts[name.is_global]) for name, key in tested_keys(spec, ring).items()]
