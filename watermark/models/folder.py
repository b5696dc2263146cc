"""Models as people have them: read whole and as they are, or refused in one line, never partly random.

transformers fills parameters that a folder lacks with random numbers, passes over those that it can't place, passes
over an adapter where peft is missing, and may ask to run code that lies beside the weights. A model read like that says
nothing of the one that was trained.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watermark.errors import DyetraceError, MachineError, missing_of_machine
from watermark.models import weight_files
from watermark.models.given import ADAPTER_CONFIG, SERVE, GivenModel, check_folder, few, find_model, json_of, shown
from watermark.models.packages import quiet_transformers, require_model_packages

if TYPE_CHECKING:
    import torch

__all__ = [
    "DEVICES",
    "DTYPES",
    "check_folder",
    "find_device",
    "load_model",
    "quiet_transformers",
    "require_model_packages",
]

DTYPES = ("bfloat16", "float16", "float32")
DEVICES = ("auto", "cuda", "mps", "cpu")
"""Where a model may run; "auto" takes the first of an NVIDIA or AMD card ("cuda") and the CPU that there is."""

Progress = Callable[[str], None]

_OWN = {"local_files_only": True, "trust_remote_code": False}


def load_model(
    path: str | os.PathLike[str],
    dtype: str = "bfloat16",
    progress: Progress | None = None,
    device: str = "cpu",
    base: str | os.PathLike[str] | None = None,
) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer from what is on this machine.

    Parameters
    ----------
    path
        Folder as written by `save_pretrained` (config.json, weights, a tokenizer), of an adapter of peft, or a GGUF
        file. Weights whose names all stand under the prefix of a known wrapper (``_orig_mod.``, ``module.``,
        ``base_model.model.``, or several of them) are read without it.
    dtype
        One of `DTYPES`.
    progress
        Called with one line for each thing that was mended or left out.
    device
        One of `DEVICES`.
    base
        The base model of an adapter; None takes the folder that the adapter itself names.

    Returns
    -------
    tuple
        The transformers model in evaluation mode on the device, and the transformers fast tokenizer.

    Raises
    ------
    DyetraceError
        There is no model, or one that needs code of its own, is quantised in an unknown way, is no causal language
        model, or whose weights are not exactly those that its configuration asks for.
    MachineError
        The device or a package isn't there, or there is too little memory.
    """
    if dtype not in DTYPES:
        raise DyetraceError(f"dtype ({dtype!r}) must be one of {', '.join(DTYPES)}")
    given = find_model(path, base)
    require_model_packages(gguf=given.gguf is not None)
    place = find_device(device)
    import torch

    from watermark.models.converted import model_tokenizer

    say = progress or (lambda line: None)
    number_type: torch.dtype = getattr(torch, dtype)
    # Each tensor goes to the device as it is read: main memory need not hold the model as well.
    settings: dict[str, Any] = {"dtype": number_type, **({} if place == "cpu" else {"device_map": {"": place}})}
    with quiet_transformers():
        try:
            network = _of_gguf(given.gguf, settings) if given.gguf else _of_folder(given.whole, settings, say)
            if given.adapter is not None:
                from watermark.models.adapter import with_adapter

                network = with_adapter(network, given.adapter)
            tokenizer = model_tokenizer(given.tokenizer, network.config)
        except DyetraceError:
            raise
        except Exception as error:  # transformers, peft, safetensors and the unpickler each raise their own kinds
            raise _refusal(given, error) from error
    _check_tokens(given, network, tokenizer, say)
    if given.adapter is not None:
        say(f"{given.adapter} is an adapter; it is read over its base model {given.base}")
    network.eval()
    return network, tokenizer


def _of_gguf(file: Path, settings: dict[str, Any]) -> Any:
    """The model of a GGUF file, its numbers in the format that it runs in."""
    import transformers

    from watermark.models.converted import quiet_bars
    from watermark.models.gguf import check_gguf, opened

    opened(file)
    with quiet_bars():
        network, report = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, output_loading_info=True, ignore_mismatched_sizes=True, **_OWN, **settings
        )
    weight_files.check_report(file, report)
    check_gguf(file, network)
    # The numbers are plain now; with the quantiser attached, `save_pretrained` refuses.
    network.hf_quantizer = None
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    return network


