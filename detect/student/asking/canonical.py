"""The one byte string that stands for a plan, whichever release reads it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec


def canonical_json(plan: msgspec.Struct, added: Collection[str]) -> bytes:
    """All fields of a plan, sorted keys, no white space.

    Parameters
    ----------
    plan
        As it was read from JSON: a whole number given where a float belongs would be written in another way.
    added
        Names of fields, at whatever depth, that plans of earlier releases have not. One that says nothing (null or an
        empty list) is left out: so the hash of a plan that was published stays what it was.
    """
    return msgspec.json.encode(_without(msgspec.to_builtins(plan), frozenset(added)), order="sorted")


def _without(value: Any, added: frozenset[str]) -> Any:
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if name not in added or part not in (None, [])}
        return {name: _without(part, added) for name, part in kept.items()}
    return [_without(part, added) for part in value] if isinstance(value, list | tuple) else value
