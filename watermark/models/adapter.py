"""Adapters of peft over their base model: put on whole and as they were trained, or refused in one line.

An adapter is not merged for reading: sums of weights are rounded to the model's number format, in which a small change
would be lost. peft's own layers compute it beside the base model's, as they did in training.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watermark.errors import DyetraceError, MachineError
from watermark.models.given import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MERGE, SERVE, few, json_of
from watermark.models.weight_files import same

if TYPE_CHECKING:
    import torch

_PREFIX = "base_model.model."
_OF_TRAINING = {"inference_mode", "base_model_name_or_path", "revision", "auto_mapping", "peft_version"}


def with_adapter(network: Any, folder: Path) -> Any:
    """A base model with an adapter on it.

    Parameters
    ----------
    network
        The base model, a causal language model of transformers in evaluation mode; it is changed.
    folder
        Of the adapter: adapter_config.json and adapter_model.safetensors or adapter_model.bin.

    Returns
    -------
    The same model of transformers, with the adapter's layers in it.

    Raises
    ------
    DyetraceError
        The adapter isn't for such a model, its parameters are not those that its configuration asks for, or peft's own
        forward pass gives something else.
    MachineError
        peft is missing.
    """
    try:
        import peft
    except ImportError:
        raise MachineError("adapters need peft: run `pip install 'dyetrace[adapters]'`") from None

    kind = json_of(folder / ADAPTER_CONFIG)
    config_class = _config_class(folder, kind)
    names = [name for name in ADAPTER_WEIGHTS if (folder / name).is_file()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft warns of is checked below
        weights = peft.utils.save_and_load.load_peft_weights(str(folder), device="cpu")
        if len(names) > 1:
            other = peft.utils.save_and_load.torch_load(folder / names[1], map_location="cpu")
            if other.keys() != weights.keys() or not all(same(other[name], weights[name]) for name in weights):
                raise DyetraceError(
                    f"the adapter {folder} holds {names[0]} and {names[1]}, and they differ; move the one away that is "
                    "not the adapter"
                )
        config = config_class.from_pretrained(str(folder))
        config.inference_mode = True
        if config.is_prompt_learning:
            raise DyetraceError(
                f"the adapter {folder} ({kind['peft_type']}) puts tokens of its own before a text, and can't be read "
                f"as layers of a model; {SERVE}"
            )
        _grow(network, weights, folder)
        before = [(parameter, _sum(parameter)) for parameter in network.parameters()]
        wrapped = peft.PeftModelForCausalLM(network, config)
        if any(_sum(parameter) != was for parameter, was in before):
            raise DyetraceError(
                f"the adapter {folder} changes its base model as it is put on (init_lora_weights: "
                f"{kind.get('init_lora_weights')!r}); {MERGE}"
            )
        try:
            peft.set_peft_model_state_dict(wrapped, weights)
        except KeyError as error:
            raise _unfit(folder, "missing", [str(error.args[0])]) from error
    wrapped.eval()
    _check_whole(wrapped, weights, folder)
    inner = wrapped.get_base_model()
    _check_forward(wrapped, inner, folder, getattr(config, "alora_invocation_tokens", None) or ())
    return inner


def _config_class(folder: Path, kind: dict[str, Any]) -> Any:
    """The class of an adapter's configuration, once all that it says is known to this peft."""
    import peft

    classes = {
        str(getattr(name, "value", name)): found for name, found in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()
    }
    found = classes.get(kind["peft_type"])
    if found is None:
        raise DyetraceError(
            f"the adapter {folder} is of type {kind['peft_type']!r} ({ADAPTER_CONFIG}), which peft {peft.__version__} "
            f"does not know; {MERGE}"
        )
    if kind.get("task_type") not in (None, "CAUSAL_LM"):
        raise DyetraceError(
            f"the adapter {folder} is for the task {kind['task_type']!r} ({ADAPTER_CONFIG}), and only one of a causal "
            "language model (CAUSAL_LM) can be read"
        )
    known = {field.name for field in dataclasses.fields(found)} | _OF_TRAINING
    unknown = sorted(
        str(name) for name, value in kind.items() if name not in known and value not in (None, False, [], {})
    )
    if unknown:
        raise DyetraceError(
            f"the adapter {folder} has settings that peft {peft.__version__} does not know "
            f"({few(unknown)}); update peft, or {MERGE}"
        )
    return found


