"""From a suspect's answers to weighted tuples: which tokens of an answer count, and what their weight is.

A context counts where it stands first in an answer, unless it stood in a prompt: a student copies from its window, and
an endpoint may remember what it was asked before, so that the contexts of all prompts are left out, and those whose
text stands in the prompt at hand. A context also counts for the first prompt alone in whose answers it comes up, so
that each word is bet on once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from detect.models.forward import F64, I64, KEPT, Predictions
from detect.models.reading import NO_SUBKEY, Positions, ReadingDocument, ReadingText, context_at, context_fingerprints
from detect.models.shown import context_texts, stands_in
from detect.student.asking.answers import SuspectAnswer
from detect.student.asking.plan import prompt_text
from detect.student.texts.served import ServedOf
from detect.student.verdict.weights import Readout, Served, WeightedTuples, gathered, gathered_served, readout
from detect.text.distinct import first_occurrences
from watermark.prf import U32
from watermark.spec import WatermarkSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Reader = Callable[[ReadingText, Positions], Predictions]


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
        encodings = [self.tokenizer.encode(answer.text, add_special_tokens=False) for answer in answers]
        sequences = [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
        served = None if self.served is None else self.served(sequences)
        for answer, encoding, ids in zip(answers, encodings, sequences, strict=True):
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
            texts = context_texts(
                self.tokenizer, ids[np.array(kept, dtype=np.int64)[:, None] - np.arange(width, 0, -1)]
            )
            kept = [place for place, text in zip(kept, texts, strict=True) if not stands_in(text, shown)]
            if answer.tokens is not None:
                ends = _ends(answer)
                kept = [place for place in kept if _start(answer.text, encoding.offsets[place][0]) in ends]
            documents.append(ReadingDocument(f"answer {answer.sample}", np.concatenate([lead, ids]), len(lead)))
            places.append(np.array(kept, dtype=np.int64))
            prints.append(here[np.array(kept, dtype=np.int64) - width])
            spans.append([(answer, _start(answer.text, encoding.offsets[place][0])) for place in kept])
        if not documents or not sum(map(len, places)):
            return None
        return self._weighted(documents, places, prints, [span for some in spans for span in some], len(lead), served)

    def _weighted(
        self,
        documents: Sequence[ReadingDocument],
        places: Sequence[I64],
        prints: Sequence[Any],
        spans: Sequence[tuple[SuspectAnswer, int]],
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
        # An endpoint that leaves out some logprobs is read by what it said.
        shown = all(answer.tokens is not None for answer, _ in spans)
        reference = None
        if self.reference is not None and shown:
            reference = self.reference(ReadingText("answers", "", documents, marked=False), where)
        if not shown:
            tokens, weights = said[:, None], np.ones((len(said), 1))
        else:
            tokens, weights = self._of_logprobs(spans, reference)
        if served is None:
            subkeys = np.full(len(where), NO_SUBKEY, dtype=np.int64)
            return gathered(contexts, fingerprint.astype(np.int64), subkeys, tokens, weights)
        return gathered_served(contexts, fingerprint, served, tokens, weights, marked=self.served_marked)

    def _of_logprobs(
        self, spans: Sequence[tuple[SuspectAnswer, int]], reference: Predictions | None
    ) -> tuple[I64, F64]:
        """Candidates and weights from the alternatives at each position, as for open weights."""
        rows = [self._alternatives(answer, start) for answer, start in spans]
        width = max(map(len, rows))
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

    def _alternatives(self, answer: SuspectAnswer, start: int) -> dict[int, float]:
        """Owner's token -> the suspect's probability, at the position that begins at a byte of the answer."""
        assert answer.tokens is not None
        found: dict[int, float] = {}
        position = answer.tokens[_ends(answer)[start]]
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


def _ends(answer: SuspectAnswer) -> dict[int, int]:
    """Byte at which each of the suspect's tokens begins -> its index, where the tokens spell the text."""
    assert answer.tokens is not None
    if not answer.spelled:
        return {}
    starts, at = {}, 0
    for index, position in enumerate(answer.tokens):
        starts[at] = index
        at += len(position.chosen.raw)
    return starts


def _start(text: str, character: int) -> int:
    """Byte at which a character stands."""
    return len(text[:character].encode())
