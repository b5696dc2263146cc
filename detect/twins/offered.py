"""What a suspect's endpoint offers, found out with a question that is nobody's and before the plan is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detect.student.asking.account import ClientSettings
from detect.student.asking.answers import error_message, read_response
from detect.student.asking.client import Endpoint, Reply, largest_body
from detect.student.asking.credentials import ApiKey
from detect.student.asking.forms import Form, Question, request_of
from detect.student.asking.pace import backoff
from detect.student.asking.plan import check_url
from detect.student.asking.reach import Unreachable, cannot_reach, shown_host
from detect.twins.asking import useless
from detect.twins.measures.logprobs import Form as LogprobForm
from detect.twins.measures.logprobs import LogprobMeasure
from detect.twins.measures.prompting import question
from detect.twins.plan import ASKS, Ask
from watermark.errors import DyetraceError, MachineError
from watermark.twins.pair import Pair, TwinAnswer

_BEGUN, _NEXT = "1, 2, 3, 4, 5, 6,", "7"
_NOBODYS = Pair(
    id="0" * 32,
    made="2026-01-01T00:00:00+00:00",
    request={"messages": [{"role": "user", "content": "Count from one to ten in digits."}]},
    answers=(TwinAnswer(text="1, 2, 3, 4, 5, 6, 7, 8, 9, 10."), TwinAnswer(text="One, two, three, four, five, six.")),
    served=0,
)
_TOKENS = 8  # of a reply

_LOGPROBS: tuple[LogprobForm, ...] = ("chat", "prompt_logprobs", "echo")
_PREFILLED: tuple[Form, ...] = ("continue", "prefix", "last", "completions")
_FREE: tuple[Literal["chat", "completions"], ...] = ("chat", "completions")


@dataclass(frozen=True, slots=True)
class Offered:
    """What an endpoint offers.

    Attributes
    ----------
    ask
        The strongest of what was looked for.
    measure
        Settings with which it is asked for.
    probed
        What was tried, and what came of it, a line each.
    """

    ask: Ask
    measure: dict[str, Any]
    probed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Trial:
    ask: Ask
    name: str
    measure: dict[str, Any]
    questions: list[Question]
    problem: Callable[[Sequence[bytes]], str | None]


def offered(
    url: str,
    model: str,
    wanted: Ask | Literal["auto"],
    *,
    plain: bool,
    key: ApiKey | None = None,
    settings: ClientSettings | None = None,
) -> Offered:
    """Try what is wanted, or all from the strongest access to the weakest, until something works.

    Parameters
    ----------
    url, model
        The endpoint's base address, and the suspect's name there.
    wanted
        What is to be asked for; "auto" takes the strongest that is offered.
    plain
        Whether the pairs' prompts are plain text: then /completions is tried first, else chat.
    key, settings
        As for `detect.student.asking.asking.ask_all`.

    Raises
    ------
    DyetraceError
        The endpoint can't be reached or refuses the key, or offers nothing of what is wanted.
    """
    check_url(url)
    trials = [trial for trial in _trials(plain) if wanted in ("auto", trial.ask)]
    return asyncio.run(_first(url, model, trials, wanted, key, settings or ClientSettings()))


def _trials(plain: bool) -> list[_Trial]:
    found = []
    for form in _LOGPROBS:
        measure = LogprobMeasure(form=form)
        found.append(
            _Trial(
                "logprobs",
                f"log-probabilities of a prompt ({form})",
                {"form": form, "echo_tokens": measure.echo_tokens},
                measure.questions(_NOBODYS),
                lambda replies, measure=measure: measure.problem(_NOBODYS, replies),  # type: ignore[misc]
            )
        )
    for prefilled in _PREFILLED:
        asked = question(_NOBODYS, prefilled, _BEGUN, _TOKENS)
        found.append(
            _Trial("parting", f"going on with an answer ({prefilled})", {"form": prefilled}, [asked], _goes_on)
        )
    for place in _FREE:
        asked = question(_NOBODYS, "last" if place == "chat" else "completions", "", _TOKENS)
        settings = {"completions": place == "completions"}
        found.append(_Trial("answers", f"free answers ({place})", settings, [asked], _answers))
    order = {ask: rank for rank, ask in enumerate(ASKS)}
    return sorted(found, key=lambda trial: (order[trial.ask], _is_chat(trial) == plain))


def _is_chat(trial: _Trial) -> bool:
    return trial.questions[0].endpoint == "chat"


def _goes_on(replies: Sequence[bytes]) -> str | None:
    if (problem := useless("parting", replies[0], response := read_response(replies[0], 1))) is not None:
        return problem
    said = response.choices[0].text.removeprefix(_BEGUN).strip()
    return None if said.startswith(_NEXT) else "it doesn't go on with the answer, but begins another one"


def _answers(replies: Sequence[bytes]) -> str | None:
    return useless("answers", replies[0], read_response(replies[0], 1))


async def _first(
    url: str,
    model: str,
    trials: Sequence[_Trial],
    wanted: Ask | Literal["auto"],
    key: ApiKey | None,
    settings: ClientSettings,
) -> Offered:
    most = max(item.most_tokens for trial in trials for item in trial.questions)
    endpoint = Endpoint(url, key, connections=1, timeout=settings.timeout, largest=largest_body(most, 2))
    probed = []
    try:
        for trial in trials:
            problem = await _tried(endpoint, url, model, trial, settings)
            probed.append(f"{trial.name}: {problem or 'yes'}")
            if problem is None:
                return Offered(trial.ask, trial.measure, tuple(probed))
    finally:
        await endpoint.close()
    advice = "give another --ask, or auto" if wanted not in ("auto", "answers") else "check the model's name"
    raise DyetraceError(f"{shown_host(url)} offers nothing of what was looked for ({'; '.join(probed)}); {advice}")


async def _tried(endpoint: Endpoint, url: str, model: str, trial: _Trial, settings: ClientSettings) -> str | None:
    """Why a trial failed; None where it went well."""
    payloads = []
    for item in trial.questions:
        address, body, _ = request_of(url, model, item)
        reply = await _sent(endpoint, url, address, body, settings)
        response = read_response(reply.payload, 1) if reply.problem is None else None
        verdict = reply.verdict(None if response is None else response.error)
        if reply.status in (401, 403):
            raise DyetraceError(f"{shown_host(url)} refuses: {reply.says()}; check the API key and what it may do")
        if verdict != "answer" or reply.problem is not None:
            return reply.problem or f"status {reply.status} {error_message(reply.payload)}".strip()
        payloads.append(reply.payload)
    return trial.problem(payloads)


async def _sent(endpoint: Endpoint, url: str, address: str, body: bytes, settings: ClientSettings) -> Reply:
    """A reply that is no passing trouble.

    Raises
    ------
    MachineError
        None came, however often it was tried.
    """
    trouble = ""
    for attempt in range(settings.attempts):
        if attempt:
            await asyncio.sleep(backoff(attempt - 1, settings.first_backoff))
        try:
            reply = await endpoint.post(body, address)
        except Unreachable as error:
            if not error.connected:
                raise MachineError(cannot_reach(url, error)) from None
            trouble = error.reason
            continue
        if reply.verdict(None) != "again":
            return reply
        trouble = reply.says()
        if reply.status == 500 and attempt:  # some servers fall over what they don't know
            return reply
    raise MachineError(f"{shown_host(url)} does not answer ({trouble}); try again later")
