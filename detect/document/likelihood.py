"""What the owner's model thought of each position of a suspect text: the candidates of `detect.document.aware`.

Only the largest logits of each position are kept, and the token that the text has. Any distribution over them serves
the test (an e-value is valid whatever the estimate), so this costs a little power and bounds memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detect.models.network import check_numbers, logits_at, most_positions, windows
from detect.text.distinct import I64, Mask, Tuples, distinct_tuples, first_occurrences, once, tuple_fingerprints
from watermark.prf import U32

if TYPE_CHECKING:
    import torch

KEPT = 256  # candidates per position
_WINDOW = 1024  # tokens that the model sees at a time: their full logits are in memory together


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Candidates of the positions whose context stands for the first time in the document.

    Attributes
    ----------
    tuples
        The tuples of those positions, n of them.
    candidates
        Token ids, shape (n, k); column 0 is the token that the text has.
    logits
        The model's logits of the candidates at temperature 1, shape (n, k) float32; -inf pads a duplicate of column 0.
    """

    tuples: Tuples
    candidates: U32
    logits: npt.NDArray[np.float32]

    def take(self, chosen: Mask | slice) -> Likelihood:
        """The chosen positions."""
        return Likelihood(self.tuples.take(chosen), self.candidates[chosen], self.logits[chosen])


def first_contexts(sequence: U32, width: int, first: int, prompt_length: int) -> Tuples:
    """One tuple for each distinct context at positions ``first`` onward: the context's first occurrence.

    The words of whole rows are independent for distinct contexts only; generation, too, marks a context once.
    """
    if width == 0:
        return _types(sequence, first, prompt_length)
    # The context of a position is the tuple of the position before it, one token narrower.
    contexts = tuple_fingerprints(sequence[:-1], width - 1, first - 1)
    index = np.flatnonzero(first_occurrences(contexts)) + first
    return Tuples(sequence, width, index, once(len(index)), prompt_length)


def _types(sequence: U32, first: int, prompt_length: int) -> Tuples:
    types = distinct_tuples(sequence[prompt_length:], 0, sequence[:prompt_length])
    return types.take(types.index >= first)


def likelihood(model: Any, ids: U32, width: int, prompt: U32 | None = None, first: Sequence[int] = ()) -> Likelihood:
    """Run the model over prompt and document and keep the candidates of each tested position.

    Parameters
    ----------
    model
        A transformers causal language model.
    ids, prompt
        As in `detect.text.distinct.distinct_tuples`. Without a prompt the model reads the document alone.
    first
        Ids that the model's tokenizer puts in front of any text; a known prompt has them already.
    """
    sequence = np.ascontiguousarray(ids if prompt is None else np.concatenate([prompt, ids]), dtype=np.uint32)
    lead = 0 if prompt is None else len(prompt)
    tuples = first_contexts(sequence, width, max(1, width if prompt is None else lead), lead)
    candidates = np.empty((len(tuples), KEPT + 1), dtype=np.uint32)
    logits = np.empty((len(tuples), KEPT + 1), dtype=np.float32)
    done = 0
    for positions, rows in _logits(model, sequence, tuples.index, first, bare=prompt is None):
        own = sequence[positions]
        out = slice(done, done + len(positions))
        candidates[out], logits[out] = _keep(rows, own)
        done += len(positions)
    return Likelihood(tuples, candidates, logits)


def _keep(rows: torch.Tensor, own: U32) -> tuple[U32, npt.NDArray[np.float32]]:
    """Own token first, then the largest logits: rows (n, V) -> ids and logits (n, KEPT + 1)."""
    top, ids = (part.numpy() for part in rows.topk(min(KEPT, rows.shape[1]), dim=-1))
    candidates = np.repeat(own[:, None], KEPT + 1, axis=1)
    logits = np.full(candidates.shape, -np.inf, dtype=np.float32)
    logits[:, 0] = rows.numpy()[np.arange(len(own)), own]
    candidates[:, 1 : top.shape[1] + 1] = ids
    logits[:, 1 : top.shape[1] + 1] = np.where(ids == own[:, None], -np.inf, top)
    return candidates, logits


def _logits(
    model: Any, sequence: U32, wanted: I64, first: Sequence[int], *, bare: bool
) -> Iterator[tuple[I64, torch.Tensor]]:
    """Yield positions and the float32 logits (n, V) of the tokens there; windows overlap by half.

    Each window stands behind the ids ``first``, but one that begins with a prompt (not ``bare``).
    """
    import torch

    most = min(_WINDOW, most_positions(model) or _WINDOW)
    with torch.inference_mode():
        for since, start, stop in windows(len(sequence), max(2, most - len(first))):
            positions = wanted[(wanted >= start) & (wanted < min(stop, len(sequence)))]
            if len(positions):
                before = np.array(first if since or bare else (), dtype=np.int64)
                tokens = np.concatenate([before, sequence[since : stop - 1].astype(np.int64)])
                keep = torch.from_numpy(positions - 1 - since + len(before))
                inputs = {"input_ids": torch.from_numpy(tokens)[None].to(model.device)}
                rows = logits_at(model, inputs, keep)[0].float().cpu()
                check_numbers(rows, model)
                yield positions, rows
