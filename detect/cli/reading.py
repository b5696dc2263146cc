"""What commands are given and read before their work: keys, accounts, a commitment."""

from __future__ import annotations

from pathlib import Path

from detect.cli.options.shared import Tested
from detect.keyed.rings import rings_of
from detect.text.artefacts import check_text
from watermark.commitment import Commitment, load_commitment
from watermark.errors import DyetraceError
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec


def accounts_of(asked: Tested) -> tuple[str, ...]:
    """The accounts that are tested, each once."""
    return tuple(dict.fromkeys([*asked.tenants, *read_names(asked.tenants_file)]))


def tested_ring(asked: Tested, made: WatermarkSpec, *, counted: bool = False) -> KeyRing:
    """The keys that this party holds: a master key gives any tenant's, a tenant's key gives its own."""
    return rings_of(asked.key, [made], accounts_of(asked), counted=counted)[0]


def read_commitment(path: Path | None) -> Commitment | None:
    """The commitment that goes on record, if there is one."""
    return None if path is None else load_commitment(path)


def absolute_source(key: str) -> str:
    """A key source whose file is found from any folder: workers may run elsewhere."""
    kind, separator, path = key.partition(":")
    return f"file:{Path(path).absolute()}" if kind == "file" and separator else key


def read_names(path: Path | None) -> list[str]:
    """Accounts from a file, one a line."""
    if path is None:
        return []
    check_text(path, "--tenants-file")  # a key's text must not be taken for names, which messages repeat
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DyetraceError(f"cannot read tenants file {path}: {reason}") from None
    if not names:
        raise DyetraceError(f"--tenants-file {path} names no account; write one a line, or leave it out")
    return names
