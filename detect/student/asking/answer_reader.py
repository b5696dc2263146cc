"""From a suspect's answers to weighted tuples: which tokens of an answer count, and what their weight is.

Each text of an answer is read for itself: its reasoning, the answer proper, and what it hands to tools. A context
counts where it stands first in a text, unless it stood in a prompt: a student copies from its window, and an endpoint
may remember what it was asked before, so that the contexts of all prompts are left out, and those whose text stands in
the prompt at hand. A context also counts for the first prompt alone in whose answers it comes up, so that each word is
bet on once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from detect.models.forward import F64, I64, KEPT, Predictions
from detect.models.reading import NO_SUBKEY, Positions, ReadingDocument, ReadingText, context_at, context_fingerprints
from detect.models.shown import context_texts, stands_in
from detect.student.asking.answers import SuspectAnswer
from detect.student.asking.message_texts import Said, TextKind
from detect.student.asking.placing import Places
from detect.student.asking.plan import prompt_text
from detect.student.texts.served import ServedOf
from detect.student.verdict.weights import Readout, Served, WeightedTuples, gathered, gathered_served, readout
from detect.text.distinct import first_occurrences
from watermark.prf import U32
from watermark.spec import WatermarkSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Reader = Callable[[ReadingText, Positions], Predictions]

_SAID = 0.25
"""Weight of a word that was said where no log-probabilities are, among places that have some: as much as the readout
"entropy" gives a word at most."""


class ReadTexts(NamedTuple):
    """Texts of one kind: how many answers have one, and their tokens under the spec's tokenizer."""

    answers: int = 0
    tokens: int = 0


class _Span(NamedTuple):
    """A place in a text: the answer, the tokens that begin in that text (None without logprobs), and the byte."""

    answer: SuspectAnswer
    places: Places | None
    byte: int


