"""A model with another tokenizer, read in the owner's tokens: through the text that both kinds of tokens stand for.

Nothing here knows a key. A poor translation costs power and never validity, as long as what is read at a place, and
whether it is read, depends on the text before it alone.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detect.models.branches import Aligned, Tree, forward_inputs
from detect.models.forward import KEPT, Predictions
from detect.models.network import check_numbers, logits_at, logits_width, most_positions
from detect.models.reading import Positions, ReadingDocument, ReadingText
from detect.models.shown import context_texts, stands_in
from detect.models.soundness import check_branches
from detect.models.translation import NO_TOKEN, continuing, token_bytes, translation
from watermark.errors import DyetraceError, MachineError
from watermark.models.prompts import as_chat, leading_tokens, template_of
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

__all__ = ["NO_TOKEN", "Aligned", "AlignedModel", "Aligner"]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_WORD_END = re.compile(r"[a-z](?= [a-z])")  # every known tokenizer splits here
_BLOCK = 48  # characters from one such end to the next that is used; what follows the last is encoded for each position
_VALUES = 1 << 24  # probabilities that are translated at a time
_LOGITS = 1 << 28  # bytes of logits that one forward pass may give


@dataclass(frozen=True, eq=False)
class Aligner:
    """Translates between the owner's tokens and a model's.

    Attributes
    ----------
    identity
        Both tokenizers give the same ids; then everything is passed through.
    to_token
        Of each of the model's ids, the owner's token that comes first when it comes next; `NO_TOKEN` for special
        tokens and for fragments of characters with which no token begins. Shape (V_model,).
    same
        Whether both stand for the same text, shape (V_model,).
    vocabulary
        The owner's vocabulary size.
    """

    identity: bool
    to_token: I32
    same: Bools
    vocabulary: int
    _owner: Tokenizer
    _owner_bytes: Sequence[bytes | None]
    _owner_prefix: bool  # whether the owner's tokenizer puts a space before a text
    _model: Tokenizer
    _model_continuing: Tokenizer
    _first: Sequence[int]  # what the model's tokenizer puts before a text
    _chat: Any  # the model's transformers tokenizer, where it has a chat template

    @classmethod
    def load(cls, owner: Any, model: Any) -> Aligner:
        """Compare two tokenizers (some seconds for a vocabulary of 262,144).

        Parameters
        ----------
        owner, model
            The spec's tokenizer and the model's, each as for `load_tokenizer`. Chat templates come
            with transformers tokenizers alone.

        Raises
        ------
        DyetraceError
            A tokenizer that is neither byte-level nor of SentencePiece's kind.
        """
        ours, theirs = load_tokenizer(owner), load_tokenizer(model)
        our_bytes = token_bytes(ours)
        identity = tokenizer_fingerprint(ours) == tokenizer_fingerprint(theirs)
        if identity:
            to_token = np.array([NO_TOKEN if b is None else i for i, b in enumerate(our_bytes)], dtype=np.int32)
            same = to_token >= 0
        else:
            to_token, same = translation(ours, theirs)
        return cls(
            identity=identity,
            to_token=to_token,
            same=same,
            vocabulary=len(our_bytes),
            _owner=ours,
            _owner_bytes=our_bytes,
            _owner_prefix=_adds_space(ours, our_bytes),
            _model=theirs,
            _model_continuing=continuing(theirs),
            _first=leading_tokens(theirs),
            _chat=model if template_of(model) is not None else None,
        )

    def aligned_positions(
        self,
        text: str | None = None,
        prompt: str | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        wanted: Collection[int] | None = None,
        branches: bool = True,
        most_ids: int | None = None,
    ) -> Aligned:
        """Lay out what the model is to read of one document.

        Parameters
        ----------
        text
            The document; not needed with ``token_ids``.
        prompt
            What it answers: put through the model's chat template where it has one, else simply in front.
        token_ids
            The document as the owner's ids, where they are on record; else ``text`` is encoded.
        wanted
            Indices of the owner's tokens, from 0 to one past the end, whose distribution is wanted; None: all.
        branches
            Read each place after the model's own tokens of the text before it. False leaves out places inside the
            model's tokens of the whole text: that makes a plain sequence, which any model can read. But then the next
            token has a say in whether it is predicted, so the text must not be marked with a key in question.
        most_ids
            Leave out places after more than so many of the model's ids.

        Returns
        -------
        Aligned
            Left out are also places inside a character, and after nothing at all.
        """
        if token_ids is None:
            if text is None:
                raise ValueError("either text or token_ids is needed")
            token_ids = self._owner.encode(_clean(text), add_special_tokens=False).ids
        document, ends = self._spelling(token_ids)
        before, first = self._before(prompt)
        places = [place for place in ends if wanted is None or place in wanted]
        tree = Tree()
        start = tree.follow(-1, first)
        if self.identity:
            nodes = [tree.follow(start, self._model.encode(before, add_special_tokens=False).ids)]
            for token in token_ids:
                nodes.append(tree.follow(nodes[-1], [token]))
            rows = [nodes[place] for place in places]
        else:
            rows = self._grow(tree, start, before + document, [len(before) + ends[place] for place in places], branches)
        kept = [
            (place, row)
            for place, row in zip(places, rows, strict=True)
            if row >= 0 and (most_ids is None or tree.depths[row] < most_ids)
        ]
        return tree.aligned(kept)

    def _spelling(self, token_ids: Sequence[int]) -> tuple[str, dict[int, int]]:
        """Spell ids out: the text, and where in it each token begins, one past the end included.

        Left out are tokens that begin inside a character, and special tokens at the end.
        """
        length = len(token_ids)
        while length and self._bytes(token_ids[length - 1]) is None:
            length -= 1
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, ends = "", {0: 0}
        for place, token in enumerate(token_ids[:length]):
            spelled = self._bytes(token)
            if spelled is None:  # its name is the best that another model can read
                spelled = (self._owner.id_to_token(token) or "").encode()
            elif place == 0 and self._owner_prefix:
                spelled = spelled.removeprefix(b" ")
            text += decoder.decode(spelled)
            if not decoder.getstate()[0]:
                ends[place + 1] = len(text)
        return text, ends

    def _bytes(self, token: int) -> bytes | None:
        return self._owner_bytes[token] if 0 <= token < self.vocabulary else None

    def _before(self, prompt: str | None) -> tuple[str, Sequence[int]]:
        """What stands before the document: text, and ids before that."""
        if prompt is None:
            return "", self._first
        if self._chat is None:
            return _clean(prompt), self._first
        chat = [{"role": "user", "content": _clean(prompt)}]
        try:
            return as_chat(self._chat, chat), ()
        except MachineError:
            raise
        except DyetraceError as error:
            raise DyetraceError(f"{error}; give texts without prompts to read") from error

    def shown(self, prompt: str | None) -> str:
        """All text that the model is shown before a document: the prompt, and what its chat template adds."""
        return self._before(prompt)[0]

    def _grow(self, tree: Tree, start: int, text: str, ends: Sequence[int], branches: bool) -> list[int]:
        """Put the model's ids of each beginning of a text into the tree: where it ends, -1 for nowhere.

        A block of the text ends with a word at which all tokenizers split. What is decided about it at a place needs
        two characters more, so at no place does it depend on what comes after.
        """
        cuts, nodes = [0], [start]
        for match in _WORD_END.finditer(text):
            if match.end() - cuts[-1] >= _BLOCK:
                cuts.append(match.end())
        for number, (begin, end) in enumerate(pairwise(cuts)):
            nodes.append(tree.follow(nodes[-1], self._encode(text[begin:end], number)))
        trunk = len(text)
        if not branches:
            tree.follow(nodes[-1], self._encode(text[cuts[-1] :], len(cuts) - 1))
            trunk = len(tree.ids)
        rows = []
        for end in ends:
            block = max(0, bisect_right(cuts, end - 2) - 1)
            row = tree.follow(nodes[block], self._encode(text[cuts[block] : end], block))
            rows.append(row if branches or row < trunk else -1)
        return rows

    def _encode(self, text: str, block: int) -> list[int]:
        tokenizer = self._model_continuing if block else self._model
        return tokenizer.encode(text, add_special_tokens=False).ids

    def to_owner(self, logs: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Translate next-token distributions and keep the likeliest of the owner's tokens.

        Parameters
        ----------
        logs
            Log probabilities (natural) over the model's vocabulary, shape (n, V); V may be padded.
        top
            How many to keep.

        Returns
        -------
        tuple
            The owner's ids, int64, shape (n, top), by falling probability, and their probabilities, float32. The sum
            of a row is at most 1: what the model gives to tokens without translation belongs to none.
        """
        import torch

        parts = [part.topk(min(top, self.vocabulary), dim=-1) for part in self._translated(logs)]
        return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])

    def gather_owner(self, logs: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Probabilities of given tokens of the owner's.

        Parameters
        ----------
        logs
            As for `to_owner`.
        ids
            int64, shape (n, k); below 0 for none.

        Returns
        -------
        torch.Tensor
            float32, shape (n, k), 0 where there is no token.
        """
        import torch

        parts, done = [], 0
        for part in self._translated(logs):
            asked = ids[done : done + len(part)].to(part.device)
            parts.append(part.gather(1, asked.clamp(min=0)).masked_fill(asked < 0, 0.0))
            done += len(part)
        return torch.cat(parts)

    def _translated(self, logs: torch.Tensor) -> Iterator[torch.Tensor]:
        """Probabilities over the owner's vocabulary, some rows at a time."""
        import torch

        if logs.device.type == "mps":
            logs = logs.cpu()  # Apple's cards have no doubles
        width = len(self.to_token)
        if (self.to_token[logs.shape[1] :] >= 0).any():  # special tokens that a tokenizer merely adds are no loss
            raise DyetraceError(
                f"wrong model: it predicts {logs.shape[1]} tokens and its tokenizer has {width}; "
                "use the tokenizer that belongs to the model"
            )
        translated = np.flatnonzero(self.to_token[: logs.shape[1]] >= 0)
        ids = torch.from_numpy(translated).to(logs.device)
        to_token = torch.from_numpy(self.to_token[translated].astype(np.int64)).to(logs.device)
        step = max(1, _VALUES // width)
        for start in range(0, max(1, len(logs)), step):
            mass = logs[start : start + step, ids].double().exp()
            # Sums on a GPU come in any order: those of doubles differ by less than a float32 can show.
            out = mass.new_zeros((len(mass), self.vocabulary)).index_add_(1, to_token, mass)
            yield out.float()


def _adds_space(tokenizer: Tokenizer, spelled: Sequence[bytes | None]) -> bool:
    """Whether a tokenizer puts a space before a text."""
    ids = tokenizer.encode("a", add_special_tokens=False).ids
    return bool(ids) and (spelled[ids[0]] or b"").startswith(b" ")


def _clean(text: str) -> str:
    """Join surrogate pairs, and replace unpaired ones by U+FFFD: no tokenizer takes them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class AlignedModel:
    """A causal language model with another tokenizer, for `detect.models.forward.predictions`.

    Parameters
    ----------
    network, tokenizer
        A transformers causal language model, in evaluation mode, and its tokenizer.
    owner
        The spec's tokenizer.
    vocabulary
        The spec's vocabulary size.
    context_width
        The spec's, h. A position whose h tokens before it stand, as text, in what the model is shown before the
        document is left out: there the model may copy what the key chose.
    """

    def __init__(self, network: Any, tokenizer: Any, owner: Any, vocabulary: int, context_width: int) -> None:
        self.aligner = Aligner.load(owner, tokenizer)
        self._network = network
        self._owner = load_tokenizer(owner)
        self._vocabulary = vocabulary
        self._width = context_width
        self._branches_checked = False

    def predict(self, text: ReadingText, where: Positions) -> Predictions:
        """Predict the token at each position from the text before it.

        Zeros stand where a position is inside a character, after more tokens than the model reads, or after a context
        that stands in what the model is shown before the document.

        Raises
        ------
        DyetraceError
            Marked text is to be read, and the model can't be told to look along one branch of a text alone.
        """
        if text.marked and not (self.aligner.identity or self._branches_checked):
            check_branches(self._network, len(self.aligner.to_token))
            self._branches_checked = True
        ids = np.full((len(where), KEPT), NO_TOKEN, dtype=np.int32)
        probabilities = np.zeros((len(where), KEPT), dtype=np.float32)
        numbers, starts = np.unique(where.document, return_index=True)
        places = np.split(where.position, starts[1:])
        readings = [
            self._read(text.documents[number], wanted, text.marked)
            for number, wanted in zip(numbers.tolist(), places, strict=True)
        ]
        for batch in _batches(readings, logits_width(self._network)):
            for row, (tokens, mass) in zip(batch, self._likeliest([readings[row] for row in batch]), strict=True):
                at = starts[row] + np.searchsorted(places[row], readings[row].tokens)
                ids[at, : tokens.shape[1]], probabilities[at, : tokens.shape[1]] = tokens, mass
        return Predictions(ids, probabilities)

    def _read(self, document: ReadingDocument, wanted: I64, marked: bool) -> Aligned:
        """One document; ``tokens`` of the result count from the start of its sequence."""
        lead = 0 if document.prompt is None else document.lead
        found = self.aligner.aligned_positions(
            prompt=document.prompt,
            token_ids=document.sequence[lead:].tolist(),
            wanted=set((self._not_shown(document, wanted) - lead).tolist()),
            branches=marked,
            most_ids=most_positions(self._network),
        )
        return replace(found, tokens=found.tokens + lead)

    def _not_shown(self, document: ReadingDocument, wanted: I64) -> I64:
        """The positions whose context does not stand in what the model is shown before the document."""
        shown = self.aligner.shown(document.prompt)
        asked = np.flatnonzero(wanted >= self._width)
        if not shown or not len(asked) or not self._width:
            return wanted
        contexts = document.sequence[wanted[asked, None] + np.arange(-self._width, 0)]
        copied = [stands_in(text, shown) for text in context_texts(self._owner, contexts)]
        return np.delete(wanted, asked[copied])

    def _likeliest(self, readings: Sequence[Aligned]) -> Iterator[tuple[I32, F32]]:
        import torch

        keep = torch.from_numpy(np.unique(np.concatenate([reading.rows for reading in readings])))
        with torch.inference_mode():
            inputs = forward_inputs(readings, self._network)
            logits = logits_at(self._network, inputs, keep)
            for row, reading in enumerate(readings):
                at = torch.searchsorted(keep, torch.from_numpy(reading.rows)).to(logits.device)
                step = max(1, _VALUES // len(self.aligner.to_token))
                parts = [
                    self.aligner.to_owner(logits[row, some].float().log_softmax(-1), KEPT)
                    for some in at.split(step)  # type: ignore[no-untyped-call]
                ]
                top, mass = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
                check_numbers(mass, self._network)
                yield top.int().cpu().numpy(), mass.cpu().numpy()


def _batches(readings: Sequence[Aligned], width: int) -> Iterator[list[int]]:
    """Readings of like length together, as many as the logits of one pass may take; none that asks for nothing."""
    batch: list[int] = []
    for row in sorted(range(len(readings)), key=lambda row: len(readings[row].ids)):
        length = len(readings[row].ids)
        if length and batch and (len(batch) + 1) * length * width * 2 > _LOGITS:
            yield batch
            batch = []
        if length:
            batch.append(row)
    if batch:
        yield batch
