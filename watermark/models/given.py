"""What people give as a model: a folder with whole weights, an adapter over a base model, or a GGUF file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watermark.errors import DyetraceError

MERGE = "merge the adapter first (peft: merge_and_unload, then save_pretrained) and give the folder of the whole model"
SERVE = "serve it with an engine that you trust and trace its endpoint (dyetrace trace plan)"

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TOKENIZER = "tokenizer.json"
CONVERTED = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model", "vocab.json", "tekken.json")
"""Files of tokenizers that transformers turns into one of `tokenizers`, where there is no tokenizer.json."""

_HOW = "give a folder written by `save_pretrained`; models are never downloaded by name"
_LARGE = {".safetensors", ".bin", ".gguf", ".json", ".model", ".tiktoken"}
_POINTER = 1024  # bytes; a pointer has some 130
_NO_WEIGHTS = {*ADAPTER_WEIGHTS, "training_args.bin", "optimizer.bin", "scheduler.bin"}
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)  # of a GGUF file that was split


class NoBaseError(DyetraceError):
    """An adapter of which nobody says here where its base model is."""


@dataclass(frozen=True)
class GivenModel:
    """Where the parts of a model are.

    Attributes
    ----------
    path
        As given.
    whole
        The folder of the whole weights: the same, an adapter's base model, or the folder of a GGUF file.
    adapter
        The folder of an adapter; None where there is none.
    gguf
        The GGUF file; None where weights are those of transformers.
    base
        An adapter's base model, as given or as the adapter names it; None where there is no adapter.
    """

    path: Path
    whole: Path
    adapter: Path | None = None
    gguf: Path | None = None
    base: Path | None = None

    @property
    def tokenizer(self) -> Path:
        """What the tokenizer is read from: a folder, or a GGUF file where no folder has one."""
        places = [self.whole] if self.adapter is None else [self.adapter, self.whole]
        found = next((place for place in places if has_tokenizer(place)), None)
        return found or self.gguf or self.whole


def find_model(path: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> GivenModel:
    """Look what a path holds, by the names of its files alone.

    Parameters
    ----------
    path
        A folder, or a GGUF file.
    base
        The base model, should the path be an adapter's.

    Raises
    ------
    DyetraceError
        It is nothing that can be read as a model, or more than one model.
    NoBaseError
        It is an adapter, and its base model is not here.
    """
    place = Path(path).expanduser()
    _refuse_pointers(place)
    if place.is_file() and place.suffix.lower() == ".gguf":
        return _of_gguf(place, place)
    if not place.is_dir():
        state = "is a file" if place.exists() else "does not exist"
        raise DyetraceError(f"model folder {place} {state}: {_HOW}")
    if (place / ADAPTER_CONFIG).is_file():
        return _of_adapter(place, None if base is None else Path(base).expanduser())
    if adapter := next((name for name in ADAPTER_WEIGHTS if (place / name).is_file()), None):
        raise DyetraceError(
            f"model folder {place} holds weights of an adapter ({adapter}) and no {ADAPTER_CONFIG}, which says how "
            "they are put on; get that file as well, or take them away if the whole weights beside them are the model"
        )
    return _whole(place)


def check_folder(path: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> None:
    """Refuse what is nothing that can be read as a model (`find_model`)."""
    find_model(path, base)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a tokenizer, in whichever form."""
    return any((folder / name).is_file() for name in (TOKENIZER, *CONVERTED)) or any(folder.glob("*.tiktoken"))


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights of a whole model."""
    names = {path.name for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern)}
    return bool(names - _NO_WEIGHTS)


def shown(text: object, most: int = 300) -> str:
    """What somebody else wrote, as one printable line of bearable length."""
    flat = " ".join(str(text)[: 8 * most].split())
    return "".join(letter if letter.isprintable() else "?" for letter in flat)[:most]


def few(names: Sequence[str]) -> str:
    """The first of some names that somebody else gave, for a refusal."""
    return ", ".join(shown(name, 120) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def json_of(path: Path) -> dict[str, Any]:
    """A file's object; nothing where it is broken, as whatever needs it then says how."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_pointers(place: Path) -> None:
    """Refuse files of which `git clone` brought the names alone."""
    files = [place] if place.is_file() else sorted(place.glob("*")) if place.is_dir() else []
    for file in files:
        if file.suffix.lower() in _LARGE and file.is_file() and file.stat().st_size < _POINTER:
            with file.open("rb") as opened:
                if opened.read(40).startswith(b"version https://git-lfs"):
                    raise DyetraceError(f"{file} is a pointer of Git LFS to the real file; run `git lfs pull` there")


