"""Forward passes: the next-token distribution of a model at each position that counts, kept as its likeliest tokens.

Predictions are kept on disk in shards, under a name made of the model, the text and the settings. So a run that was
stopped goes on where it was, a reference is read once for any number of suspects, and memory is bounded by a shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from detect.models.network import check_numbers, logits_at, logits_width, most_positions, windows
from detect.models.reading import Positions, ReadingDocument, ReadingText
from watermark.errors import DyetraceError
from watermark.files.writing import make_folder, write_atomically

if TYPE_CHECKING:
    import torch

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

KEPT = 64
"""Likeliest tokens that are kept of each distribution."""
_SHARD = 4096  # positions; what a killed run loses, and what is in memory at once
_FORMAT = 2  # of the shards: raise it when what they hold changes
_LOGITS = 1 << 28  # bytes of logits that one forward pass may give

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The likeliest next tokens at each position.

    Attributes
    ----------
    ids
        Of the spec's tokenizer, shape (n, k), by falling probability; -1 where there is none.
    probabilities
        Shape (n, k); a row of zeros where the model could not be asked (its tokens straddle the position).
    """

    ids: I32
    probabilities: F32

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which positions have a prediction, shape (n,)."""
        return np.asarray(self.probabilities[:, 0] > 0)

    def at(self, ids: I64, vocabulary: int) -> F64:
        """Probabilities of given tokens: (n, m) ids, -1 for none -> (n, m).

        A token that was not kept gets an equal part of what the kept ones leave, and at most the least kept
        probability.
        """
        n, k = self.ids.shape
        rows = np.arange(n, dtype=np.int64)[:, None] << 32
        mine = (rows | np.where(self.ids >= 0, self.ids, 0xFFFFFFFF)).ravel()
        order = np.argsort(mine)
        wanted = rows | np.where(ids >= 0, ids, 0xFFFFFFFE)
        mine = mine[order]
        place = np.minimum(np.searchsorted(mine, wanted), n * k - 1)
        found = order[place]
        hit = mine[place] == wanted
        kept = self.probabilities.astype(np.float64)
        left = np.clip(1 - kept.sum(axis=1), 0, None) / max(1, vocabulary - k)
        rest = np.minimum(left, kept[:, -1])[:, None]
        out = np.where(hit, kept.ravel()[found], rest)
        return np.asarray(np.where(ids >= 0, out, 0.0))


def reading_hash(text: ReadingText, where: Positions) -> str:
    """SHA-256 over what is read and which positions count."""
    digest = hashlib.sha256(b"marked" if text.marked else b"unmarked")
    for document in text.documents:
        digest.update(np.array([len(document.sequence), document.lead], dtype="<i8").tobytes())
        digest.update(document.sequence.astype("<u4").tobytes())
        digest.update((document.prompt or "").encode("utf-8", "surrogatepass") + b"\0")
    digest.update(where.document.astype("<i8").tobytes() + where.position.astype("<i8").tobytes())
    return digest.hexdigest()


def predictions(
    load: Callable[[], Predictor],
    name: str,
    text: ReadingText,
    where: Positions,
    folder: Path | None,
    progress: Progress | None = None,
) -> Predictions:
    """The predictions of a model at the positions of a text, from the folder or from the model.

    Parameters
    ----------
    load
        Loads the model, called only where a shard is missing.
    name
        Names the model and its settings: a hash.
    text, where
        What to read, and the positions that count.
    folder
        Where shards are kept; None keeps none.
    progress
        Called with positions done and in all.
    """
    place = None
    if folder is not None:
        place = folder / f"{name[:16]}-{reading_hash(text, where)[:16]}-{KEPT}-{_FORMAT}"
        make_folder(place)
        with contextlib.suppress(OSError):
            os.utime(place)  # `detect.models.kept` removes what was not used for longest
    model: Predictor | None = None
    parts = []
    for number, (start, stop) in enumerate(_shards(where)):
        path = None if place is None else place / f"{number:06d}.npz"
        part = None if path is None else _read_shard(path, stop - start)
        if part is None:
            model = model or load()
            part = model.predict(text, Positions(*(a[start:stop] for a in _columns(where))))
            if path is not None:
                _write_shard(path, part)
        parts.append(part)
        if progress is not None:
            progress(stop, len(where))
    return Predictions(
        np.concatenate([part.ids for part in parts]), np.concatenate([part.probabilities for part in parts])
    )


def _columns(where: Positions) -> tuple[Any, Any, Any]:
    return where.document, where.position, where.fingerprint


def _shards(where: Positions) -> Iterator[tuple[int, int]]:
    """Cut positions into shards at the ends of documents."""
    ends = np.append(np.flatnonzero(np.diff(where.document)) + 1, len(where))
    start = 0
    for end in ends.tolist():
        if end - start >= _SHARD or end == len(where):
            yield start, end
            start = end


def _read_shard(path: Path, rows: int) -> Predictions | None:
    if not path.exists():
        return None
    try:
        # From memory: of a damaged file numpy would leave the handle open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            part = Predictions(file["ids"], file["probabilities"])
    except Exception:  # zipfile, zlib and numpy each raise their own kinds; whatever it is, the shard is read anew
        return None
    return part if len(part) == rows else None


def _write_shard(path: Path, part: Predictions) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, ids=part.ids, probabilities=part.probabilities)
    make_folder(path.parent)  # a cache may be emptied at any time
    write_atomically(path, buffer.getvalue(), 0o600)


class Predictor(Protocol):
    """Whatever predicts the spec's tokens: a model that reads them itself, or one with another tokenizer."""

    def predict(self, text: ReadingText, where: Positions) -> Predictions:
        """Predict the token at each position from all before it in its document."""
        ...


