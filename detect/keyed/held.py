"""Which of a report's keys a party holds: the owner's master key gives all of them, an account's own key its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from detect.keyed.owners import tested_keys
from detect.keyed.rings import rings_of
from detect.records.key_name import GLOBAL, KeyName
from watermark.errors import DyetraceError
from watermark.formats.protocol import is_format
from watermark.keys import KeyRing, SecretKey, TenantKey, load_key
from watermark.keys.foreign import SALT_BYTES, ForeignKey
from watermark.spec import WatermarkSpec


def ring_on_record(source: str, spec: WatermarkSpec, names: Collection[str]) -> KeyRing:
    """The keys of a report that a party's key gives, and no others: its own test is of these alone.

    Parameters
    ----------
    source
        Where the key is.
    spec
        The report's.
    names
        Of all keys of the report.
    """
    keys = [KeyName.read(name) for name in names]
    accounts = tuple(key.tenant for key in keys if key.tenant is not None)
    own = isinstance(load_key(source), TenantKey)
    return rings_of(source, [spec], () if own else accounts, global_key=GLOBAL in keys)[0]


def held_keys(spec: WatermarkSpec, ring: KeyRing) -> list[str]:
    """Names of the keys that a ring holds, as a report has them."""
    return [str(name) for name in tested_keys(spec, ring)]


def stand_in(spec: WatermarkSpec, names: Collection[str]) -> KeyRing:
    """Keys that everybody knows under the names of a report's: for what no true key has a part in."""
    keys = [KeyName.read(name) for name in names]
    scheme = spec.build_scheme()
    if is_format(scheme):
        return KeyRing.from_foreign(ForeignKey(scheme.name, (), bytes(SALT_BYTES)))
    tenants = tuple(key.tenant for key in keys if key.tenant is not None)
    ring = KeyRing.from_master(SecretKey(b"a key that everybody knows......"), spec.epoch, tenants)
    return ring if GLOBAL in keys else replace(ring, global_key=None)


def own_part(keys: Collection[str], held: Collection[str]) -> set[str] | None:
    """Names of the keys of a report that a ring holds; None where it holds all, so that everything can be compared.

    Raises
    ------
    DyetraceError
        It holds none.
    """
    mine = set(keys) & set(held)
    if keys and not mine:
        raise DyetraceError(
            f"the report does not concern this key: it tests {', '.join(sorted(keys)[:5])}, and not {', '.join(held)}"
        )
    return mine if mine < set(keys) else None
