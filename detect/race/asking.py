"""The questions of a race readout, as the asking client takes them, and what their replies say at each cut.

Requests go in the order of serving. A step is a served answer where whole ones are read, and else a cut.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from detect.models.reading import Positions, ReadingDocument, ReadingText
from detect.race.chances import Chances
from detect.race.cuts import first_of_runs
from detect.race.evidence import F64, I32, NOT_SAID
from detect.race.plan import RaceAsking, RacePlan, canonical_plan
from detect.race.replies import (
    echo_shares,
    likeliest,
    listed_prompt,
    own_of_prompt,
    prompt_shares,
    rest_of,
    said_in,
    shares_of,
)
from detect.student.asking.answers import Choice, Response, read_response
from detect.student.asking.budget import Budgets
from detect.student.asking.client import largest_body
from detect.student.asking.forms import Question, clean, question_of, request_of
from detect.student.asking.ledger import Ledger
from detect.student.asking.questions import Request, Taken

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CACHED = 64  # questions that are kept
_BESIDES = 2  # a server's own alternatives beside those that are asked for


@dataclass(frozen=True, slots=True)
class Replied:
    """A usable reply.

    Attributes
    ----------
    entry
        Its entry in the ledger.
    payload
        Its body as it came.
    """

    entry: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """What the suspect said at the cuts of a step.

    Attributes
    ----------
    said, shares
        As `detect.race.evidence.RaceEvidence` has them, shapes (m,) and (m, k) or (m, 0).
    """

    said: I32
    shares: F64


class RaceQuestions:
    """A plan's cuts as `detect.student.asking.questions.Questions`.

    Parameters
    ----------
    plan
        What is asked.
    text
        The served answers.
    where
        The plan's n cuts in them.
    chances
        The owner's at these cuts.
    tokenizer
        The spec's.
    vocabulary
        How many tokens there are.
    budgets
        Of this command; a later one may go on with larger ones.
    passed
        Steps that are not asked any more (`passed_over`).
    """

    def __init__(
        self,
        plan: RacePlan,
        text: ReadingText,
        where: Positions,
        chances: Chances,
        tokenizer: Tokenizer,
        vocabulary: int,
        budgets: Budgets,
        passed: frozenset[int] = frozenset(),
    ) -> None:
        self.url, self.budgets = plan.url, budgets
        self.canonical = canonical_plan(plan)
        self.sha256 = hashlib.sha256(self.canonical).hexdigest()
        self._plan, self._text, self._where, self._chances = plan, text, where, chances
        self._vocabulary, self._passed = vocabulary, passed
        self._left: set[int] = set()
        self._show = Show(plan.asking, tokenizer)
        if plan.whole_answers:
            starts = np.flatnonzero(np.diff(where.document, prepend=-1))
        else:
            starts = first_of_runs(where.document, where.position, plan.asking.run)
        self._rows = [slice(a, b) for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(where)], strict=True)]
        self.steps = len(self._rows)
        self._about = lru_cache(_CACHED)(self._question)

    def rows(self, step: int) -> slice:
        """The cuts that a step is about."""
        return self._rows[step]

    def leave(self, step: int) -> None:
        """Ask nothing more about a step's answer: its bets don't win (`detect.race.bets.goes_on`)."""
        answer = self._where.document[self._rows[step].start]
        later = range(step + 1, self.steps)
        self._left |= set(takewhile(lambda one: self._where.document[self._rows[one].start] == answer, later))

    def is_left(self, step: int) -> bool:
        """Whether a step isn't asked since its answer was left: it is as if it had never been planned."""
        return step in self._left

    @cached_property
    def largest_body(self) -> int:
        """As for `Questions`."""
        asking = self._plan.asking
        if not self._plan.whole_answers:
            named = self._chances.tokens.shape[1] if asking.named else 0
            return largest_body(asking.max_tokens, max(asking.alternatives, named) + _BESIDES)
        longest = max(len(self._text.documents[int(number)].sequence) for number in np.unique(self._where.document))
        # vLLM lists an echo's tokens twice.
        return largest_body(2 * longest + asking.max_tokens, asking.alternatives + _BESIDES)

    def samples_of(self, step: int) -> list[range]:
        """As for `Questions`."""
        return [] if step in self._passed or step in self._left else [range(1)]

    def request(self, step: int, sample: int, count: int) -> Request:
        """As for `Questions`."""
        question = self._about(step)
        url, body, most = request_of(self.url, self._plan.model, question, self._plan.asking.left_out)
        # Two cuts that are shown alike are asked each for itself: an endpoint need not answer alike.
        parts = [url, self._plan.model, hashlib.sha256(body).hexdigest(), *self._plan.cuts[self._rows[step].start]]
        return Request(
            url=url,
            body=body,
            key=hashlib.sha256(msgspec.json.encode(parts)).hexdigest(),
            step=step,
            sample=sample,
            count=count,
            prompt_bytes=max(0, question.most_tokens - most),
            most_tokens=most,
        )

    def take(self, request: Request, entry: int, payload: bytes, response: Response) -> Taken[Replied]:
        """As for `Questions`."""
        problem = self._useless(payload, response)
        return Taken([], [problem]) if problem is not None else Taken([Replied(entry, payload)], [])

    def repeated(self, answers: Sequence[Replied]) -> int:
        """As for `Questions`: each step has one."""
        return 0

    def heard(self, step: int, replies: Sequence[Replied]) -> Heard:
        """What the suspect said at the cuts of a step, given the reply to it; nothing where there is none."""
        rows = self._rows[step]
        count, k = rows.stop - rows.start, self._chances.tokens.shape[1]
        words_alone = self._plan.ask in ("bias", "greedy")
        said = np.full(count, NOT_SAID, dtype=np.int32)
        shares = np.full((count, 0 if words_alone else k), math.nan)
        if not replies:
            return Heard(said, shares)
        payload = replies[0].payload
        if self._plan.ask == "prompt-logprobs":
            self._prompt_logprobs(rows, payload, said, shares)
        elif self._plan.ask == "echo":
            self._echo(rows, payload, shares)
        else:
            self._run(rows, payload, said, shares)
        return Heard(said, shares)

    def _question(self, step: int) -> Question:
        row = self._rows[step].start
        document = self._text.documents[int(self._where.document[row])]
        if self._plan.whole_answers:
            asking = self._plan.asking
            return question_of(document.sequence.tolist(), "completions", "", asking.max_tokens, **asking.extra)
        return self._show.question(document, int(self._where.position[row]), self._settings(row))

    def _settings(self, row: int) -> dict[str, Any]:
        """What a cut's request has for itself."""
        asking = self._plan.asking
        tokens, chances = self._chances.tokens[row], self._chances.chances[row]
        if asking.ask == "bias":
            return {"logit_bias": biases(tokens, chances, asking)}
        if asking.named:
            return {"logprob_token_ids": [int(token) for token in tokens if token >= 0]}
        return {}

    def _useless(self, payload: bytes, response: Response) -> str | None:
        """Why a reply is of no use; None where it is of some."""
        if not response.choices:
            return response.problem or "no choices"
        choice = response.choices[0]
        if self._plan.ask == "prompt-logprobs":
            return None if listed_prompt(payload) is not None else "no log-probabilities of the prompt's tokens"
        if self._plan.ask == "echo":
            there = choice.tokens is not None or listed_prompt(payload) is not None
            return None if there else "no log-probabilities of the prompt's tokens"
        # The end of an answer is an empty text, and says something.
        if choice.problem == "an empty text":
            return None
        if choice.problem is None and self._plan.ask == "logprobs" and not choice.tokens:
            return "no log-probabilities"
        return choice.problem

    def _prompt_logprobs(self, rows: slice, payload: bytes, said: I32, shares: F64) -> None:
        listed = listed_prompt(payload) or []
        choice = _first(payload)
        most = self._plan.asking.alternatives
        length = len(self._text.documents[int(self._where.document[rows.start])].sequence)
        if len(listed) < length:  # it read something else
            return
        for place, row in enumerate(range(rows.start, rows.stop)):
            position, tokens = int(self._where.position[row]), self._chances.tokens[row].tolist()
            if position < length:
                shares[place], said[place] = prompt_shares(listed[position], tokens, most, self._vocabulary)
            elif choice is not None and choice.tokens:  # nothing was served here: it is the reply's first token
                top = choice.tokens[0].top[:most]
                shares[place] = shares_of(top, tokens, self._texts(row), self._vocabulary, ids=True)
                said[place] = likeliest(shares[place], max((math.exp(one.logprob) for one in top), default=1.0))

    def _echo(self, rows: slice, payload: bytes, shares: F64) -> None:
        sequence = self._text.documents[int(self._where.document[rows.start])].sequence.tolist()
        choice = _first(payload)
        own = own_of_prompt(None if choice is None else choice.tokens, listed_prompt(payload), sequence)
        for place, row in enumerate(range(rows.start, rows.stop)):
            position, tokens = int(self._where.position[row]), self._chances.tokens[row].tolist()
            if position < len(sequence):
                shares[place] = echo_shares(float(own[position]), sequence[position], tokens)

    def _run(self, rows: slice, payload: bytes, said: I32, shares: F64) -> None:
        """The first word at the cut, and while the reply says what was served, the next one at the place of that."""
        choice = _first(payload)
        if choice is None:
            return
        asking = self._plan.asking
        sequence = self._text.documents[int(self._where.document[rows.start])].sequence
        first = int(self._where.position[rows.start])
        # Log-probabilities are those of new tokens alone.
        begun = self._repeated(rows.start) if asking.repeats and asking.ask != "logprobs" else ""
        for place, row in enumerate(range(rows.start, rows.stop)):
            tokens, texts = self._chances.tokens[row].tolist(), self._texts(row)
            served = sequence[first : int(self._where.position[row])].tolist()
            rest = rest_of(choice, served, self._show.text(served), ids=asking.ids, begun=begun)
            if rest is None:
                return
            if asking.ask != "logprobs":
                said[place] = said_in(rest, tokens, texts, ids=asking.ids, begun="")
            elif rest.tokens:
                top = rest.tokens[0].top
                shares[place] = shares_of(top, tokens, texts, self._vocabulary, ids=asking.ids)
                said[place] = likeliest(shares[place], max((math.exp(one.logprob) for one in top), default=1.0))

    def _repeated(self, row: int) -> str:
        document = self._text.documents[int(self._where.document[row])]
        return self._show.repeated(document, int(self._where.position[row]))

    def _texts(self, row: int) -> list[str | None]:
        return self._show.candidates(self._chances.tokens[row].tolist())


