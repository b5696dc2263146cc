"""The model or tokenizer that a command is given, or the demo's."""

from __future__ import annotations

from typing import Any

import click

from detect.cli.working import note
from watermark.errors import MachineError
from watermark.models.demo import demo_model_dir


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