def _whole(folder: Path) -> GivenModel:
    """A folder of whole weights, or of a GGUF file and nothing else that could be the model."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf" and path.is_file())
    if files and not has_weights(folder):
        if len(files) > 1 and not all(_PART.search(file.name) for file in files):
            raise DyetraceError(
                f"model folder {folder} holds {len(files)} GGUF files ({', '.join(file.name for file in files[:3])}"
                f"{', ...' if len(files) > 3 else ''}); give the path of the one that is meant"
            )
        return _of_gguf(folder, files[0])
    if not (folder / "config.json").is_file():
        raise DyetraceError(f"model folder {folder} has no config.json: {_HOW}")
    if not has_tokenizer(folder):
        raise DyetraceError(f"model folder {folder} has no tokenizer.json: {_HOW}")
    if not has_weights(folder):
        raise DyetraceError(f"model folder {folder} has no weights (*.safetensors or *.bin): {_HOW}")
    return GivenModel(folder, folder)


def _of_gguf(path: Path, file: Path) -> GivenModel:
    if _PART.search(file.name):
        raise DyetraceError(
            f"{file} is a part of a GGUF file that was split; join its parts (llama-gguf-split --merge), or {SERVE}"
        )
    return GivenModel(path, file.parent, gguf=file)


def _of_adapter(folder: Path, named: Path | None) -> GivenModel:
    config = json_of(folder / ADAPTER_CONFIG)
    if not isinstance(config.get("peft_type"), str):
        raise DyetraceError(
            f"model folder {folder} holds an adapter that is none of peft's ({ADAPTER_CONFIG}): {MERGE}"
        )
    if not any((folder / name).is_file() for name in ADAPTER_WEIGHTS):
        raise DyetraceError(
            f"model folder {folder} holds {ADAPTER_CONFIG} and no weights of an adapter "
            f"({' or '.join(ADAPTER_WEIGHTS)}): {MERGE}, or take {ADAPTER_CONFIG} away if whole weights beside it are "
            "the model"
        )
    if named is None and (folder / "config.json").is_file() and has_weights(folder):
        raise NoBaseError(
            f"model folder {folder} holds an adapter ({ADAPTER_CONFIG}) and whole weights beside it, and nothing says "
            f"whether it is merged into them already: {MERGE}, or move the adapter's files into a folder of their own"
        )
    base = named or _told(config.get("base_model_name_or_path"))
    if base is None:
        told = config.get("base_model_name_or_path")
        of = "which does not say of which base model" if not told else f"whose base model {told!r} is no folder here"
        raise NoBaseError(
            f"model folder {folder} holds an adapter ({ADAPTER_CONFIG}), {of}: {MERGE}, or write the folder of its "
            f"base model into base_model_name_or_path of {ADAPTER_CONFIG}"
        )
    if base.resolve() != folder.resolve() and (base / ADAPTER_CONFIG).is_file():
        raise DyetraceError(f"the base model {base} of the adapter {folder} is an adapter itself: {MERGE}")
    _refuse_pointers(base)
    whole = _whole(base) if base.is_dir() else find_model(base)
    return GivenModel(folder, whole.whole, adapter=folder, gguf=whole.gguf, base=base)


def _told(name: object) -> Path | None:
    """The folder that an adapter names as its base model, where it is one here; peft reads it in the same way."""
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    try:
        found = Path(name).expanduser()
        return found if found.exists() else None
    except (OSError, RuntimeError):  # a name that no file can have, a home that nobody has
        return None