class Show:
    """How a served answer's beginning is put to the suspect, by a plan's way of asking.

    Parameters
    ----------
    asking
        The way.
    tokenizer
        The spec's.
    """

    def __init__(self, asking: RaceAsking, tokenizer: Tokenizer) -> None:
        self._asking, self._tokenizer = asking, tokenizer
        self._special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}

    def fits(self, document: ReadingDocument) -> bool:
        """Whether what must be shown before the answer is on record."""
        if self._asking.shown in ("ids", "rendered"):
            return bool(len(document.told))
        return document.prompt is not None or (self._asking.shown == "plain" and bool(len(document.told)))

    def question(self, document: ReadingDocument, position: int, settings: dict[str, Any]) -> Question:
        """The question what comes at a position of a document.

        Parameters
        ----------
        document
            A served answer that `fits`.
        position
            In its sequence.
        settings
            More of the request's body.
        """
        asking = self._asking
        begun = document.sequence[document.lead : position]
        body = {**asking.extra, **settings}
        if asking.shown == "ids":
            ids = np.concatenate([document.told, begun]).tolist()
            return question_of(ids, "completions", "", asking.max_tokens, **body)
        if asking.shown == "messages":
            messages = [{"role": "user", "content": clean(document.prompt or "")}]
            return question_of(messages, asking.form, self.text(begun), asking.max_tokens, **body)
        return question_of(self._whole(document, position), "completions", "", asking.max_tokens, **body)

    def repeated(self, document: ReadingDocument, position: int) -> str:
        """What a reply begins with, of a server that repeats what it goes on from."""
        if self._asking.shown == "messages":
            return self.text(document.sequence[document.lead : position])
        return self._whole(document, position)

    def candidates(self, tokens: Iterable[int]) -> list[str | None]:
        """Texts of candidates (`detect.race.replies.said_of`); special tokens end an answer."""
        found: list[str | None] = []
        for token in tokens:
            text = None if token in self._special else self.text([token]) if token >= 0 else ""
            found.append("" if text is not None and "\ufffd" in text else text)
        return found

    def _whole(self, document: ReadingDocument, position: int) -> str:
        begun = document.sequence[document.lead : position]
        if self._asking.shown == "rendered":
            return self.text(np.concatenate([document.told, begun]))
        prompt = document.prompt
        if prompt is None:
            prompt = self._tokenizer.decode(document.told.tolist(), skip_special_tokens=True)
        return f"{clean(prompt)}\n{self.text(begun)}"

    def text(self, ids: Any) -> str:
        """Tokens as text, special ones included."""
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=False)


