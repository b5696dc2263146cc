"""The weights of a model folder as its files hold them: names, wrappers' prefixes, and what a loader made of them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watermark.errors import DyetraceError
from watermark.models.given import ADAPTER_CONFIG, MERGE, SERVE, few, json_of

if TYPE_CHECKING:
    import torch

# torch.compile, DataParallel and DistributedDataParallel, DeepSpeed's and peft's, before all names; FSDP's, checkpoints
# and compiled parts also inside them.
WRAPPED = re.compile(r"(?:_orig_mod\.|module\.|base_model\.model\.|_forward_module\.|_fsdp_wrapped_module\.)+")
_INSIDE = re.compile(r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_ADAPTER = re.compile(r"lora_|\.base_layer\.|\.modules_to_save\.")


_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf"}
_OF_TRAINING = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states)", re.IGNORECASE)


def weight_sets(folder: Path) -> list[list[Path]]:
    """The whole sets of weights in a folder, each one's files, in the order in which transformers looks for them."""
    found = []
    explicit = json_of(folder / "config.json").get("transformers_weights")
    kinds = ["model.safetensors", "pytorch_model.bin"]
    for one in [*([explicit] if isinstance(explicit, str) else []), *kinds]:
        index = folder / f"{one}.index.json"
        if (folder / one).is_file():
            found.append([folder / one])
        if index.is_file():
            shards = json_of(index).get("weight_map")
            if isinstance(shards, dict):
                found.append([folder / str(name) for name in sorted(set(map(str, shards.values())))])
    return found


def unread(folder: Path, sets: Sequence[Sequence[Path]]) -> list[str]:
    """What else in a folder looks like weights or an adapter, and is neither read nor compared."""
    known = {file.name for one in sets for file in one}
    found = [
        file.name
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in _WEIGHTS and file.name not in known and not _OF_TRAINING.match(file.name)
    ]
    return found + sorted(f"{file.parent.name}/" for file in folder.glob(f"*/{ADAPTER_CONFIG}"))


def names_in(files: Sequence[Path]) -> list[str]:
    """Names of the tensors in files of weights; none where a file is broken, as transformers then says how."""
    names: list[str] = []
    for file in files:
        try:
            names += _names_in_safetensors(file) if file.suffix == ".safetensors" else list(_of_bin(file, "meta"))
        except Exception:  # safetensors, zipfile and the unpickler each raise their own kinds
            return []
    return names


def tensors_in(files: Sequence[Path], stack: contextlib.ExitStack) -> dict[str, Callable[[], torch.Tensor]]:
    """What reads each tensor in files of weights, by name, onto the CPU; the files are open until ``stack`` ends."""
    from safetensors import safe_open

    found: dict[str, Callable[[], torch.Tensor]] = {}
    for file in files:
        if file.suffix == ".safetensors":
            opened = stack.enter_context(safe_open(file, "pt"))
            found |= {name: partial(opened.get_tensor, name) for name in opened.keys()}
        else:
            found |= {name: partial(_itself, value) for name, value in _of_bin(file, "cpu").items()}
    return found


def _itself(value: torch.Tensor) -> torch.Tensor:
    return value


def _names_in_safetensors(path: Path) -> list[str]:
    return [name for name in _header(path) if name != "__metadata__"]


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        found = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return dict(found)


def _of_bin(path: Path, device: str) -> dict[str, Any]:
    import torch

    try:
        found = torch.load(path, map_location=device, weights_only=True, mmap=True)
    except RuntimeError:  # the format before zip files can't be mapped
        found = torch.load(path, map_location=device, weights_only=True)
    return dict(found)


def wrapper(names: Sequence[str]) -> str | None:
    """What a wrapper put into names and can be taken out again; None where there is nothing of that kind.

    It is the prefix that all names stand under, or what stands inside some of them, for a line.
    """
    bare = [plain_name(name) for name in names]
    if bare == list(names) or len(set(bare)) < len(bare) or any(_ADAPTER.search(name) for name in names):
        return None
    found = [match.group() for name in names if (match := WRAPPED.match(name))]
    if found and len(found) < len(names):  # under a prefix stand some of the names only
        return None
    return found[0] if found else next(match.group() for name in names if (match := _INSIDE.search(name)))


def plain_name(name: str) -> str:
    """A name without what wrappers put into it."""
    return _INSIDE.sub("", WRAPPED.sub("", name, count=1) if WRAPPED.match(name) else name)


def without_wrappers() -> dict[str, str]:
    """The renaming for transformers (``key_mapping``)."""
    return {f"^{WRAPPED.pattern}": "", _INSIDE.pattern: ""}


