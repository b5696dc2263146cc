"""The same log-probabilities from a model folder, and what else a local model says of pairs: covariates.

A model reads each of a pair's two answers after the prompt, through its own tokenizer, and with its chat template where
it has one. It serves three ends: a suspect whose weights are at hand, a reference beside any suspect, and the owner's
own model, whose opinion of the two answers explains a part of every other model's and is regressed out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from detect.models.network import check_numbers, logits_at, logits_width, most_positions, windows
from detect.models.soundness import check_sound, unfit
from detect.models.translation import token_bytes
from detect.student.asking.forms import clean
from detect.twins.measures.logprobs import LEAST, Read, columns, numbers
from detect.twins.measures.prompting import answer_limit, messages, number_of, plain_prompt
from detect.twins.measures.protocol import F64
from watermark.errors import DyetraceError, MachineError
from watermark.models.folder import load_model
from watermark.models.prompts import as_chat, leading_tokens, template_of
from watermark.models.tokenizer import load_tokenizer, vocabulary_size
from watermark.models.writing import padded, padding_token
from watermark.twins.pair import Pair

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]

COVARIATES = ("length in bytes", "log length in bytes")
OWNER_COVARIATES = ("owner's log-probability", "owner's mean log-probability", "length in the owner's tokens")

USUAL_SAMPLES = 4
"""Answers of the owner's model to a prompt, beside the greedy one."""

_LOGITS = 1 << 28  # bytes of logits that one forward pass may give


