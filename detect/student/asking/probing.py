"""What an endpoint offers is found out with questions that are nobody's, each sent once, before a plan is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgspec

from detect.student.asking.account import ClientSettings
from detect.student.asking.answers import error_message, read_response
from detect.student.asking.client import Endpoint, Reply, largest_body
from detect.student.asking.credentials import ApiKey
from detect.student.asking.fields import fitted, in_words, refused_next
from detect.student.asking.forms import Question, request_of
from detect.student.asking.pace import backoff
from detect.student.asking.reach import Unreachable, cannot_reach, shown_host
from watermark.errors import DyetraceError, MachineError


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that an endpoint may offer.

    Attributes
    ----------
    name
        What it is, for people.
    questions
        What is asked to find out.
    problem
        Of the replies' bodies why it is not offered; None where it is.
    """

    name: str
    questions: Sequence[Question]
    problem: Callable[[Sequence[bytes]], str | None]


class Prober:
    """Asks an endpoint one question after the other, no question twice; use it in an ``async with`` block.

    Parameters
    ----------
    url, model
        The endpoint's base address, and the suspect's name there.
    key, settings
        As for `detect.student.asking.asking.ask_all`.
    tokens, alternatives
        Most tokens of a question and its reply together, and of alternatives at each.
    left_out
        Settings that are left out of all questions (`detect.student.asking.fields`).

    Attributes
    ----------
    probed
        What was tried, and what came of it, a line each.
    left_out
        Settings that are left out, those among them that the endpoint was found not to take.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: ApiKey | None,
        settings: ClientSettings | None,
        *,
        tokens: int,
        alternatives: int = 2,
        left_out: Collection[str] = (),
    ) -> None:
        self.probed: list[str] = []
        self.left_out = sorted(left_out)
        self._url, self._model, self._settings = url, model, settings or ClientSettings()
        largest = largest_body(tokens, alternatives)
        self._endpoint = Endpoint(url, key, connections=1, timeout=self._settings.timeout, largest=largest)
        self._replies: dict[tuple[str, bytes], tuple[bytes, str | None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self._endpoint.close()

    async def offers(self, trial: Trial) -> bool:
        """Whether a trial goes well; what came of it is noted.

        Raises
        ------
        DyetraceError
            The endpoint can't be reached or refuses the key.
        """
        problem = await self.tried(trial)
        self.probed.append(f"{trial.name}: {problem or 'yes'}")
        return problem is None

    async def tried(self, trial: Trial) -> str | None:
        """Why a trial failed; None where it went well. Nothing is noted."""
        payloads = []
        for question in trial.questions:
            payload, problem = await self.ask(question)
            if problem is not None:
                return problem
            payloads.append(payload)
        return trial.problem(payloads)

    async def ask(self, question: Question) -> tuple[bytes, str | None]:
        """The body of the reply to a question, and why there is none."""
        asked = request_of(self._url, self._model, question, self.left_out)[:2]
        if asked not in self._replies:
            self._replies[asked] = await self._asked(question)
        return self._replies[asked]

    async def _asked(self, question: Question) -> tuple[bytes, str | None]:
        """Ask; a setting that is refused by name is left out, and stays so if that helps."""
        left_out, lines = self.left_out, list[str]()
        while True:
            payload, problem = await self.answered(question, left_out)
            if problem is None:
                self.left_out = left_out
                self.probed += lines
                return payload, None
            sent = fitted(question.body, left_out)
            wider = refused_next(left_out, sent, payload)
            if wider is None:
                return b"", problem
            gone = [name for name in sent if name in wider]
            lines.append(f"{settings_sent(sent, gone)}: {problem}; from here on {in_words(wider)}")
            left_out = wider

    async def answered(self, question: Question, left_out: Collection[str]) -> tuple[bytes, str | None]:
        """The body of the reply to a question as it is sent, and why it is no answer; a refusal has both.

        Raises
        ------
        DyetraceError
            The endpoint can't be reached or refuses the key.
        """
        address, body, _ = request_of(self._url, self._model, question, left_out)
        reply = await self._sent(address, body)
        response = read_response(reply.payload, 1) if reply.problem is None else None
        verdict = reply.verdict(None if response is None else response.error)
        if reply.status in (401, 403):
            raise DyetraceError(
                f"{shown_host(self._url)} refuses: {reply.says()}; check the API key and what it may do"
            )
        if verdict != "answer" or reply.problem is not None:
            return reply.payload, reply.problem or f"status {reply.status} {error_message(reply.payload)}".strip()
        return reply.payload, None

    async def _sent(self, address: str, body: bytes) -> Reply:
        """A reply that is no passing trouble.

        Raises
        ------
        MachineError
            None came, however often it was tried.
        """
        trouble = ""
        for attempt in range(self._settings.attempts):
            if attempt:
                await asyncio.sleep(backoff(attempt - 1, self._settings.first_backoff))
            try:
                reply = await self._endpoint.post(body, address)
            except Unreachable as error:
                if not error.connected:
                    raise MachineError(cannot_reach(self._url, error)) from None
                trouble = error.reason
                continue
            if reply.verdict(None) != "again":
                return reply
            trouble = reply.says()
            if reply.status == 500 and attempt:  # some servers fall over what they don't know
                return reply
        raise MachineError(f"{shown_host(self._url)} does not answer ({trouble}); try again later")


def settings_sent(body: dict[str, Any], names: Collection[str]) -> str:
    """Some fields of a request as they were sent, for the record.

    Examples
    --------
    >>> settings_sent({"max_tokens": 1, "temperature": 1.0}, ["temperature"])
    'temperature 1.0'
    """
    return ", ".join(f"{name} {msgspec.json.encode(body[name]).decode()}" for name in names)
