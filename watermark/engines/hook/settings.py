"""What the operator of a server decides, from a file and from environment variables.

``DYETRACE_CONFIG`` names a TOML or JSON file with the fields of `Settings`; a variable ``DYETRACE_<FIELD>`` overrides
its field (lists with commas). Where neither the file nor ``DYETRACE_SPEC`` is given, dyetrace is installed but not
configured, and marks nothing.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from watermark.errors import DyetraceError
from watermark.keys import check_tenant_name

CONFIG_VARIABLE = "DYETRACE_CONFIG"
_PREFIX = "DYETRACE_"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the operator decides.

    Attributes
    ----------
    spec
        Path of the spec. It is read anew when the file changes: to rotate keys, put the spec of the next epoch there.
    key
        Source of the master key: ``file:PATH``, ``env:NAME`` or ``cmd:COMMAND``.
    tenants
        Accounts that requests may name; None allows every valid name.
    default_tenant
        The account of requests that name none; None refuses them where the spec has tenants.
    allow_off, allow_subkey
        Whether a request may ask not to be marked, and choose its sub-key.
    on_unmarkable
        What becomes of a request that can't be marked (greedy decoding under a sampling scheme): ``error`` refuses it,
        ``pass`` serves it unmarked, counted and logged.
    fresh_share
        Share of positions left to the engine's own randomness, in [0, 1).
    watch_tokens
        Of each account so many recent tokens are watched for their mark; 0 watches none.
    alarm
        What happens when the mark has vanished from them: ``log`` an error, or ``stop`` the engine.
    ledger, ledger_megabytes
        Folder of the ledger of served contexts (one file for each spec), and the size of each; None keeps none.
    metrics
        File to which counters are written in Prometheus' text format; None writes none.
    reload_seconds
        How often the spec file is looked at.
    """

    spec: str
    key: str
    tenants: list[str] | None = None
    default_tenant: str | None = None
    allow_off: bool = False
    allow_subkey: bool = False
    on_unmarkable: Literal["error", "pass"] = "error"
    fresh_share: float = 0.0
    watch_tokens: int = 1024
    alarm: Literal["log", "stop"] = "log"
    ledger: str | None = None
    ledger_megabytes: int = 64
    metrics: str | None = None
    reload_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.fresh_share < 1.0:
            raise DyetraceError(f"fresh_share must lie in [0, 1) (got {self.fresh_share})")
        if self.watch_tokens and self.watch_tokens < 256:
            raise DyetraceError(f"watch_tokens must be 0, or at least 256 to tell anything (got {self.watch_tokens})")
        if self.ledger_megabytes < 1:
            raise DyetraceError(f"ledger_megabytes must be at least 1 (got {self.ledger_megabytes})")
        for name in [*(self.tenants or []), *([self.default_tenant] if self.default_tenant else [])]:
            check_tenant_name(name)

    def __repr__(self) -> str:
        # A key source such as cmd:... may itself tell more than a log should hold.
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name != "key"}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())}, key=<redacted>)"


def load_settings(environment: Mapping[str, str] | None = None) -> Settings | None:
    """The settings of this process; None where dyetrace is not configured.

    Raises
    ------
    DyetraceError
        The file cannot be read; a field is unknown, missing or out of range.
    """
    variables = os.environ if environment is None else environment
    path = variables.get(CONFIG_VARIABLE)
    fields: dict[str, Any] = {} if path is None else _read(Path(path))
    where = "the environment" if path is None else path
    for name in Settings.__struct_fields__:
        value = variables.get(_PREFIX + name.upper())
        if value is not None:
            fields[name] = [part.strip() for part in value.split(",") if part.strip()] if name == "tenants" else value
    if not fields:
        return None
    try:
        return msgspec.convert(fields, Settings, strict=False)
    except DyetraceError as error:
        raise DyetraceError(f"settings of {where}: {error}") from None
    except msgspec.ValidationError as error:
        # The message names the field and never the value.
        fields_are = ", ".join(Settings.__struct_fields__)
        raise DyetraceError(f"settings of {where}: {error}; the fields are {fields_are}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        found = msgspec.json.decode(data) if path.suffix == ".json" else tomllib.loads(data.decode())
    except OSError as error:
        raise DyetraceError(f"cannot read settings {path} ({CONFIG_VARIABLE}): {error.strerror}") from None
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise DyetraceError(f"settings {path} are neither TOML nor JSON (.json); mend the file") from None
    if not isinstance(found, dict):
        raise DyetraceError(f"settings {path} must be a table of fields")
    return found
