"""A network as it is: what it can read at once, one forward pass of it, and that its predictions are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

from watermark.errors import DyetraceError, MachineError, missing_of_machine

if TYPE_CHECKING:
    import torch


def most_positions(network: Any) -> int | None:
    """How many tokens a model was made to read at a time; None where its configuration sets no limit."""
    config = network.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        most = getattr(config, name, None)
        if isinstance(most, int) and most > 0:
            return most
    return None


def logits_width(network: Any) -> int:
    """How many tokens a model tells apart."""
    head = network.get_output_embeddings()
    weight = None if head is None else getattr(head, "weight", None)
    return int(network.config.get_text_config().vocab_size if weight is None else weight.shape[0])


def logits_at(network: Any, inputs: Mapping[str, Any], keep: torch.Tensor) -> torch.Tensor:
    """One forward pass, and the logits at some places of each row, whatever the model makes of ``logits_to_keep``.

    Parameters
    ----------
    network
        A transformers causal language model.
    inputs
        Arguments of its forward pass but ``logits_to_keep`` and ``use_cache``; ``input_ids`` has shape (b, m).
    keep
        int64, ascending, shape (k,): the places after which the next token is predicted.

    Returns
    -------
    torch.Tensor
        Logits, shape (b, k, V).

    Raises
    ------
    DyetraceError
        The forward pass fails, or gives logits for another number of places; a token is none of the model's.
    """
    length = inputs["input_ids"].shape[1]
    _check_known(network, inputs["input_ids"])
    keep = keep.to(network.device)
    takes = signature(network.forward).parameters
    some = {"logits_to_keep": keep} if "logits_to_keep" in takes else {}
    # One pass is all there is; some models fail without a place for what the next one would need.
    last = {"use_cache": False} if "use_cache" in takes or any(p.kind == p.VAR_KEYWORD for p in takes.values()) else {}
    try:
        logits: torch.Tensor = network(**inputs, **some, **last).logits
    except Exception as error:  # models raise what they like, and so does a device that is out of memory
        if (lacking := missing_of_machine(error)) is not None:
            raise MachineError(f"can't read through {_called(network)}: {lacking}") from error
        reason = " ".join(str(error).split())[:200]
        raise DyetraceError(
            f"can't read through {_called(network)}: its forward pass fails on {length} tokens: "
            f"{type(error).__name__}: {reason}"
        ) from error
    if some and logits.shape[1] == len(keep):
        return logits
    if logits.shape[1] != length:
        raise DyetraceError(
            f"can't read through {_called(network)}: it gives logits at {logits.shape[1]} places for {length} tokens"
        )
    return logits[:, keep.to(logits.device)]


def _check_known(network: Any, ids: torch.Tensor) -> None:
    """Refuse ids that a model has no numbers for, before a GPU stops at them."""
    weight = getattr(network.get_input_embeddings(), "weight", None)
    known = None if weight is None else int(weight.shape[0])
    if known and ids.numel() and (most := int(ids.max())) >= known:
        raise DyetraceError(
            f"can't read through {_called(network)}: the text holds token {most}, which its tokenizer adds and the "
            f"model, with {known:,} tokens, was never trained on; leave that text out"
        )


def check_numbers(values: torch.Tensor, network: Any = None) -> None:
    """Refuse predictions that are no numbers."""
    if bool(values.isnan().any()):
        of = "the model" if network is None else _called(network)
        raise DyetraceError(
            f"{of} predicts NaN: its weights hold NaN, or overflow in this number type; "
            "get it again, or use another one (--dtype, of the commands that have it)"
        )


def _called(network: Any) -> str:
    """How people call a model: its folder."""
    return getattr(network, "name_or_path", "") or type(network).__name__


def windows(length: int, most: int) -> Iterator[tuple[int, int, int]]:
    """How a model that reads ``most`` tokens at a time predicts all from 1 to one past the end of ``length`` tokens.

    Yields
    ------
    tuple
        Where a window begins, and the first and the end of the positions that are predicted from it.
    """
    first, covered = 0, 1
    while covered <= length:
        end = min(length, first + most) + 1
        yield first, covered, end
        first, covered = max(first + 1, end - 1 - most // 2), end
