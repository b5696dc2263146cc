"""The registry of schemes: those of dyetrace, and any that an installed package offers under ``dyetrace.schemes``.

The foreign formats of `watermark.formats` are found by their names as well.
"""

from __future__ import annotations

from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any

from watermark.errors import DyetraceError
from watermark.schemes.protocol import Scheme

ENTRY_POINT_GROUP = "dyetrace.schemes"

# Ours stand here as well, so that a source tree that was never installed works.
_BUILT_IN = {
    "gumbel": "watermark.schemes.gumbel:Gumbel",
    "tournament": "watermark.schemes.tournament:Tournament",
    "green_list": "watermark.schemes.green_list:GreenList",
}


def scheme_names() -> list[str]:
    """All schemes that mark text here; a spec may also name a format (`watermark.formats.format_names`)."""
    return sorted(_BUILT_IN.keys() | entry_points(group=ENTRY_POINT_GROUP).names)


def make_scheme(name: str, parameters: dict[str, Any]) -> Scheme:
    """Return the scheme ``name`` with ``parameters``.

    Raises
    ------
    DyetraceError
        No such scheme, or a parameter that it does not know or allow.
    """
    import msgspec

    cls = _load(name)
    try:
        scheme: Scheme = msgspec.convert(parameters, cls)
    except DyetraceError:
        raise
    except (msgspec.ValidationError, TypeError) as error:
        raise DyetraceError(f"scheme {name!r}: {error}") from None
    unknown = parameters.keys() - {field.name for field in fields(cls)}
    if unknown:
        raise DyetraceError(
            f"scheme {name!r} has no parameter {sorted(unknown)[0]!r}; it may come from a newer version"
        )
    return scheme


def _load(name: str) -> type[Any]:
    if name in _BUILT_IN:
        from pkgutil import resolve_name

        cls: type[Any] = resolve_name(_BUILT_IN[name])
        return cls
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            cls = entry.load()
        except (ImportError, AttributeError) as error:
            raise DyetraceError(
                f"scheme {name!r} is installed as {entry.value} but cannot be loaded: {error}"
            ) from error
        return cls
    from watermark.formats import format_names, load_format

    if name in format_names():
        return load_format(name)
    raise DyetraceError(
        f"no scheme is called {name!r}; installed here: {', '.join(scheme_names())}, "
        f"and formats of other systems: {', '.join(format_names())}"
    )
