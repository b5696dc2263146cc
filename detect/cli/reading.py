"""What commands are given and read before their work: keys, accounts, models, a commitment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from detect.cli.options.shared import Tested
from detect.cli.working import note
from detect.keyed.rings import rings_of
from detect.text.artefacts import check_text
from watermark.commitment import Commitment, load_commitment
from watermark.errors import DyetraceError, MachineError
from watermark.keys import KeyRing
from watermark.models.demo import demo_model_dir
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


def model_folder(model_dir: str | None) -> Any:
    """The given folder, or the demo model's, which is fetched when it isn't there yet."""
    if model_dir is not None:
        return model_dir
    try:
        return demo_model_dir(note)
    except MachineError as error:
        raise MachineError(f"{error}{_own_model()}") from None


def _own_model() -> str:
    """By which option of the running command another model than the demo's is given, if there is one."""
    context = click.get_current_context(silent=True)
    names = {name for p in (context.command.params if context else ()) for name in p.opts}
    return next((f" ({name})" for name in ("--tokenizer", "--model") if name in names), "")


def load_model(model_dir: str | None, dtype: str) -> tuple[Any, Any]:
    """Model and tokenizer of a folder, or of the demo model."""
    from watermark.models.folder import load_model as load

    note("loading the model")
    return load(model_folder(model_dir), dtype, note)
