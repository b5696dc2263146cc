"""The packages that language models need: found or named, and kept quiet while they work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from watermark.errors import MachineError


def require_model_packages(gguf: bool = False) -> None:
    """Refuse with the command that installs what language models need."""
    from importlib.util import find_spec

    needed = ["torch", "transformers", "accelerate", *(["gguf"] if gguf else [])]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        extra = "demo" if gguf else "model"
        names = ", ".join(missing)
        raise MachineError(f"language models need {names}: run `pip install 'dyetrace[{extra}]'`")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Only errors and no progress bars from transformers inside the block; its settings are put back."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
