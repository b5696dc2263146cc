"""Context windows at generation: which preceding tokens seed the next position, and whether they did so before.

The context of a position is its h preceding token ids, the prompt's included; before the beginning of the sequence
stands `MISSING`. At generation a context that already chose a token in the same answer is left unmarked: it holds no
fresh randomness and would only repeat itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watermark.prf import MISSING

if TYPE_CHECKING:
    import torch


def next_contexts(ids: torch.Tensor, padding: torch.Tensor, width: int) -> torch.Tensor:
    """Contexts of the next position of each row: ids (b, length) -> (b, width) int64, oldest token first.

    Parameters
    ----------
    ids
        Token ids, left-padded.
    padding
        How many leading entries of each row are padding, shape (b,); they count as `MISSING`.
    """
    import torch

    length = ids.shape[1]
    window = ids[:, max(0, length - width) :]
    position = torch.arange(length - window.shape[1], length, device=ids.device)
    window = window.masked_fill(position < padding[:, None], MISSING)
    return torch.nn.functional.pad(window, (width - window.shape[1], 0), value=MISSING)


def seen_before(ids: torch.Tensor, contexts: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """Whether each row's next context already chose one of its generated tokens: (b,) bool.

    It is computed from the tokens alone, so that an engine that drafts and rewinds cannot leave stale state behind.
    Contexts that reach before the prompt hold `MISSING` and never repeat: each holds another number of it. Where a
    prompt is shorter than the context, the earlier ones are compared with the padding's token id in place of
    `MISSING`; at worst a text that generates that very id leaves a token unmarked.
    """
    width = contexts.shape[1]
    length = ids.shape[1]
    start = max(prompt_length - width, 0)
    if length - start <= width:
        return contexts.new_zeros(len(ids)).bool()
    earlier = ids[:, start : length - 1].unfold(1, width, 1)
    return (earlier == contexts[:, None, :]).all(-1).any(-1)
