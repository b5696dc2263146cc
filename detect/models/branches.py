"""Several continuations of one text in one forward pass: tokens in a tree, each of which sees only what it follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from watermark.errors import DyetraceError

if TYPE_CHECKING:
    import torch

__all__ = ["Aligned", "Tree", "cannot_branch", "forward_inputs"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Aligned:
    """What a model reads of one document, and where it answers for one of the owner's tokens.

    The ids form a tree. Up to each place at which a token of the owner's begins, the model reads its own tokens of the
    text before. Mostly these are the first of its tokens of the whole text. Where they are not, as the model has one
    token for what the owner spells with two, they branch off.

    Attributes
    ----------
    ids
        Of the model's tokenizer, shape (m,); each stands after the one that it follows.
    parents
        Index of the id that each follows, shape (m,); -1 where it is the first.
    depths
        How many each follows, shape (m,): its position id.
    rows
        Index of the id after which the next-token distribution is wanted, shape (n,).
    tokens
        Index among the owner's tokens of the one that it predicts, shape (n,), ascending; it may be one past the end.
    """

    ids: I64
    parents: I64
    depths: I64
    rows: I64
    tokens: I64

    @property
    def is_chain(self) -> bool:
        """Whether nothing branches off."""
        return bool((self.parents == np.arange(len(self.ids)) - 1).all())

    def mask(self) -> Bools:
        """Which ids each id may look at, shape (m, m): those that it follows, and itself."""
        seen = np.eye(len(self.ids), dtype=np.bool_)
        for index, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                seen[index] |= seen[parent]
        return seen


class Tree:
    """Token sequences that share their beginnings."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def follow(self, node: int, ids: Sequence[int]) -> int:
        """Go from a node (-1: the start) along ids, growing where there is no such way yet; return where it ends."""
        for token in ids:
            child = self._children.setdefault((node, token), len(self.ids))
            if child == len(self.ids):
                self.ids.append(token)
                self.parents.append(node)
                self.depths.append(0 if node < 0 else self.depths[node] + 1)
            node = child
        return node

    def aligned(self, kept: Sequence[tuple[int, int]]) -> Aligned:
        """What the rows in question follow, and nothing else: (the owner's token, node) pairs."""
        used = np.zeros(len(self.ids), dtype=np.bool_)
        for _, node in kept:
            while node >= 0 and not used[node]:
                used[node] = True
                node = self.parents[node]
        number = np.append(np.cumsum(used) - 1, -1)  # the last is what index -1 finds
        return Aligned(
            ids=np.array(self.ids, dtype=np.int64)[used],
            parents=number[np.array(self.parents, dtype=np.int64)[used]],
            depths=np.array(self.depths, dtype=np.int64)[used],
            rows=number[np.array([node for _, node in kept], dtype=np.int64)],
            tokens=np.array([place for place, _ in kept], dtype=np.int64),
        )


def forward_inputs(readings: Sequence[Aligned], network: Any) -> dict[str, Any]:
    """Arguments for one forward pass of a transformers model over several readings; row i is that of reading i.

    Parameters
    ----------
    readings
        Each padded on the right to the longest.
    network
        A causal language model with attention that takes a mask of four dimensions (``sdpa`` or ``eager``).

    Raises
    ------
    DyetraceError
        Something branches off, and the model has layers that can't be told to look along a branch alone.
    """
    import torch

    length = max(len(reading.ids) for reading in readings)
    ids = np.zeros((len(readings), length), dtype=np.int64)
    depths = np.zeros_like(ids)
    for row, reading in enumerate(readings):
        ids[row, : len(reading.ids)] = reading.ids
        depths[row, : len(reading.ids)] = reading.depths
    inputs = {"input_ids": torch.from_numpy(ids).to(network.device)}
    if all(reading.is_chain for reading in readings):
        mask = np.arange(length) < np.array([[len(reading.ids)] for reading in readings])
        return {**inputs, "attention_mask": torch.from_numpy(mask.astype(np.int64)).to(network.device)}
    seen = np.broadcast_to(np.eye(length, dtype=np.bool_), (len(readings), length, length)).copy()
    for row, reading in enumerate(readings):
        seen[row, : len(reading.ids), : len(reading.ids)] = reading.mask()
    masks = _masks_of_layers(seen, depths, network)
    return {**inputs, "position_ids": torch.from_numpy(depths).to(network.device), "attention_mask": masks}


def cannot_branch(network: Any, why: str) -> str:
    """The refusal of a model that can't look along one branch of a text alone."""
    kind = network.config.get_text_config().model_type
    return f"this model ({kind}) can't read marked text through another tokenizer: {why}; give unmarked text to read"


def _masks_of_layers(seen: Bools, depths: I64, network: Any) -> Any:
    """Masks that are added to attention scores: one for all layers, or one by kind of layer."""
    import torch

    def added(mask: Bools) -> torch.Tensor:
        hidden = torch.from_numpy(~mask[:, None]).to(network.device)
        return torch.zeros(hidden.shape, dtype=network.dtype, device=network.device).masked_fill_(
            hidden, torch.finfo(network.dtype).min
        )

    config = network.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    kinds = set(layers or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    if kinds - {"full_attention", "sliding_attention"} or "flash" in (config._attn_implementation or ""):
        raise DyetraceError(cannot_branch(network, "its attention takes no mask"))
    if window is None:
        return added(seen)
    near = seen & (depths[:, :, None] - depths[:, None, :] < window)
    if "sliding_attention" in kinds:
        return {"full_attention": added(seen), "sliding_attention": added(near)}
    return added(seen if layers else near)
