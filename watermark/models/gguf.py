"""GGUF files: read through transformers, which turns their numbers into the format that the model runs in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from watermark.errors import DyetraceError, MachineError
from watermark.models.given import SERVE, shown

_CONVERT = f"convert it to a folder of safetensors, or {SERVE}"
_ROPE = "rope.scaling.type"


def number_formats(file: Path) -> str:
    """How a GGUF file holds its numbers, such as "Q4_K, Q6_K and F32", the most common first.

    Raises
    ------
    DyetraceError
        It is none.
    MachineError
        The gguf package is missing.
    """
    counts = Counter(tensor.tensor_type.name for tensor in opened(file).tensors)
    names = [name for name, _ in counts.most_common()]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def opened(file: Path) -> Any:
    """A reader of a GGUF file (``gguf.GGUFReader``)."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise MachineError("GGUF files need gguf: run `pip install 'dyetrace[demo]'`") from None
    try:
        reader = GGUFReader(file)
    except Exception as error:  # it raises what numpy and struct raise
        reason = shown(error, 200)
        raise DyetraceError(f"{file} is no GGUF file that can be read: {reason}; get it again") from error
    if not reader.tensors:
        raise DyetraceError(f"{file} holds no weights; get it again")
    return reader


def check_gguf(file: Path, network: Any) -> None:
    """Refuse a model of which transformers left out what a GGUF file holds.

    Raises
    ------
    DyetraceError
        Weights or a scaling of positions were passed over.
    """
    reader = opened(file)
    held = sum(int(tensor.n_elements) for tensor in reader.tensors)
    mine = sum(parameter.numel() for parameter in network.parameters())
    if held != mine:
        raise DyetraceError(
            f"{file} holds {held:,} numbers, and the model that transformers makes of it has {mine:,}: some were "
            f"passed over (such as rope_freqs, the scaling of positions of Llama 3.1); {_CONVERT}"
        )
    scaled = next((field for name, field in reader.fields.items() if name.endswith(_ROPE)), None)
    told = getattr(network.config.get_text_config(), "rope_parameters", None) or {}
    if scaled is not None and scaled.contents() not in ("none", "default", told.get("rope_type")):
        raise DyetraceError(
            f"{file} scales positions ({shown(scaled.contents(), 60)}), which transformers does not read of it; "
            f"{_CONVERT}"
        )