@dataclass(frozen=True, eq=False)
class AnswerReader:
    """Turns the answers to each prompt into weighted tuples.

    Attributes
    ----------
    spec, tokenizer
        The watermark and its tokenizer.
    reference
        Predicts the tokens of an answer, where there is a reference model; only answers with logprobs are compared.
    encode_prompt
        Token ids of a prompt as the reference reads it.
    readout
        Of positions with logprobs.
    served
        In how many served answers each context stands under each sub-key (`served.open_served`); None weighs all
        contexts alike. Contexts that were not served weigh nothing, and of the others only sub-keys that were.
    served_marked
        Whether those served answers were marked (`gathered_served`).
    asked
        Contexts of all prompts of the plan (`asked_contexts`).
    taken
        Contexts that earlier prompts' answers gave.
    read
        What was read so far, by kind of text.
    """

    spec: WatermarkSpec
    tokenizer: Tokenizer
    readout: Readout
    reference: Reader | None = None
    encode_prompt: Callable[[Any], U32] | None = None
    served: ServedOf | None = None
    served_marked: bool = False
    asked: frozenset[int] = frozenset()
    taken: set[int] = field(default_factory=set)
    read: dict[TextKind, ReadTexts] = field(default_factory=dict)

    def tuples(self, prompt: Any, answers: Sequence[SuspectAnswer]) -> WeightedTuples | None:
        """The weighted tuples of one prompt's answers; None where they give none.

        Parameters
        ----------
        prompt
            As planned: a string or messages.
        answers
            All answers to it.
        """
        width = self.spec.context_width
        shown = prompt_text(prompt)
        before = self.asked | asked_contexts(self.tokenizer, [prompt], width)
        lead = np.empty(0, dtype=np.uint32) if self.encode_prompt is None else self.encode_prompt(prompt)
        documents, places, prints, spans = [], [], [], []
        begun = _begun(prompt)
        # An endpoint that leaves out some answers' logprobs is read by what it said.
        usable = all(answer.is_spelled for answer in answers)
        texts = [
            (answer, said, of_text or None if usable else None, _without(said.text, begun))
            for answer in answers
            for said, of_text in zip(answer.said, answer.places, strict=True)
        ]
        encodings = [self.tokenizer.encode(said.text[cut:], add_special_tokens=False) for _, said, _, cut in texts]
        sequences = [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
        served = None if self.served is None else self.served(sequences)
        self._count(texts, sequences)
        for (answer, said, of_text, cut), encoding, ids in zip(texts, encodings, sequences, strict=True):
            if len(ids) <= width:
                continue
            here = context_fingerprints(ids, width)[:-1]  # the last context has no token yet
            at = np.flatnonzero(first_occurrences(here))
            values = here[at].tolist()
            kept = [
                place + width
                for place, value in zip(at.tolist(), values, strict=True)
                if value not in before and value not in self.taken and (served is None or value in served)
            ]
            stood = context_texts(
                self.tokenizer, ids[np.array(kept, dtype=np.int64)[:, None] - np.arange(width, 0, -1)]
            )
            kept = [place for place, text in zip(kept, stood, strict=True) if not stands_in(text, shown)]
            starts = [_start(said.text, cut + encoding.offsets[place][0]) for place in kept]
            if of_text is not None:
                both = [(place, start) for place, start in zip(kept, starts, strict=True) if start in of_text]
                kept, starts = [place for place, _ in both], [start for _, start in both]
            documents.append(ReadingDocument(f"{said.kind} {answer.sample}", np.concatenate([lead, ids]), len(lead)))
            places.append(np.array(kept, dtype=np.int64))
            prints.append(here[np.array(kept, dtype=np.int64) - width])
            spans.append([_Span(answer, of_text, start) for start in starts])
        if not documents or not sum(map(len, places)):
            return None
        return self._weighted(documents, places, prints, [span for some in spans for span in some], len(lead), served)

    def _weighted(
        self,
        documents: Sequence[ReadingDocument],
        places: Sequence[I64],
        prints: Sequence[Any],
        spans: Sequence[_Span],
        lead: int,
        served: Served | None,
    ) -> WeightedTuples:
        width = self.spec.context_width
        document = np.repeat(np.arange(len(places)), [len(part) for part in places])
        position = np.concatenate(places) + lead
        fingerprint = np.concatenate(prints)
        self.taken.update(fingerprint.tolist())
        where = Positions(document, position, fingerprint)
        contexts = context_at(documents, where, width)
        pairs = zip(document.tolist(), position.tolist(), strict=True)
        said = np.array([documents[d].sequence[p] for d, p in pairs], dtype=np.int64)
        known = np.array([span.places is not None for span in spans])
        if not known.any():
            tokens, weights = said[:, None], np.ones((len(said), 1))
        else:
            reference = None
            if self.reference is not None:
                reference = self.reference(ReadingText("answers", "", documents, marked=False), where)
            tokens, weights = self._of_logprobs(spans, reference)
            tokens[~known, 0], weights[~known, 0] = said[~known], _SAID
        if served is None:
            subkeys = np.full(len(where), NO_SUBKEY, dtype=np.int64)
            return gathered(contexts, fingerprint.astype(np.int64), subkeys, tokens, weights)
        return gathered_served(contexts, fingerprint, served, tokens, weights, marked=self.served_marked)

    def _count(self, texts: Sequence[tuple[SuspectAnswer, Said, Any, int]], sequences: Sequence[U32]) -> None:
        """Put down what is read, by kind."""
        for kind in dict.fromkeys(said.kind for _, said, _, _ in texts):
            own = [(answer.sample, len(ids)) for (answer, said, _, _), ids in zip(texts, sequences, strict=True)
                   if said.kind == kind and len(ids)]  # fmt: skip
            before = self.read.get(kind, ReadTexts())
            answers, tokens = len({sample for sample, _ in own}), sum(count for _, count in own)
            self.read[kind] = ReadTexts(before.answers + answers, before.tokens + tokens)

    def _of_logprobs(self, spans: Sequence[_Span], reference: Predictions | None) -> tuple[I64, F64]:
        """Candidates and weights from the alternatives at each position, as for open weights."""
        rows = [self._alternatives(span) for span in spans]
        width = max(1, *map(len, rows))
        ids, q = np.full((len(rows), width), -1, dtype=np.int64), np.zeros((len(rows), width))
        for row, alternatives in enumerate(rows):
            ids[row, : len(alternatives)] = list(alternatives)
            q[row, : len(alternatives)] = list(alternatives.values())
        if reference is None:
            return ids, readout("entropy" if self.readout == "reference" else self.readout, q, None)
        # What the suspect does not show of its distribution is unknown, not 0: only what it shows is compared.
        r = reference.at(ids, self.spec.vocabulary_size)
        weights = readout(self.readout, q, r)
        return ids, np.where(reference.known[:, None] & (ids >= 0), weights, 0.0)

    def _alternatives(self, span: _Span) -> dict[int, float]:
        """Owner's token -> the suspect's probability, at the position that begins at a byte of the text."""
        if span.places is None or span.answer.tokens is None:
            return {}
        found: dict[int, float] = {}
        position = span.answer.tokens[span.places[span.byte]]
        for token in position.top or (position.chosen,):
            number = self._first_token(token.raw)
            if number is not None and token.logprob == token.logprob:
                found[number] = found.get(number, 0.0) + float(np.exp(token.logprob))
        ranked = sorted(found.items(), key=lambda item: -item[1])
        return dict(ranked[:KEPT])

    def _first_token(self, raw: bytes) -> int | None:
        """The owner's token with which a text that begins with these bytes begins."""
        if raw not in self._cache:
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                text = ""
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids if text else []
            self._cache[raw] = ids[0] if ids else None
        return self._cache[raw]

    @cached_property
    def _cache(self) -> dict[bytes, int | None]:
        return {}


def asked_contexts(tokenizer: Tokenizer, prompts: Iterable[Any], width: int) -> frozenset[int]:
    """Fingerprints of all contexts that stand in prompts, each a string or messages."""
    found: set[int] = set()
    for prompt in prompts:
        told = np.array(tokenizer.encode(prompt_text(prompt), add_special_tokens=False).ids, dtype=np.uint32)
        if len(told) >= width:
            found.update(context_fingerprints(told, width).tolist())
    return frozenset(found)


def _begun(prompt: Any) -> str:
    """The answer's beginning that a prompt ends with, which some servers (llama.cpp's) repeat; "" for none."""
    last = prompt[-1] if isinstance(prompt, list) and prompt else None
    return last.content if last is not None and last.role == "assistant" else ""


def _without(text: str, begun: str) -> int:
    """How many characters of a text are a repetition of what was shown."""
    return len(begun) if begun and text.startswith(begun) else 0


def _start(text: str, character: int) -> int:
    """Byte at which a character stands."""
    return len(text[:character].encode())