class Reader:
    """A model that reads answers after prompts.

    Parameters
    ----------
    network, tokenizer
        A transformers causal language model in evaluation mode, and its fast tokenizer.
    name
        What people call it: its folder.

    Raises
    ------
    DyetraceError
        The model looks ahead, depends on padding or predicts no numbers (`detect.models.soundness.check_sound`).
    """

    def __init__(self, network: Any, tokenizer: Any, name: str) -> None:
        check_sound(network, name, vocabulary_size(tokenizer))
        self._network, self._tokenizer = network, tokenizer
        self._chat = template_of(tokenizer) is not None
        self._bytes: Sequence[bytes | None] | None = None

    @classmethod
    def load(cls, folder: str | Path, dtype: str = "bfloat16", base: str | Path | None = None) -> Reader:
        """The model of a folder, on a GPU where there is one; what was mended is said on standard error."""
        network, tokenizer = load_model(folder, dtype, partial(print, file=sys.stderr), base=base)
        import torch

        if torch.cuda.is_available():
            network = network.to("cuda")
        reader = cls(network, tokenizer, str(folder))
        if (line := unfit(network, str(folder), tokenizer)) is not None:
            print(line, file=sys.stderr)
        return reader

    def shown(self, pair: Pair) -> tuple[str, bool]:
        """The text that stands before an answer, and whether the chat template made it.

        A template that refuses the pair's messages (roles that it doesn't know) is passed over.
        """
        if self._chat:
            try:
                return as_chat(self._tokenizer, messages(pair)), True
            except MachineError:
                raise
            except DyetraceError:
                return plain_prompt(pair), False
        return plain_prompt(pair), False

    def spelled(self, token: int) -> str:
        """A token's text; parts of characters are U+FFFD."""
        if self._bytes is None:
            self._bytes = token_bytes(load_tokenizer(self._tokenizer))
        raw = self._bytes[token] if token < len(self._bytes) else None
        return (raw or b"").decode("utf-8", "replace")

    def tokens(self, pair: Pair, text: str) -> Tokens:
        """The ids that the model reads of a prompt and an answer, and where the answer's are."""
        lead, templated = self.shown(pair)
        whole = lead + clean(text)
        encoded = self._tokenizer(whole, add_special_tokens=not templated, return_offsets_mapping=True)
        ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
        # Special tokens that the tokenizer adds have the place (0, 0), and one may stand at the end.
        places = [place for place, end in enumerate(ends) if place and end > len(lead)]
        last = places[-1] + 1 if places else 0
        starts = [max(0, start - len(lead)) for start, _ in encoded["offset_mapping"]]
        return Tokens(np.array(ids[:last], dtype=np.int64), places[0] if places else 0, starts[:last])

    def forward(
        self, sequences: Sequence[Tokens], take: Callable[[int, int, torch.Tensor], None], progress: Progress | None
    ) -> None:
        """Hand over the logits (k, V), float32, of the answer's tokens of each sequence, a window at a time.

        ``take`` gets the sequence's number, the place of the first token that is predicted, and the logits.
        """
        import torch

        most = most_positions(self._network)
        pieces = [piece for number, tokens in enumerate(sequences) for piece in _pieces(number, tokens, most)]
        done = 0
        for batch in _batches(pieces, logits_width(self._network)):
            length = max(piece.end - piece.start for piece in batch) - 1  # the last token is predicted, not read
            ids = torch.zeros((len(batch), length), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, piece in enumerate(batch):
                some = sequences[piece.number].ids[piece.start : piece.end - 1]
                ids[row, : len(some)] = torch.from_numpy(some)
                mask[row, : len(some)] = 1
            wanted = [np.arange(piece.first, piece.end) - piece.start - 1 for piece in batch]
            keep = torch.from_numpy(np.unique(np.concatenate(wanted)))
            device = self._network.device
            with torch.inference_mode():
                inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
                logits = logits_at(self._network, inputs, keep)
                for row, (piece, places) in enumerate(zip(batch, wanted, strict=True)):
                    at = torch.searchsorted(keep, torch.from_numpy(places)).to(logits.device)
                    take(piece.number, piece.first, logits[row, at].float())
            done += len(batch)
            if progress is not None:
                progress(done, len(pieces))

    def answers(self, pair: Pair, samples: int) -> list[str]:
        """What the model itself says to a pair's prompt: its greedy answer first, then samples.

        Samples are drawn at the pair's temperature and top-p from a seed that is the pair's id.
        """
        import torch
        from transformers import GenerationConfig

        def first_is_greedy(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            best = scores[0].argmax()
            scores = scores.clone()
            scores[0] = -torch.inf
            scores[0, best] = 0.0
            return scores

        lead, templated = self.shown(pair)
        first = () if templated else leading_tokens(self._tokenizer)
        read = [*first, *self._tokenizer(lead, add_special_tokens=False)["input_ids"]]
        padding = padding_token(self._network, self._tokenizer)
        inputs = padded([read], padding, self._network.device)
        ends = getattr(self._network.generation_config, "eos_token_id", None) or self._tokenizer.eos_token_id
        config = GenerationConfig(
            do_sample=True,
            num_return_sequences=samples + 1,
            max_new_tokens=answer_limit(pair),
            temperature=number_of(pair, "temperature", 1.0),
            top_p=min(1.0, number_of(pair, "top_p", 1.0)),
            top_k=0,
            eos_token_id=ends,
            pad_token_id=padding,
        )
        torch.manual_seed(int(pair.id, 16) % 2**63)
        # One prompt at a time: what is said to it must not depend, not even by rounding, on which pairs come later.
        with torch.inference_mode():
            rows = self._network.generate(**inputs, generation_config=config, logits_processor=[first_is_greedy])
        written = rows[:, inputs["input_ids"].shape[1] :]
        found: list[str] = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return found

    def read(self, pairs: Sequence[Pair], progress: Progress | None = None) -> list[Read | None]:
        """What the model makes of each pair; None where an answer is empty.

        Parameters
        ----------
        pairs
            In any order; what is read of one does not depend on the others.
        progress
            Called with texts done and in all.
        """
        sequences = [self.tokens(pair, side.text) for pair in pairs for side in pair.sides]
        totals = np.zeros(len(sequences))

        def take(number: int, first: int, logits: torch.Tensor) -> None:
            import torch

            ids = torch.from_numpy(sequences[number].ids[first : first + len(logits)]).to(logits.device)
            logs = logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(-1)
            check_numbers(logs, self._network)
            totals[number] += float(logs.double().clamp(min=LEAST).sum())

        self.forward(sequences, take, progress)
        counts = [len(one.ids) - one.first if one.first else 0 for one in sequences]
        return [
            Read((float(totals[i]), float(totals[i + 1])), (counts[i], counts[i + 1]))
            if counts[i] and counts[i + 1]
            else None
            for i in range(0, len(sequences), 2)
        ]


class Tokens(NamedTuple):
    """A prompt and an answer as a model reads them.

    Attributes
    ----------
    ids
        Shape (n,).
    first
        Place of the answer's first token, at least 1; 0 where it has none.
    starts
        Where in the answer each token begins, in characters, length n; 0 for those before it.
    """

    ids: np.ndarray[Any, np.dtype[np.int64]]
    first: int
    starts: Sequence[int]


class _Piece(NamedTuple):
    """What is read at once of a sequence: its number, the window, and the first place that is predicted."""

    number: int
    start: int
    first: int
    end: int


def _pieces(number: int, tokens: Tokens, most: int | None) -> Iterator[_Piece]:
    length = len(tokens.ids)
    if not tokens.first:
        return
    if most is None or length <= most:
        yield _Piece(number, 0, tokens.first, length)
        return
    for start, from_, to in windows(length, most):
        first, end = max(from_, tokens.first), min(to, length)
        if first < end:
            yield _Piece(number, start, first, end)


def _batches(pieces: Sequence[_Piece], width: int) -> Iterator[list[_Piece]]:
    """Pieces of like length together, as many as the logits of one pass may take."""
    batch: list[_Piece] = []
    for piece in sorted(pieces, key=lambda one: (one.end - one.start, one.number)):
        if batch and (len(batch) + 1) * (piece.end - piece.start) * width * 2 > _LOGITS:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def read_pairs(
    folder: str | Path, pairs: Sequence[Pair], *, dtype: str = "bfloat16", progress: Progress | None = None
) -> dict[str, Read]:
    """What the model of a folder makes of each pair, by the pair's id; pairs with an empty answer are missing.

    Raises
    ------
    DyetraceError
        The folder is none of a sound causal language model.
    """
    reads = Reader.load(folder, dtype).read(pairs, progress)
    return {pair.id: read for pair, read in zip(pairs, reads, strict=True) if read is not None}


def usual_answers(
    folder: str | Path,
    pairs: Sequence[Pair],
    samples: int = USUAL_SAMPLES,
    *,
    dtype: str = "bfloat16",
    progress: Progress | None = None,
) -> dict[str, list[str]]:
    """What the owner's model answers to each pair's prompt when it is asked now, by the pair's id.

    Such words say nothing of training (`detect.twins.measures.answers.telling`). The prompt alone has a say in them,
    and no coin.

    Parameters
    ----------
    folder
        The owner's model, as it was when the pairs were made: taught nothing of them.
    samples
        Answers beside the greedy one.
    """
    reader = Reader.load(folder, dtype)
    found = {}
    for done, pair in enumerate(pairs, 1):
        found[pair.id] = reader.answers(pair, samples)
        if progress is not None:
            progress(done, len(pairs))
    return found


def differences(
    folder: str | Path,
    pairs: Sequence[Pair],
    reference: Mapping[str, Read] | None = None,
    *,
    dtype: str = "bfloat16",
    progress: Progress | None = None,
) -> F64:
    """The numbers of each pair by the suspect's weights, first side less second: shape (n, columns).

    Parameters
    ----------
    folder
        The suspect's.
    pairs
        In the order of the bets.
    reference
        What a reference model makes of each pair (`read_pairs`).

    Columns are those of `detect.twins.measures.logprobs.columns`.
    """
    found = read_pairs(folder, pairs, dtype=dtype, progress=progress)
    beside = reference is not None
    rows = [numbers(found.get(pair.id), (reference or {}).get(pair.id), beside) for pair in pairs]
    return np.array(rows).reshape(len(pairs), len(columns(beside)))


def covariates(pairs: Sequence[Pair], owner: Mapping[str, Read] | None = None) -> F64:
    """What of a pair may explain a difference without any training: first side less second, shape (n, c).

    They flip with the pair as differences do, so that a regression of differences on them through the origin uses no
    coin. Columns are `COVARIATES`, and with the owner's model `OWNER_COVARIATES`.

    Parameters
    ----------
    pairs
        In the order of the bets.
    owner
        What the owner's model makes of each pair (`read_pairs`).
    """
    rows = []
    for pair in pairs:
        one, other = (len(clean(side.text).encode()) for side in pair.sides)
        row = [float(one - other), float(np.log1p(one) - np.log1p(other))]
        if owner is not None:
            read = owner.get(pair.id)
            row += [0.0, 0.0, 0.0] if read is None else [*read.difference[::-1], float(read.tokens[0] - read.tokens[1])]
        rows.append(row)
    return np.array(rows).reshape(len(pairs), len(covariate_names(owner is not None)))


def covariate_names(owner: bool) -> tuple[str, ...]:
    """Names of the columns of `covariates`."""
    return (*COVARIATES, *OWNER_COVARIATES) if owner else COVARIATES
