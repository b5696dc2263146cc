"""One step of a batch: which key marks each row, and the marked logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from watermark.backends.rows import settle_threads
from watermark.engines.hook.answers import Answer
from watermark.engines.hook.epoch import Epoch
from watermark.rowkeys import RowKeys
from watermark.schemes.marking import choose_rows, mark_rows

if TYPE_CHECKING:
    import torch


class Rows:
    """The rows of a batch that hold answers to be marked, by epoch; made anew when the batch changes.

    Parameters
    ----------
    answers
        Of each row; None where a row is not marked.
    device
        Where the logits are.
    """

    def __init__(self, answers: Sequence[Answer | None], device: torch.device) -> None:
        import torch

        by_epoch: dict[Epoch, list[int]] = {}
        for row, answer in enumerate(answers):
            if answer is not None:
                by_epoch.setdefault(answer.epoch, []).append(row)
        if device.type == "cpu":
            settle_threads(sum(len(rows) * epoch.spec.vocabulary_size for epoch, rows in by_epoch.items()))
        self._rows = len(answers)
        self._parts = []
        for epoch, rows in by_epoch.items():
            words = [answers[row].key_words for row in rows]  # type: ignore[union-attr]
            keys = RowKeys(epoch.spec, epoch.selector, words, device)
            self._parts.append((epoch, torch.tensor(rows, device=device), keys))

    def mark(self, logits: torch.Tensor, contexts: torch.Tensor, left: torch.Tensor | None) -> torch.Tensor:
        """Mark logits (b, V) in place, where the rows' final distributions stand.

        Parameters
        ----------
        logits
            Shape (b, V) float32.
        contexts
            Shape (b, h) int64, oldest token first; rows that are not marked hold anything.
        left
            Rows to leave as they are at this step, (b,) bool; None for none.
        """
        for epoch, rows, keys in self._parts:
            everything = len(rows) == self._rows
            mine = logits if everything else logits[rows]
            marked = mark_rows(epoch.scheme, mine, *keys.at(contexts if everything else contexts[rows]))
            if left is not None:
                marked = marked.where(~(left if everything else left[rows])[:, None], mine.to(marked.dtype))
            if everything:
                logits.copy_(marked)
            else:
                logits[rows] = marked.to(logits.dtype)
        return logits

    def choose(self, logits: torch.Tensor, contexts: torch.Tensor, left: Sequence[bool]) -> torch.Tensor:
        """The choices of a scheme that chooses, (b,) int64; -1 in rows that are left or not marked.

        Parameters
        ----------
        logits, contexts
            As for `mark`; logits are only read.
        left
            Of each row.
        """
        import torch

        choices = None
        for epoch, rows, keys in self._parts:
            if len(rows) == self._rows:
                choices = choose_rows(epoch.scheme, logits, *keys.at(contexts))
                break
            if choices is None:
                choices = torch.full((len(logits),), -1, dtype=torch.long, device=logits.device)
            choices[rows] = choose_rows(epoch.scheme, logits[rows], *keys.at(contexts[rows]))
        assert choices is not None
        if any(left):
            choices[torch.tensor(left, device=logits.device)] = -1
        return choices