def _of_folder(folder: Path, settings: dict[str, Any], say: Progress) -> Any:
    """The model of a folder of whole weights, held against its files."""
    from watermark.models.architectures import model_class

    _refuse_what_is_not_plain(folder)
    sets = weight_files.weight_sets(folder)
    weight_files.check_one_set(folder, sets)
    files = sets[0] if sets else []
    if others := weight_files.unread(folder, sets):
        say(f"{folder} also holds {few(others)}, which is not read; to read it, give it by itself")
    weight_files.check_scales(folder, files)
    prefix = weight_files.wrapper(weight_files.names_in(files))
    renamed = {} if prefix is None else {"key_mapping": weight_files.without_wrappers()}
    generation = _generation_config(folder, say)
    with _without_adapter(folder) as place:
        network, report = model_class(place, folder).from_pretrained(
            place,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **_OWN,
            **settings,
            **renamed,
            **({} if generation is None else {"generation_config": generation}),
        )
    if place != folder:
        network.name_or_path = network.config.name_or_path = str(folder)
    weight_files.check_report(folder, report)
    if not json_of(folder / "config.json").get("quantization_config"):
        weight_files.check_values(folder, files, network)
    if prefix is not None:
        say(f"the weights of {folder} stand under the prefix '{prefix}', as a wrapper saved them; it is taken off")
    return network


def _generation_config(folder: Path, say: Progress) -> Any:
    """What a folder says of generation, without a watermarking_config; None where it holds none.

    transformers reads every watermarking_config as its own kind's, and fails on those of others.
    """
    from transformers import GenerationConfig

    fields = json_of(folder / "generation_config.json")
    if not fields.get("watermarking_config"):
        return None
    say(f"generation_config.json of {folder} holds a watermarking_config, which is left out")
    return GenerationConfig.from_dict({name: value for name, value in fields.items() if name != "watermarking_config"})


@contextlib.contextmanager
def _without_adapter(folder: Path) -> Iterator[Path]:
    """The folder, or links to its files without those of an adapter, which transformers would put on by itself."""
    if not (folder / ADAPTER_CONFIG).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="dyetrace-") as made:
        for file in folder.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(made) / file.name).symlink_to(file.resolve())
        yield Path(made)


def _refusal(given: GivenModel, error: Exception) -> DyetraceError:
    reason = shown(error)
    if "trust_remote_code" in reason:
        return DyetraceError(_needs_code(given.whole))
    quantised = json_of(given.whole / "config.json").get("quantization_config")
    if isinstance(error, ImportError) and quantised:
        return MachineError(
            f"can't load a language model from {given.path}, which is quantised: {reason}; do that, or save the model "
            f"in bfloat16, or {SERVE}"
        )
    if (lacking := missing_of_machine(error)) is not None:
        return MachineError(f"can't load a language model from {given.path}: {lacking}")
    return DyetraceError(f"can't load a language model from {given.path}: {type(error).__name__}: {reason}")


def _check_tokens(given: GivenModel, network: Any, tokenizer: Any, say: Progress) -> None:
    """Refuse a tokenizer with more tokens than the model predicts; those that are merely added are never asked for."""
    from watermark.models.tokenizer import vocabulary_size

    head = network.get_output_embeddings()
    if getattr(head, "weight", None) is None:
        return
    width, size = int(head.weight.shape[0]), vocabulary_size(tokenizer)
    if size <= width:
        return
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    beyond = [number for number in tokenizer.get_vocab().values() if number >= width]
    if any(number not in added for number in beyond):
        raise DyetraceError(
            f"the tokenizer of {given.path} has {size:,} tokens, and its model predicts {width:,}: they don't belong "
            "together; get the tokenizer that the model was trained with"
        )
    say(
        f"the tokenizer of {given.path} adds {len(beyond)} tokens that its model does not have (such as "
        f"{added[beyond[0]].content!r}); they are never asked for, and text that holds them can't be read"
    )


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


def _refuse_what_is_not_plain(folder: Path) -> None:
    """Code of its own, and numbers in a form that transformers doesn't know and would read as they are."""
    import transformers
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    config = json_of(folder / "config.json")
    if config.get("auto_map"):
        raise DyetraceError(_needs_code(folder))
    quantised = config.get("quantization_config")
    if not isinstance(quantised, dict) or quantised.get("load_in_8bit") or quantised.get("load_in_4bit"):
        return
    method = quantised.get("quant_method")
    if method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise DyetraceError(
            f"model folder {folder} is quantised by {method!r} (config.json), which transformers "
            f"{transformers.__version__} does not know; save it in bfloat16, or {SERVE}"
        )


def _needs_code(folder: Path) -> str:
    return (
        f"model folder {folder} asks for Python code of its own (auto_map in config.json), and code that comes with "
        f"weights is never run; {SERVE}"
    )
