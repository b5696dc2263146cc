"""Model folders as people have them: read whole and as they are, or refused in one line, never partly random.

transformers fills parameters that a folder lacks with random numbers, passes over those that it can't place, and may
ask to run code that lies beside the weights. A model read like that says nothing of the one that was trained.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watermark.errors import DyetraceError, MachineError, missing_of_machine

if TYPE_CHECKING:
    import torch

DTYPES = ("bfloat16", "float16", "float32")
DEVICES = ("auto", "cuda", "mps", "cpu")
"""Where a model may run; "auto" takes the first of an NVIDIA or AMD card ("cuda") and the CPU that there is."""

Progress = Callable[[str], None]

_WRAPPED = re.compile(r"(?:_orig_mod\.|module\.|base_model\.model\.)+")  # torch.compile, DataParallel, peft
_ADAPTER = re.compile(r"lora_|\.base_layer\.|\.modules_to_save\.")
_MERGE = "merge the adapter first (peft: merge_and_unload, then save_pretrained) and give the folder of the whole model"
_SERVE = "serve it with an engine that you trust and trace its endpoint (dyetrace trace plan)"
_NAMED = 3  # parameters that a refusal names


def load_model(
    path: str | os.PathLike[str],
    dtype: str = "bfloat16",
    progress: Progress | None = None,
    device: str = "cpu",
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer from a local folder.

    Parameters
    ----------
    path
        Folder as written by `save_pretrained` (config.json, weights, tokenizer.json). Weights whose names all
        stand under the prefix of a known wrapper (``_orig_mod.``, ``module.``, ``base_model.model.``, or several of
        them) are read without it.
    dtype
        One of `DTYPES`.
    progress
        Called with one line where a prefix was taken off.
    device
        One of `DEVICES`.

    Returns
    -------
    tuple
        The transformers model in evaluation mode on the device, and the transformers fast tokenizer.

    Raises
    ------
    DyetraceError
        The folder is none of a model, needs code of its own, is an adapter, is quantised in an unknown way, or its
        weights are not exactly those that its config.json asks for.
    MachineError
        The device isn't there, or has too little memory.
    """
    if dtype not in DTYPES:
        raise DyetraceError(f"dtype ({dtype!r}) must be one of {', '.join(DTYPES)}")
    folder = Path(path).expanduser()
    check_folder(folder)
    require_model_packages()
    _refuse_what_is_not_plain(folder)
    place = find_device(device)
    import torch
    import transformers

    # Each tensor goes to the device as it is read: main memory need not hold the model as well.
    there = {} if place == "cpu" else {"device_map": {"": place}}
    prefix = _wrapper(_weight_names(folder))
    renamed = {} if prefix is None else {"key_mapping": {f"^{_WRAPPED.pattern}": ""}}
    number_type: torch.dtype = getattr(torch, dtype)
    own = {"local_files_only": True, "trust_remote_code": False}
    with quiet_transformers():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **own)
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=number_type,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **own,
                **renamed,
                **there,
            )
        except Exception as error:  # transformers, safetensors and the unpickler each raise their own kinds
            reason = " ".join(str(error).split())[:300]
            if "trust_remote_code" in reason:
                raise DyetraceError(_needs_code(folder)) from error
            if (lacking := missing_of_machine(error)) is not None:
                raise MachineError(f"can't load a language model from {folder}: {lacking}") from error
            raise DyetraceError(
                f"can't load a language model from {folder}: {type(error).__name__}: {reason}"
            ) from error
    _check_weights(folder, report)
    if prefix is not None and progress is not None:
        progress(f"the weights of {folder} stand under the prefix '{prefix}', as a wrapper saved them; it is taken off")
    model.eval()
    return model, tokenizer


def find_device(wanted: str) -> str:
    """The device of torch that one of `DEVICES` stands for on this machine.

    Raises
    ------
    DyetraceError
        It is none of them.
    MachineError
        This machine has no such device, or torch can't use it.
    """
    if wanted not in DEVICES:
        raise DyetraceError(f"device ({wanted!r}) must be one of {', '.join(DEVICES)}")
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there[wanted]:
        raise MachineError(f"torch finds no {wanted} device on this machine; give --device cpu, or auto")
    return wanted


