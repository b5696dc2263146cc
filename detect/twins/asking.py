"""The questions of a test by twins, as the asking client takes them.

Requests go in the order of the bets. What is asked about a pair is the same whichever twin was served.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import msgspec
import numpy as np

from detect.student.asking.answers import Response, read_prompt
from detect.student.asking.budget import Budgets
from detect.student.asking.client import largest_body
from detect.student.asking.forms import Question, request_of
from detect.student.asking.questions import Request, Taken
from detect.twins.measures.answers import AnswerMeasure, Idf
from detect.twins.measures.protocol import F64, Measure
from detect.twins.plan import Ask, TwinPlan, canonical_plan
from watermark.errors import DyetraceError
from watermark.twins.pair import Pair

_ALTERNATIVES = 2  # at each token of a reply
_CACHED = 512  # steps whose questions are kept


@dataclass(frozen=True, slots=True)
class Replied:
    """A usable reply.

    Attributes
    ----------
    question
        Its place among the questions about the pair.
    entry
        Its entry in the ledger of answers.
    payload
        Its body as it came.
    """

    question: int
    entry: int
    payload: bytes


class TwinQuestions:
    """A plan's pairs as `detect.student.asking.questions.Questions`: a step is a pair, a sample one question about it.

    Parameters
    ----------
    plan
        Of an endpoint.
    pairs
        Those of the plan, in its order.
    measure
        What is asked about them.
    budgets
        Of this command; a later one may go on with larger ones.
    """

    def __init__(self, plan: TwinPlan, pairs: Sequence[Pair], measure: Measure, budgets: Budgets) -> None:
        if plan.url is None or plan.model is None:
            raise DyetraceError("the plan is of a suspect's weights, and no endpoint can be asked by it")
        self.url, self.budgets, self.steps = plan.url, budgets, len(pairs)
        self.canonical = canonical_plan(plan)
        self.sha256 = hashlib.sha256(self.canonical).hexdigest()
        self._model, self._ask, self._left_out = plan.model, plan.ask, plan.left_out
        self._pairs, self._measure = pairs, measure
        self._about = lru_cache(_CACHED)(lambda step: measure.questions(pairs[step]))

    @cached_property
    def largest_body(self) -> int:
        """As for `Questions`."""
        sizes = (question.most_tokens for step in range(self.steps) for question in self._about(step))
        return largest_body(max(sizes, default=0), _ALTERNATIVES)

    def samples_of(self, step: int) -> list[range]:
        """As for `Questions`."""
        return [range(number, number + 1) for number in range(len(self._about(step)))]

    def request(self, step: int, sample: int, count: int) -> Request:
        """As for `Questions`."""
        question = self._about(step)[sample]
        url, body, most = request_of(self.url, self._model, question, self._left_out)
        # Two pairs of one prompt are asked each for itself: an endpoint need not answer alike.
        parts = [url, self._model, hashlib.sha256(body).hexdigest(), self._pairs[step].id, sample]
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
        problem = useless(self._ask, payload, response)
        if problem is not None:
            return Taken([], [problem])
        return Taken([Replied(request.sample, entry, payload)], [])

    def repeated(self, answers: Sequence[Replied]) -> int:
        """As for `Questions`: whether replies to different questions are alike says nothing."""
        return 0

    def difference(self, step: int, replies: Sequence[Replied]) -> F64:
        """The pair's numbers, first side less second; zeros where it was not asked about."""
        questions = self._about(step)
        if not questions:
            return np.zeros(len(self._measure.columns))
        payloads: list[bytes | None] = [None] * len(questions)
        for reply in replies:
            payloads[reply.question] = reply.payload
        return self._measure.difference(self._pairs[step], payloads)


def useless(ask: Ask, payload: bytes, response: Response) -> str | None:
    """Why a reply is of no use; None where it is of some."""
    if not response.choices:
        return response.problem or "no choices"
    if ask == "logprobs":
        return read_prompt(payload).problem
    problem = response.choices[0].problem
    # One token or a few may be the end alone, which says something.
    return None if ask == "parting" and problem == "an empty text" else problem


class GrowingAnswers:
    """The measure of free answers in which a word's weight rests on the pairs so far.

    Which later pairs there are, and what they speak of, may be what an earlier coin led to: a client goes on from what
    it was served. So words are counted pair after pair, in the order of the bets, in both twins alike.
    """

    def __init__(self, measure: AnswerMeasure) -> None:
        self.name, self.columns = measure.name, measure.columns
        self._measure = measure

    def questions(self, pair: Pair) -> list[Question]:
        """As `AnswerMeasure` has them."""
        return self._measure.questions(pair)

    def difference(self, pair: Pair, replies: Sequence[bytes | None]) -> F64:
        """As `AnswerMeasure` has it; to be called once for each pair, in the order of the bets."""
        counted = self._measure.idf
        own = Idf.of([pair])
        counted.counts.update(own.counts)
        grown = Idf(counted.texts + own.texts, counted.counts)
        self._measure = replace(self._measure, idf=grown)
        return self._measure.difference(pair, replies)
