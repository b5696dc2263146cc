"""What a request may ask of the hook, checked against what the operator allows.

A request is the client's: it may name an account at most, opt out or choose a sub-key where the operator allows it. No
key ever travels in it. A proxy that knows the account is the usual place to set ``dyetrace_tenant``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from watermark.engines.hook.settings import Settings
from watermark.errors import DyetraceError
from watermark.keys import check_tenant_name
from watermark.rowkeys import selector_threshold
from watermark.spec import WatermarkSpec

PREFIX = "dyetrace_"
TENANT, MARK, SUBKEY = "dyetrace_tenant", "dyetrace_mark", "dyetrace_subkey"

Unmarked = Literal["opted out", "greedy", "beam search", "no tenant", "not admitted"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an engine will decode a request.

    Attributes
    ----------
    greedy, beams
        Whether tokens are chosen as the likeliest ones, or by beam search: neither leaves a sampling scheme a choice.
    samples
        Answers to the one prompt.
    """

    greedy: bool = False
    beams: bool = False
    samples: int = 1


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request as it will be served: its account, the sub-key that it asked for, or why it stays unmarked."""

    tenant: str | None
    subkey: int | None = None
    unmarked: Unmarked | None = None


def admit(arguments: Mapping[str, Any] | None, decoding: Decoding, settings: Settings, spec: WatermarkSpec) -> Admitted:
    """Read a request's arguments (all whose name begins with ``dyetrace_``; others are not ours).

    Parameters
    ----------
    arguments
        ``dyetrace_tenant``: the account. ``dyetrace_mark``: "on" or "off". ``dyetrace_subkey``: its number.
    decoding
        What the request asks of the engine.
    settings, spec
        What the operator allows, and the watermark.

    Raises
    ------
    DyetraceError
        An unknown argument, a value that is not allowed, or a request that can't be marked and must be; the engine
        answers the client with the message.
    """
    ours = {name: value for name, value in (arguments or {}).items() if str(name).startswith(PREFIX)}
    for name in ours:
        if name not in (TENANT, MARK, SUBKEY):
            raise DyetraceError(f"unknown argument {name!r}; allowed are {TENANT}, {MARK} and {SUBKEY}")
    tenant = _tenant(ours.get(TENANT), settings, spec)
    subkey = _subkey(ours.get(SUBKEY), settings, spec)
    if _opted_out(ours.get(MARK, "on"), settings):
        return Admitted(tenant, unmarked="opted out")
    if tenant is None and selector_threshold(spec) < 2**32:
        return _unmarkable(
            Admitted(None, unmarked="no tenant"),
            settings,
            f"the request names no account; give {TENANT} in the request's extra arguments",
        )
    scheme = spec.build_scheme()
    if scheme.samples and (decoding.greedy or decoding.beams):
        why: Unmarked = "beam search" if decoding.beams else "greedy"
        mode = "beam search" if decoding.beams else "temperature 0"
        return _unmarkable(
            Admitted(tenant, unmarked=why),
            settings,
            f"{mode} leaves the watermark {spec.scheme!r} nothing to choose; sample with a temperature above 0",
        )
    if scheme.samples and decoding.samples > spec.subkeys and settings.fresh_share == 0:
        raise DyetraceError(
            f"{decoding.samples} samples of one prompt would repeat each other: the watermark has {spec.subkeys} "
            f"sub-keys; ask for at most {spec.subkeys}"
        )
    if subkey is not None and decoding.samples > 1 and scheme.samples:
        raise DyetraceError(f"{SUBKEY} with several samples would give the same text several times; leave it out")
    return Admitted(tenant, subkey)


def _unmarkable(request: Admitted, settings: Settings, message: str) -> Admitted:
    if settings.on_unmarkable == "error":
        raise DyetraceError(message)
    return request


def _tenant(value: Any, settings: Settings, spec: WatermarkSpec) -> str | None:
    if selector_threshold(spec) == 2**32:
        if value is not None:
            raise DyetraceError(f"this server's watermark has no accounts; leave {TENANT} out")
        return None
    if value is None:
        return settings.default_tenant
    if not isinstance(value, str):
        raise DyetraceError(f"{TENANT} must be a string (got {type(value).__name__})")
    check_tenant_name(value)
    if settings.tenants is not None and value not in settings.tenants:
        raise DyetraceError(f"account {value!r} is not known to this server")
    return value


def _opted_out(value: Any, settings: Settings) -> bool:
    if value not in ("on", "off"):
        raise DyetraceError(f"{MARK} must be 'on' or 'off' (got {value!r})")
    if value == "off" and not settings.allow_off:
        raise DyetraceError(f"this server marks all its output: {MARK} 'off' is not allowed")
    return bool(value == "off")


def _subkey(value: Any, settings: Settings, spec: WatermarkSpec) -> int | None:
    if value is None:
        return None
    if not settings.allow_subkey:
        raise DyetraceError(f"this server chooses sub-keys itself: {SUBKEY} is not allowed")
    whole = (isinstance(value, float) and value.is_integer()) or (
        isinstance(value, int) and not isinstance(value, bool)
    )
    if not whole:
        raise DyetraceError(f"{SUBKEY} must be a whole number (got {value!r})")
    if not 0 <= value < spec.subkeys:
        raise DyetraceError(f"{SUBKEY} must lie in 0 .. {spec.subkeys - 1} (got {int(value)})")
    return int(value)