def check_folder(folder: Path) -> None:
    """Refuse what is no folder of a model."""
    how = "give a folder written by `save_pretrained`; models are never downloaded by name"
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise DyetraceError(f"model folder {folder} {state}: {how}")
    if (folder / "adapter_config.json").is_file():
        raise DyetraceError(f"model folder {folder} holds an adapter (adapter_config.json): {_MERGE}")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise DyetraceError(f"model folder {folder} has no {name}: {how}")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise DyetraceError(f"model folder {folder} has no weights (*.safetensors or *.bin): {how}")


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


def _refuse_what_is_not_plain(folder: Path) -> None:
    """Code of its own, and numbers in a form that transformers doesn't know and would read as they are."""
    import transformers
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    config = _json(folder / "config.json")
    if config.get("auto_map"):
        raise DyetraceError(_needs_code(folder))
    quantised = config.get("quantization_config")
    if not isinstance(quantised, dict) or quantised.get("load_in_8bit") or quantised.get("load_in_4bit"):
        return
    method = quantised.get("quant_method")
    if method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise DyetraceError(
            f"model folder {folder} is quantised by {method!r} (config.json), which transformers "
            f"{transformers.__version__} does not know; save it in bfloat16, or {_SERVE}"
        )


def _needs_code(folder: Path) -> str:
    return (
        f"model folder {folder} asks for Python code of its own (auto_map in config.json), and code that comes with "
        f"weights is never run; {_SERVE}"
    )


def _json(path: Path) -> dict[str, Any]:
    """A file's object; nothing where it is broken, as transformers then says how."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _weight_names(folder: Path) -> list[str]:
    """Names of the tensors in the files that transformers reads; none where these are broken, as it then says how."""
    for kind, one in (("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")):
        whole, index = folder / one, folder / f"{one}.index.json"
        try:
            if whole.is_file():
                return _names_in_safetensors(whole) if kind == "safetensors" else _names_in_bin(whole)
        except Exception:  # safetensors, zipfile and the unpickler each raise their own kinds
            return []
        if index.is_file():
            return list(_json(index).get("weight_map") or ())
    return []


def _names_in_safetensors(path: Path) -> list[str]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [name for name in header if name != "__metadata__"]


def _names_in_bin(path: Path) -> list[str]:
    import torch

    try:
        return list(torch.load(path, map_location="meta", weights_only=True, mmap=True))
    except RuntimeError:  # the format before zip files can't be mapped
        return list(torch.load(path, map_location="meta", weights_only=True))


def _wrapper(names: Sequence[str]) -> str | None:
    """The prefix of a wrapper that all names stand under and that can be taken off; None where there is none."""
    found = [match.group() for name in names if (match := _WRAPPED.match(name))]
    bare = {name[len(prefix) :] for name, prefix in zip(names, found, strict=False)}
    plain = len(found) == len(names) == len(bare) and not any(_ADAPTER.search(name) for name in names)
    return found[0] if found and plain else None


def _check_weights(folder: Path, report: dict[str, Any]) -> None:
    """Refuse weights of which any is missing, left over or of another shape."""
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    shapes = sorted(f"{name} is {_shape(is_)}, not {_shape(asked)}" for name, is_, asked in report["mismatched_keys"])
    if not (missing or unexpected or shapes):
        return
    counts = [
        f"{len(names)} {what} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
        for what, names in (("missing", missing), ("left over", unexpected), ("of another shape", shapes))
        if names
    ]
    do = "get the whole model, with the config.json that belongs to it"
    if any(_ADAPTER.search(name) for name in unexpected):
        do = _MERGE
    elif prefix := next((match.group() for name in unexpected if (match := _WRAPPED.match(name))), None):
        do = f"save it again without the prefix '{prefix}', which stands before some of its parameters or hides others"
    elif any("_orig_mod." in name for name in unexpected):
        do = "save it again without '_orig_mod.' inside the names (of the model before torch.compile)"
    raise DyetraceError(
        f"the weights in {folder} are not those that its config.json asks for: parameters {', '.join(counts)}; {do}"
    )


def _shape(size: Sequence[int]) -> str:
    return "x".join(str(number) for number in size)
