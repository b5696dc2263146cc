"""Models as records name them: where their parts are, in which form, and a hash over all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from detect.records.trace import ModelSeen
from detect.records.written import clean
from watermark.errors import DyetraceError
from watermark.models.gguf import number_formats
from watermark.models.given import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONVERTED,
    TOKENIZER,
    find_model,
    has_weights,
    json_of,
)


def model_seen(
    path: str | Path, tokenizer: Literal["same", "aligned", "text"], base: str | Path | None = None
) -> ModelSeen:
    """What a record says of a model.

    Parameters
    ----------
    path, base
        As for `watermark.models.folder.load_model`.
    tokenizer
        How its tokens stand to the spec's.

    Raises
    ------
    DyetraceError
        It is no model that can be read, or a file of it can't be read.
    """
    given = find_model(path, base)
    return ModelSeen(
        name=str(path),
        sha256=model_hash(path, base),
        tokenizer=tokenizer,
        base=None if given.base is None else str(given.base),
        base_sha256=None if given.base is None else _hash_of_whole(given.base),
        form=_form(path, base),
    )


def model_hash(path: str | Path, base: str | Path | None = None) -> str:
    """SHA-256 over a model's configuration, weights and tokenizer: names and contents, in order of names.

    Of an adapter it is over the adapter's own files and its base model's hash.

    Raises
    ------
    DyetraceError
        It is no adapter that can be read, or a file cannot be read.
    """
    place = Path(path).expanduser()
    if not (place / ADAPTER_CONFIG).is_file():
        return _hash_of_whole(place)
    given = find_model(place, base)
    digest = hashlib.sha256()
    _add(digest, [place / name for name in sorted((ADAPTER_CONFIG, *ADAPTER_WEIGHTS, TOKENIZER))], place)
    assert given.base is not None
    digest.update(f"base\0{_hash_of_whole(given.base)}\0".encode())
    return digest.hexdigest()


def _hash_of_whole(path: Path) -> str:
    digest = hashlib.sha256()
    place = path.expanduser()
    if place.is_file():
        _add(digest, [place], place)
        return digest.hexdigest()
    try:
        files = sorted(place.iterdir())
    except OSError as error:
        raise DyetraceError(f"cannot read model folder {path}: {error.strerror}") from None
    kinds = {".safetensors", ".bin"} if has_weights(place) else {".gguf"}
    # Where there is no tokenizer.json, one is made of other files.
    named = {"config.json", TOKENIZER} if (place / TOKENIZER).is_file() else {"config.json", *CONVERTED, "merges.txt"}
    _add(
        digest,
        [file for file in files if (file.suffix in kinds and file.name not in ADAPTER_WEIGHTS) or file.name in named],
        path,
    )
    return digest.hexdigest()


def _add(digest: hashlib._Hash, files: list[Path], of: Path) -> None:
    try:
        for file in files:
            if file.is_file() or file.is_symlink():
                with file.open("rb") as stream:
                    digest.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\0".encode())
    except OSError as error:
        raise DyetraceError(f"cannot read model folder {of}: {error.strerror}") from None


def template_hash(path: str | Path, base: str | Path | None = None) -> str:
    """SHA-256 over what else decides on the text that a model is shown: the files of its chat template."""
    digest = hashlib.sha256()
    place = Path(path).expanduser()
    folder = find_model(place, base).tokenizer if place.is_file() or (place / ADAPTER_CONFIG).is_file() else place
    for file in sorted(
        [
            folder / "tokenizer_config.json",
            *folder.glob("chat_template*"),
            *folder.glob("*chat_template*/*"),  # additional_chat_templates, for one
        ]
    ):
        if file.is_file():
            digest.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _form(path: str | Path, base: str | Path | None) -> str | None:
    """How a model's numbers are held where they aren't plain weights."""
    given = find_model(path, base)
    parts = []
    if given.adapter is not None:
        parts.append(f"{clean(str(json_of(given.adapter / ADAPTER_CONFIG).get('peft_type')), 30)} adapter")
    if given.gguf is not None:
        parts.append(f"GGUF ({number_formats(given.gguf)})")
    elif quantised := json_of(given.whole / "config.json").get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        parts.append(f"quantised ({clean(str(method or 'bitsandbytes'), 30)})")
    return " over ".join(parts) or None