def _grow(network: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Give the base model as many tokens as the adapter was trained with, where it holds their rows itself."""
    rows = {}
    for part, module in (("input", network.get_input_embeddings()), ("output", network.get_output_embeddings())):
        name = next((name for name, one in network.named_modules() if one is module), None)
        value = weights.get(f"{_PREFIX}{name}.weight")
        if value is not None and value.dim() == 2 and value.shape[0] != module.weight.shape[0]:
            rows[part] = int(value.shape[0])
    if not rows:
        return
    tied = network.get_input_embeddings().weight is network.get_output_embeddings().weight
    if len(set(rows.values())) > 1 or (len(rows) < 2 and not tied):
        raise DyetraceError(
            f"the adapter {folder} has another number of tokens than its base model ({max(rows.values())}), and not "
            f"the rows of all of them; {MERGE}"
        )
    network.resize_token_embeddings(next(iter(rows.values())), mean_resizing=False)


def _sum(parameter: torch.Tensor) -> int:
    """A number that changes with a tensor's bits."""
    import torch

    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[parameter.element_size()]
    bits = parameter.detach().contiguous().view(width).flatten()
    # A sum of all at once would first make a copy of eight bytes a number.
    step = 1 << 24
    return sum(int(bits[at : at + step].sum(dtype=torch.int64)) for at in range(0, len(bits), step))


def _check_whole(wrapped: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Refuse an adapter whose parameters are not exactly those that its configuration asks for."""
    import peft

    asked = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    everything = wrapped.state_dict()
    missing = sorted(asked.keys() - weights.keys())
    # Embeddings of a base model whose vocabulary was changed are saved beside the adapter and take the base's place.
    over = sorted(
        name for name in weights.keys() - asked.keys() if name not in everything and not _twice(name, weights)
    )
    unlike = []
    for name, value in weights.items():
        mine = asked.get(name, everything.get(name))
        if mine is not None and (mine.shape != value.shape or not same(value.to(mine.dtype), mine.detach().cpu())):
            unlike.append(name)
    for what, names in (("missing", missing), ("left over", over), ("not taken by peft", sorted(unlike))):
        if names:
            raise _unfit(folder, what, names)


def _unfit(folder: Path, what: str, names: Sequence[str]) -> DyetraceError:
    return DyetraceError(
        f"the weights of the adapter {folder} are not those that its {ADAPTER_CONFIG} asks for: {len(names)} {what} "
        f"({few(names)}); get the whole adapter and its own "
        f"base model, or {MERGE}"
    )


def _twice(name: str, weights: dict[str, torch.Tensor]) -> bool:
    """Whether peft saved embeddings under two names, as it does where a vocabulary was changed and trained."""
    plain = name.replace(".modules_to_save.", ".")
    return plain != name and plain in weights and same(weights[plain], weights[name])


def _check_forward(wrapped: Any, inner: Any, folder: Path, invoked_by: Sequence[int]) -> None:
    """Refuse an adapter that does something before or after the model, such as tokens of its own before a text."""
    import torch

    last = inner.get_input_embeddings().weight.shape[0] - 1
    ids = torch.tensor([[*range(0, last, max(1, last // 8)), *invoked_by, 0, last]], device=inner.device)
    with torch.inference_mode():
        own, mine = (model(input_ids=ids, use_cache=False).logits for model in (wrapped, inner))
    if own.shape != mine.shape or not same(own, mine):
        raise DyetraceError(
            f"the adapter {folder} is more than layers of the model (its type is "
            f"{json_of(folder / ADAPTER_CONFIG)['peft_type']}) and can't be read; {SERVE}"
        )
