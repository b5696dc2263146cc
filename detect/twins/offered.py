"""What a suspect's endpoint offers, found out with a question that is nobody's and before the plan is made."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from detect.student.asking.account import ClientSettings
from detect.student.asking.address import check_url
from detect.student.asking.answers import read_prompt, read_response
from detect.student.asking.credentials import ApiKey
from detect.student.asking.forms import Form, Question
from detect.student.asking.lookahead import AHEAD, prompt_looks_ahead
from detect.student.asking.probing import Prober, Trial
from detect.student.asking.reach import shown_host
from detect.twins.asking import useless
from detect.twins.measures.answers import TEMPERATURE
from detect.twins.measures.logprobs import Form as LogprobForm
from detect.twins.measures.logprobs import LogprobMeasure
from detect.twins.measures.prompting import question
from detect.twins.plan import ASKS, Ask
from watermark.errors import DyetraceError
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
    left_out
        Settings that the endpoint doesn't take (`detect.student.asking.fields`).
    """

    ask: Ask
    measure: dict[str, Any]
    probed: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Way:
    ask: Ask
    measure: dict[str, Any]
    trial: Trial


def offered(
    url: str,
    model: str,
    wanted: Ask | Literal["auto"],
    *,
    plain: bool,
    samples: int = 0,
    key: ApiKey | None = None,
    settings: ClientSettings | None = None,
    left_out: Collection[str] = (),
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
    samples
        Free answers that are asked for beside the likeliest one.
    key, settings
        As for `detect.student.asking.asking.ask_all`.
    left_out
        Settings that are left out of all requests; others are that the endpoint refuses by name.

    Raises
    ------
    DyetraceError
        The endpoint can't be reached or refuses the key, or offers nothing of what is wanted.
    """
    check_url(url)
    ways = [way for way in _ways(plain) if wanted in ("auto", way.ask)]
    if samples:
        ways = [_with_samples(way) for way in ways]
    return asyncio.run(_first(url, model, ways, wanted, key, settings, left_out))


def _ways(plain: bool) -> list[_Way]:
    found = []
    for form in _LOGPROBS:
        measure = LogprobMeasure(form=form)
        trial = Trial(
            f"log-probabilities of a prompt ({form})",
            measure.questions(_NOBODYS),
            lambda replies, measure=measure: _logprobs(measure, replies),  # type: ignore[misc]
        )
        found.append(_Way("logprobs", {"form": form, "echo_tokens": measure.echo_tokens}, trial))
    for prefilled in _PREFILLED:
        asked = question(_NOBODYS, prefilled, _BEGUN, _TOKENS)
        trial = Trial(f"going on with an answer ({prefilled})", [asked], _goes_on)
        found.append(_Way("parting", {"form": prefilled}, trial))
    for place in _FREE:
        asked = question(_NOBODYS, "last" if place == "chat" else "completions", "", _TOKENS)
        trial = Trial(f"free answers ({place})", [asked], _answers)
        found.append(_Way("answers", {"completions": place == "completions"}, trial))
    order = {ask: rank for rank, ask in enumerate(ASKS)}
    return sorted(found, key=lambda way: (order[way.ask], _is_chat(way) == plain))


def _logprobs(measure: LogprobMeasure, replies: Sequence[bytes]) -> str | None:
    """Why log-probabilities of prompts are of no use: both twins' begin with the same prompt."""
    if (problem := measure.problem(_NOBODYS, replies)) is not None:
        return problem
    return AHEAD if prompt_looks_ahead(*map(read_prompt, replies)) else None


def _with_samples(way: _Way) -> _Way:
    """The same with what further answers are asked with, which an endpoint may refuse as well."""
    if way.ask != "answers":
        return way
    asked = way.trial.questions[0]
    warm = Question(asked.endpoint, {**asked.body, "temperature": TEMPERATURE, "seed": 0}, asked.most_tokens)
    return replace(way, trial=replace(way.trial, questions=[asked, warm]))


def _is_chat(way: _Way) -> bool:
    return way.trial.questions[0].endpoint == "chat"


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
    ways: Sequence[_Way],
    wanted: Ask | Literal["auto"],
    key: ApiKey | None,
    settings: ClientSettings | None,
    left_out: Collection[str],
) -> Offered:
    most = max(item.most_tokens for way in ways for item in way.trial.questions)
    async with Prober(url, model, key, settings, tokens=most, left_out=left_out) as prober:
        for way in ways:
            if await prober.offers(way.trial):
                return Offered(way.ask, way.measure, tuple(prober.probed), tuple(prober.left_out))
    advice = "give another --ask, or auto" if wanted not in ("auto", "answers") else "check the model's name"
    raise DyetraceError(
        f"{shown_host(url)} offers nothing of what was looked for ({'; '.join(prober.probed)}); {advice}"
    )
