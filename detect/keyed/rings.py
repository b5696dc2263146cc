"""The keys that a scan tests, in a fixed order, and the decoys that it runs beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from detect.keyed.batch import TestedKey
from detect.keyed.decoys import decoy_globals
from detect.keyed.owners import NO_KEY, tested_keys
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_format
from watermark.keys import AnyKey, KeyRing, MarkingKey, SecretKey, TenantKey, load_key
from watermark.keys.foreign import ForeignKey
from watermark.rowkeys import subkey
from watermark.schemes.protocol import Scheme
from watermark.spec import WatermarkSpec, check_key


@dataclass(frozen=True, slots=True)
class KeySet:
    """Specs, their schemes and selectors, and all keys to test."""

    specs: tuple[WatermarkSpec, ...]
    schemes: tuple[Scheme, ...]
    selectors: tuple[SecretKey, ...] = field(repr=False)
    keys: tuple[TestedKey, ...] = field(repr=False)
    fingerprint: str

    @property
    def subkeys(self) -> int:
        """The largest number of sub-keys of any spec."""
        return max(spec.subkeys for spec in self.specs)


def key_set(specs: Sequence[WatermarkSpec], rings: Sequence[KeyRing]) -> KeySet:
    """All keys of the rings, spec by spec."""
    keys = []
    for number, (spec, ring) in enumerate(zip(specs, rings, strict=True)):
        of_spec = f"epoch {spec.epoch}" if len({s.epoch for s in specs}) > 1 else ""
        if not of_spec and len(specs) > 1:
            of_spec = f"{spec.scheme} {spec.spec_id[:12]}"
        for name, key in tested_keys(spec, ring).items():
            parts = tuple(subkey(key, i) for i in range(spec.subkeys))
            keys.append(TestedKey(replace(name, of_spec=of_spec), number, parts))
    if not keys:
        raise DyetraceError(NO_KEY)
    return KeySet(
        specs=tuple(specs),
        schemes=tuple(spec.build_scheme() for spec in specs),
        selectors=tuple(ring.selector for ring in rings),
        keys=tuple(keys),
        fingerprint=rings[0].master_fingerprint,
    )


def rings_of(
    source: str,
    specs: Sequence[WatermarkSpec],
    tenants: Sequence[str],
    *,
    counted: bool = False,
    global_key: bool = True,
) -> list[KeyRing]:
    """The rings that this party's key gives: a master key any epoch's and tenant's, a tenant's or foreign key its own.

    counted
        A ledger counts by account, whether the spec marks by account or not: then keys of accounts are of use.
    global_key
        Whether rings hold the global key, where the key gives it: a report of accounts alone is recomputed without.

    Raises
    ------
    DyetraceError
        The key is not that of the specs, a tenant's key was asked for others, or there are no tenants in the specs.
    """
    if not isinstance(source, str):  # nothing is said of what may be the key itself
        raise DyetraceError("a key is given by where it is: file:PATH, env:NAME or cmd:COMMAND")
    if isinstance(tenants, str):  # else each of its letters would be an account
        raise DyetraceError("tenants are several names: give a tuple or list of them")
    key = load_key(source)
    if not counted and not any(is_format(spec.build_scheme()) or spec.global_share < 1 for spec in specs):
        _refuse_tenants(key, tuple(tenants))
    rings = [ring_of(key, spec, tenants) for spec in specs]
    return rings if global_key else [replace(ring, global_key=None) for ring in rings]


def ring_of(key: AnyKey, spec: WatermarkSpec, tenants: Sequence[str]) -> KeyRing:
    """The ring that a key gives for one spec; DyetraceError where it is not the spec's, or not that of the tenants."""
    if is_format(spec.build_scheme()) or isinstance(key, ForeignKey):
        return _foreign_ring(key, spec, tenants)
    if isinstance(key, SecretKey):
        check_key(spec, key.fingerprint)
        return KeyRing.from_master(key, spec.epoch, tuple(dict.fromkeys(tenants)))
    check_key(spec, key.master_fingerprint)
    if key.epoch != spec.epoch:
        raise DyetraceError(f"the tenant key is of epoch {key.epoch}, but the spec is of epoch {spec.epoch}")
    if any(name != key.tenant for name in tenants):
        raise DyetraceError(f"this key is of tenant {key.tenant!r} alone; other tenants need the master key")
    return key.ring()


def _refuse_tenants(key: AnyKey, tenants: tuple[str, ...]) -> None:
    """Refuse accounts where the specs have none: every context is marked with the global key."""
    none = "the spec has no accounts: it marks everything with the global key"
    if tenants:
        raise DyetraceError(f"{none}; leave --tenant {tenants[0]!r} out, or give the spec that has it")
    if isinstance(key, TenantKey):
        raise DyetraceError(f"{none}, and this is the key of account {key.tenant!r} alone; give the spec that has it")


def _foreign_ring(key: AnyKey, spec: WatermarkSpec, tenants: Sequence[str]) -> KeyRing:
    if not isinstance(key, ForeignKey):
        raise DyetraceError(
            f"the spec is of format {spec.scheme!r}, but this is a key of dyetrace; give the key file that "
            "`dyetrace spec import` wrote beside the spec"
        )
    if key.format != spec.scheme:
        raise DyetraceError(
            f"the key is of format {key.format!r}, but the spec names {spec.scheme!r}; give its own key"
        )
    if tenants:
        raise DyetraceError(f"format {key.format!r} has one key and no tenants: leave --tenant out")
    check_key(spec, key.fingerprint)
    return KeyRing.from_foreign(key)


@lru_cache(maxsize=1)
def load_key_set(source: str, specs: tuple[bytes, ...], tenants: tuple[str, ...], global_key: bool) -> KeySet:
    """`key_set` of the key at ``source`` for specs given as JSON; a worker reads its key once."""
    import msgspec

    decoded = [msgspec.json.decode(spec, type=WatermarkSpec) for spec in specs]
    return key_set(decoded, rings_of(source, decoded, tenants, global_key=global_key))


def decoy_keys(seed: str, count: int, spec: WatermarkSpec) -> tuple[tuple[MarkingKey, ...], ...]:
    """Sub-keys of decoys number 0 .. count - 1; a decoy is tested like a global key that marks every context."""
    return _decoy_keys(seed, count, spec.canonical_json)


@lru_cache(maxsize=4)
def _decoy_keys(seed: str, count: int, spec_json: bytes) -> tuple[tuple[MarkingKey, ...], ...]:
    import msgspec

    spec = msgspec.json.decode(spec_json, type=WatermarkSpec)
    return tuple(tuple(subkey(key, i) for i in range(spec.subkeys)) for key in decoy_globals(seed, count, spec))
