"""The registry of schemes: those of dyetrace, and any that an installed package offers under ``dyetrace.schemes``.

The foreign formats of `watermark.formats` are found by their names as well.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from watermark.errors import DyetraceError
from watermark.registry import Registry
from watermark.schemes.protocol import Scheme

SCHEMES = Registry(
    "scheme",
    "dyetrace.schemes",
    {
        "gumbel": "watermark.schemes.gumbel:Gumbel",
        "tournament": "watermark.schemes.tournament:Tournament",
        "green_list": "watermark.schemes.green_list:GreenList",
    },
)


def scheme_names() -> list[str]:
    """All schemes that mark text here; a spec may also name a format (`watermark.formats.format_names`)."""
    return SCHEMES.names()


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
    from watermark.formats import FORMATS

    found = SCHEMES.find(name) or FORMATS.find(name)
    if found is None:
        raise DyetraceError(
            f"no scheme is called {name!r}; installed here: {', '.join(scheme_names())}, "
            f"and formats of other systems: {', '.join(FORMATS.names())}"
        )
    return found