def check_one_set(folder: Path, sets: Sequence[Sequence[Path]]) -> None:
    """Refuse two sets of weights in one folder that are not the same model.

    Raises
    ------
    DyetraceError
        They differ: one engine reads one of them, another the other.
    """
    for other in sets[1:]:
        with contextlib.ExitStack() as stack:
            first, beside = tensors_in(sets[0], stack), tensors_in(other, stack)
            shared = sorted(first.keys() & beside.keys())
            unlike = [name for name in shared if not _alike(first[name](), beside[name]())]
        if unlike or not shared:
            what = f"{len(unlike)} of their parameters differ ({few(unlike)})" if unlike else "no name is in both"
            raise DyetraceError(
                f"model folder {folder} holds two sets of weights, {sets[0][0].name} and {other[0].name}, and {what}; "
                "move the one away that is not the model"
            )


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same numbers, one of them perhaps in a shorter format."""
    return one.shape == other.shape and (same(one.to(other.dtype), other) or same(other.to(one.dtype), one))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors of one format hold the same numbers, NaN at the same places."""
    import torch

    if torch.equal(one, other):
        return True
    return one.is_floating_point() and torch.equal(one.nan_to_num(), other.nan_to_num())


def check_scales(folder: Path, files: Sequence[Path]) -> None:
    """Refuse numbers of eight bits without the scales that they are to be multiplied by.

    Raises
    ------
    DyetraceError
        They would be read as they are, as transformers does without a word: another model.
    """
    names = names_in(files)
    small = _eight_bits(files)
    scaled = {name.rsplit(".", 1)[0] for name in names if "scale" in name.rsplit(".", 1)[-1]}
    bare = sorted(name for name in small if name.rsplit(".", 1)[0] not in scaled)
    if bare:
        raise DyetraceError(
            f"the weights in {folder} are numbers of eight bits ({few(bare)}) without their scales; get the whole "
            f"model, or save it in bfloat16, or {SERVE}"
        )


def _eight_bits(files: Sequence[Path]) -> list[str]:
    """Names of the tensors of eight-bit fractions in files of safetensors, by their headers."""
    found: list[str] = []
    for file in files:
        if file.suffix == ".safetensors" and file.is_file():
            try:
                header = _header(file)
            except Exception:  # transformers says how the file is broken
                continue
            kinds = ((name, told) for name, told in header.items() if isinstance(told, dict))
            found += [name for name, told in kinds if str(told.get("dtype")).startswith("F8_E")]
    return [name for name in found if "scale" not in name.rsplit(".", 1)[-1]]


def check_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse weights of which any is missing, left over or of another shape."""
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    shapes = sorted(f"{name} is {_shape(is_)}, not {_shape(asked)}" for name, is_, asked in report["mismatched_keys"])
    if not (missing or unexpected or shapes):
        return
    counts = [
        f"{len(names)} {what} ({few(names)})"
        for what, names in (("missing", missing), ("left over", unexpected), ("of another shape", shapes))
        if names
    ]
    do = "get the whole model, with the config.json that belongs to it"
    if any(_ADAPTER.search(name) for name in unexpected):
        do = MERGE
    elif prefix := next((match.group() for name in unexpected if (match := WRAPPED.match(name))), None):
        do = f"save it again without the prefix '{prefix}', which stands before some of its parameters or hides others"
    elif inside := next((match.group() for name in unexpected if (match := _INSIDE.search(name))), None):
        do = f"save it again without '{inside}' inside the names (the model before it was wrapped)"
    raise DyetraceError(
        f"the weights in {folder} are not those that its config.json asks for: parameters {', '.join(counts)}; {do}"
    )


def check_values(folder: Path, files: Sequence[Path], network: Any) -> None:
    """Refuse a model whose parameters are not those of its files, wherever the names are the same.

    Raises
    ------
    DyetraceError
        transformers changed numbers as it loaded them, or the file holds whole numbers where the model has fractions.
    """
    mine: dict[str, torch.Tensor] = network.state_dict()
    changed, whole = [], []
    with contextlib.ExitStack() as stack:
        for written, read in tensors_in(files, stack).items():
            name, value = plain_name(written), read()
            if name not in mine or mine[name].shape != value.shape:
                continue
            if mine[name].is_floating_point() and not value.is_floating_point():
                whole.append(name)
            elif not same(value.to(mine[name].device).to(mine[name].dtype), mine[name]):
                changed.append(name)
    if whole:
        raise DyetraceError(
            f"the weights in {folder} are whole numbers ({few(sorted(whole))}), quantised in a way that config.json "
            f"does not name; save the model in bfloat16, or {SERVE}"
        )
    if changed:
        raise DyetraceError(
            f"transformers changed {len(changed)} parameters of {folder} as it loaded them ({few(sorted(changed))}), "
            f"so what it would read is another model; use another version of transformers, or {SERVE}"
        )


def _shape(size: Sequence[int]) -> str:
    return "x".join(str(number) for number in size)