def biases(tokens: Sequence[int] | I32, chances: F64, asking: RaceAsking) -> dict[str, float]:
    """What is added to the suspect's logits: candidates that are likely anyway get less than others.

    So the word that it says is the one with the largest q / p^power among those of chances of at least ``least``; which
    words these are and what they get is decided by the owner's chances alone.

    Examples
    --------
    >>> how = RaceAsking(ask="bias", form="completions", shown="ids", ids=True, power=0.75, least=0.005)
    >>> biases([7, 9, 4], np.array([0.9, 0.099, 0.001]), how)
    {'7': 0.079, '9': 1.734}
    """
    return {
        str(int(token)): round(-asking.power * math.log(chance), 3)
        for token, chance in zip(tokens, chances.tolist(), strict=True)
        if token >= 0 and chance >= asking.least
    }


def passed_over(plan_sha256: str, ledger: Ledger) -> frozenset[int]:
    """Steps that must not be asked any more: they got no answer, and later ones have been sent.

    A later request shows what the key chose at earlier cuts. A suspect that learns from what it is shown would know it
    by now.
    """
    sent: dict[int, int] = {}  # entries of requests, and their steps
    answered: set[int] = set()
    for entry in ledger.entries():
        if entry.plan != plan_sha256:
            continue
        step = entry.meta.get("prompt")
        if entry.kind == "asked" and isinstance(step, int):
            sent[entry.number] = step
        elif entry.kind == "answered" and entry.asked in sent:
            answered.add(sent[entry.asked])
    return frozenset(range(max(sent.values(), default=0))) - answered


def _first(payload: bytes) -> Choice | None:
    choices = read_response(payload, 1).choices
    return choices[0] if choices else None
