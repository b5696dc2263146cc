"""Reading JSON with a version field: another release's version takes the blame for what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from watermark.errors import DyetraceError

_T = TypeVar("_T", bound=msgspec.Struct)


class _Versioned(msgspec.Struct):
    version: int | None = None


def parse_versioned(
    data: bytes, kind: type[_T], where: str, *, what: str, restore: str, check_version: Callable[[int], None]
) -> _T:
    """Decode JSON as ``kind``.

    Parameters
    ----------
    data, where
        The JSON, and what messages call the place.
    kind
        What it holds; its own checks may raise DyetraceError.
    what
        "a watermark spec": what it ought to be.
    restore
        What to do where it is not whole JSON.
    check_version
        Raises DyetraceError for a version that is not this release's.

    Raises
    ------
    DyetraceError
        Not JSON, an unknown or missing field, a value out of range, or another version.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, DyetraceError):
            raise DyetraceError(f"{where}: {error.__cause__}") from None
        _refuse_foreign_version(data, where, check_version)
        raise DyetraceError(f"{where} is not {what}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DyetraceError(f"{where} is not whole JSON ({error}); {restore}") from None


def check_known_version(version: int, known: int, name: str) -> None:
    """Raise DyetraceError unless a file, "spec" say, has the version that this release reads."""
    if version != known:
        raise DyetraceError(
            f"this {name} has version {version}, but this dyetrace reads version {known}; use the release that wrote it"
        )


def _refuse_foreign_version(data: bytes, where: str, check_version: Callable[[int], None]) -> None:
    """Blame the version, where it is foreign, for whatever else could not be read."""
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if version is not None:
        try:
            check_version(version)
        except DyetraceError as error:
            raise DyetraceError(f"{where}: {error}") from None