class Model:
    """A causal language model that reads the spec's own tokens.

    Parameters
    ----------
    network
        A transformers causal language model, in evaluation mode.
    vocabulary
        The spec's vocabulary size; logits beyond belong to no token.
    first
        Ids that its tokenizer puts in front of any text (`watermark.models.prompts.leading_tokens`). They stand before
        each document but those whose prompt is on record as the model read it.
    """

    def __init__(self, network: Any, vocabulary: int, first: Sequence[int] = ()) -> None:
        width = logits_width(network)
        if width < vocabulary:
            raise DyetraceError(
                f"wrong model: its vocabulary has {width} entries, the spec's {vocabulary}; a model with another "
                "tokenizer needs its own tokenizer.json beside its weights"
            )
        self._network = network
        self._vocabulary = vocabulary
        self._first = np.array(first, dtype=np.uint32)

    def predict(self, text: ReadingText, where: Positions) -> Predictions:
        """Predict the token at each position from all before it in its document."""
        most = most_positions(self._network)
        numbers, starts = np.unique(where.document, return_index=True)
        pieces = [
            piece
            for number, start, places in zip(
                numbers.tolist(), starts.tolist(), np.split(where.position, starts[1:]), strict=True
            )
            for piece in _windows(text.documents[number], places, start, most, self._first)
        ]
        ids = np.full((len(where), KEPT), -1, dtype=np.int32)
        probabilities = np.zeros((len(where), KEPT), dtype=np.float32)
        for rows in _batches([len(piece.sequence) for piece in pieces], self._vocabulary):
            read = [pieces[row] for row in rows]
            some = likeliest(
                self._network, [one.sequence for one in read], [one.wanted for one in read], self._vocabulary
            )
            for one, (tokens, mass) in zip(read, some, strict=True):
                part = slice(one.start, one.start + len(tokens))
                ids[part, : tokens.shape[1]], probabilities[part, : tokens.shape[1]] = tokens, mass
        return Predictions(ids, probabilities)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Token ids that a model reads at once, the positions in them that are wanted, and the row of the first."""

    sequence: npt.NDArray[np.uint32]
    wanted: I64
    start: int


def _windows(document: ReadingDocument, wanted: I64, start: int, most: int | None, begin: U32) -> Iterator[_Piece]:
    """Cut what is longer than a model reads: each window begins in the middle of the one before."""
    sequence = document.sequence
    whole = document.lead > 0 and len(document.told) <= document.lead  # it begins as the model that made it read it
    first = begin[:0] if whole else begin
    if most is None or len(first) + len(sequence) <= most:
        yield _Piece(np.concatenate([first, sequence]), wanted + len(first), start)
        return
    for since, from_, to in windows(len(sequence), max(2, most - len(begin))):
        part = slice(*np.searchsorted(wanted, [from_, to]).tolist())
        if part.start < part.stop:
            before = begin if since else first
            piece = np.concatenate([before, sequence[since : to - 1]])
            yield _Piece(piece, wanted[part] - since + len(before), start + part.start)


def _batches(lengths: Sequence[int], vocabulary: int) -> Iterator[list[int]]:
    """Documents of like length together, as many as the logits of one pass may take."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[row] * vocabulary * 2 > _LOGITS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def likeliest(
    network: Any, sequences: Sequence[npt.NDArray[np.uint32]], wanted: Sequence[I64], vocabulary: int
) -> list[tuple[I32, F32]]:
    """Likeliest next tokens of several sequences in one pass.

    Parameters
    ----------
    sequences
        Token ids of each.
    wanted
        Positions of each whose token is to be predicted, at least 1 and at most its length.
    vocabulary
        Tokens to consider.

    Returns
    -------
    For each sequence ids (n, k) and probabilities (n, k) among the whole vocabulary.
    """
    import torch

    length = max(len(s) for s in sequences)
    ids = torch.zeros((len(sequences), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.from_numpy(sequence.astype(np.int64))
        mask[row, : len(sequence)] = 1
    keep = torch.from_numpy(np.unique(np.concatenate(wanted)) - 1)
    device = network.device
    with torch.inference_mode():
        logits = logits_at(network, {"input_ids": ids.to(device), "attention_mask": mask.to(device)}, keep)
        return [
            top_of(logits[row, torch.searchsorted(keep, torch.from_numpy(places - 1)).to(logits.device)], vocabulary)
            for row, places in enumerate(wanted)
        ]


def top_of(logits: torch.Tensor, vocabulary: int) -> tuple[I32, F32]:
    """The likeliest tokens of rows of logits (n, V) and their probabilities, each (n, k) by falling probability."""
    logs = logits[:, :vocabulary].float().log_softmax(-1)
    top = logs.topk(min(KEPT, vocabulary), dim=-1)
    check_numbers(top.values)
    return top.indices.int().cpu().numpy(), top.values.exp().cpu().numpy()


def candidates(suspect: Predictions, others: Sequence[Predictions]) -> I64:
    """Tokens that any of the models kept: (n, m) ids without repeats, -1 for none, in no particular order."""
    ids = np.sort(np.concatenate([suspect.ids, *(other.ids for other in others)], axis=1).astype(np.int64), axis=1)
    ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = -1
    return ids
