"""What asking may do and what it has come to: settings of the client, running counts, and an estimate beforehand."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from detect.records.results import AskingForecast
from detect.student.asking.answers import read_response
from detect.student.asking.budget import Budgets, written_tokens
from detect.student.asking.ledger import Ledger, Spent
from detect.student.asking.questions import Questions, Request

REFUSED = "refused"
"""Reason for which the samples of a refused step are unusable."""
_BYTES_PER_TOKEN = 4  # of prompts, until the endpoint has counted some
_LOOKED_AT = 200  # answers on record from which an estimate learns


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How to send requests; none of it changes what is asked.

    Attributes
    ----------
    timeout
        Seconds for one request.
    start, most
        Requests at once after the first, and at most.
    attempts
        How often one request is tried.
    first_backoff
        Seconds after the first failure; doubled after each further one, up to a minute.
    longest_pause
        Seconds that an endpoint may ask to wait; where it asks for more, the trace ends and can be resumed.
    grace
        Seconds that requests under way are waited for when asking ends early: their answers are paid for.
    in_order
        One request at a time, each settled before the next one is sent: for questions that show what earlier ones asked
        about, so that an endpoint which learns from what it is shown has answered before it sees it.
    tried
        Such questions were found to be answered: one that is refused is then that question's own trouble, be it the
        first. Else the first one ends it all.
    skips
        Questions stand each for itself, as a trace's prompts do: one that is refused is left out and counted. Else a
        few in a row end it.
    """

    timeout: float = 120.0
    start: int = 4
    most: int = 32
    attempts: int = 6
    first_backoff: float = 1.0
    longest_pause: float = 900.0
    grace: float = 10.0
    in_order: bool = False
    tried: bool = False
    skips: bool = False


@dataclass(slots=True)
class Account:
    """What asking has come to so far.

    Attributes
    ----------
    prompts
        Steps (a trace's prompts, pairs of twins) released, whether their answers could be used or not.
    answers
        Usable ones, those from the ledger included.
    cached
        Requests whose answer stood in the ledger already.
    requests, retries
        HTTP requests sent for this plan over all its runs, and those of this run that were repetitions.
    tokens
        Spent for this plan over all its runs, as its budget counts them.
    unusable
        Answers that gave no text, and samples that could not be had at all, by reason.
    refused
        Steps that the endpoint refused, by what it said.
    without_logprobs
        Usable answers that came without something that the plan counts on, such as logprobs.
    repeated
        Answers whose text another sample of their prompt has too; many of them mean that the endpoint caches answers.
    prompt_tokens, completion_tokens
        Of all answers, those from the ledger included, as the endpoint counts them, or as the answers show where they
        show more; 0 where it doesn't say.
    before_plan
        Answers that the ledger held before this plan was entered in it, whichever plan asked for them: whoever makes a
        plan may have looked at them.
    models
        Names by which the endpoint called what answered.
    in_flight, limit, paused
        Requests under way, allowed at once, and seconds for which the endpoint wants none.
    stopped
        Why asking ended; None while it goes on.
    """

    prompts: int = 0
    answers: int = 0
    cached: int = 0
    requests: int = 0
    retries: int = 0
    tokens: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    refused: dict[str, int] = field(default_factory=dict)
    without_logprobs: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    before_plan: int = 0
    models: set[str] = field(default_factory=set)
    in_flight: int = 0
    limit: int = 1
    paused: float = 0.0
    stopped: Literal["plan finished", "budget spent", "closed"] | None = None


def estimate(
    questions: Questions[Any], ledger: Ledger | None = None, budgets: Budgets | None = None, *, name: str = ""
) -> AskingForecast:
    """Say what asking would cost, without asking; a server that knows no ``n`` takes a request for every sample.

    Parameters
    ----------
    questions
        What would be asked.
    ledger
        Answers on record; None where there are none yet.
    budgets
        Tighter than the plan's own.
    name
        The plan's file.

    Returns
    -------
    AskingForecast
        It expects tokens as the answers on record went, or four bytes a token and answers of full length where there
        are none.
    """
    limits, sha256 = questions.budgets.tightened(budgets), questions.sha256
    spent = Spent(0, 0) if ledger is None else ledger.spent(sha256)
    missing: list[Request] = []
    cached = 0
    seen = _Seen()
    for step in range(questions.steps):
        for samples in questions.samples_of(step):
            request = questions.request(step, samples.start, len(samples))
            entry = None if ledger is None else ledger.answer(request.key)
            if entry is None:
                missing.append(request)
                continue
            cached += 1
            if cached <= _LOOKED_AT:
                seen.add(request, entry.payload)
    size = sum(request.prompt_bytes for request in missing)
    most = sum(request.bound for request in missing)
    return AskingForecast(
        plan=name,
        plan_sha256=sha256,
        requests=len(missing),
        cached=cached,
        prompt_tokens=round(size * seen.prompt_share),
        completion_tokens=round(sum(r.count * min(seen.completion_mean, r.most_tokens) for r in missing)),
        most_tokens=most,
        spent_requests=spent.requests,
        spent_tokens=spent.tokens,
        within_budget=(limits.requests is None or spent.requests + len(missing) <= limits.requests)
        and (limits.tokens is None or spent.tokens + most <= limits.tokens),
    )


def more_to_target(asked: int, log10_evalue: float, target: float) -> int | None:
    """How many are still to be asked at the pace so far; None where the evidence does not grow.

    Examples
    --------
    >>> more_to_target(30, 3.0, 10.0)
    70
    """
    if log10_evalue <= 0 or not asked:
        return None
    return max(0, math.ceil(asked * (target / log10_evalue - 1)))


class _Seen:
    """Averages over answers on record."""

    def __init__(self) -> None:
        self._bytes = self._prompt = self._completion = self._samples = 0

    def add(self, request: Request, payload: bytes) -> None:
        response = read_response(payload, request.count)
        written = written_tokens(response, request.most_tokens)
        if response.prompt_tokens is not None and written is not None and response.choices:
            self._bytes += request.prompt_bytes
            self._prompt += response.prompt_tokens
            self._completion += written
            self._samples += len(response.choices)

    @property
    def prompt_share(self) -> float:
        """Prompt tokens for each byte of `prompt_bytes`."""
        return self._prompt / self._bytes if self._bytes else 1 / _BYTES_PER_TOKEN

    @property
    def completion_mean(self) -> float:
        """Tokens of a sample; infinite where none is known."""
        return self._completion / self._samples if self._samples else float("inf")
