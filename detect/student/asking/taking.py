"""What an endpoint takes of the requests of a trace, found by one question that is nobody's before the plan is written.

A refusal costs nothing, and of an answer one token is asked for. Nothing of the plan's prompts is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from detect.student.asking.account import ClientSettings
from detect.student.asking.answers import read_response
from detect.student.asking.credentials import ApiKey
from detect.student.asking.fields import (
    LIMITS,
    fitted,
    guesses,
    in_words,
    is_too_short,
    is_used_up,
    refused_next,
)
from detect.student.asking.forms import Question
from detect.student.asking.plan import SamplingPlan, TracePlan, request_settings, shown_as
from detect.student.asking.probing import Prober, settings_sent
from detect.student.asking.reach import shown_host
from watermark.errors import DyetraceError

QUESTION = "Say yes."
_LONGER = 16  # tokens that are allowed where one is too few for the endpoint, before as many as the plan allows
_ANONYMOUS_ATTEMPTS = 2  # without a key nobody said that the endpoint can be asked now


def found_to_take(plan: TracePlan, key: ApiKey | None = None, settings: ClientSettings | None = None) -> TracePlan:
    """The plan without what its endpoint refuses to take, and with what was sent and refused on record.

    Parameters
    ----------
    plan
        As it is meant; what is already left out is not tried.
    key, settings
        As for `detect.student.asking.asking.ask_all`. Without a key an endpoint that can't be asked is left unasked,
        and the plan says so.

    Raises
    ------
    DyetraceError
        The endpoint can't be asked with the key that was given, or refuses what the plan can't do without.
    """
    try:
        return asyncio.run(_tried(plan, key, settings or ClientSettings()))
    except _Unasked as error:
        if key is not None:
            raise error.reason from None
        return msgspec.structs.replace(plan, probed=[f"what it takes was not found out: {error.reason}"])


def as_taken(sampling: SamplingPlan, left_out: Collection[str]) -> SamplingPlan:
    """Sampling without what is left out."""
    limit = sampling.limit_field
    if limit in left_out:
        limit = next((name for name in LIMITS if name not in left_out), None)
    return msgspec.structs.replace(
        sampling,
        temperature=None if "temperature" in left_out else sampling.temperature,
        top_p=None if "top_p" in left_out else sampling.top_p,
        seed=None if "seed" in left_out else sampling.seed,
        limit_field=limit,
    )


class _Unasked(Exception):
    """The endpoint could not be asked at all."""

    def __init__(self, reason: DyetraceError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def _tried(plan: TracePlan, key: ApiKey | None, settings: ClientSettings) -> TracePlan:
    if key is None:
        settings = replace(settings, attempts=min(settings.attempts, _ANONYMOUS_ATTEMPTS))
    longest = plan.per_request * plan.sampling.max_tokens + 64
    alternatives = plan.sampling.top_logprobs + 1 if plan.evidence == "logprobs" else 2
    lines: list[str] = []
    first = ""
    left_out: list[str] = []
    named: list[str] = []  # what is left out whatever is guessed
    limit, *longer = sorted({1, min(_LONGER, plan.sampling.max_tokens), plan.sampling.max_tokens})
    untried: list[list[str]] | None = None
    async with Prober(plan.url, plan.model, key, settings, tokens=longest, alternatives=alternatives) as prober:
        while True:
            body = _with_limit(request_settings(plan, 0, plan.per_request), limit)
            question = Question(plan.endpoint, {**shown_as(plan, QUESTION), **body}, longest)
            sent = fitted(body, left_out)
            shown = settings_sent(sent, sent) or "no settings"
            try:
                payload, problem = await prober.answered(question, left_out)
            except DyetraceError as error:
                raise _Unasked(error) from None
            if problem is None:
                if (unlike := read_response(payload, plan.per_request).problem) is not None:
                    raise DyetraceError(
                        f"{shown_host(plan.url)} answers with what is no answer of such an endpoint ({unlike}); check "
                        "the address, and that it gives answers whole, not streamed"
                    )
                lines += [f"{shown}: answered", *_lacking(plan, payload, left_out)]
                break
            lines.append(f"{shown}: {problem}")
            if is_used_up(payload):
                lines.append("so it began to answer, and takes all that was sent; what it thinks before counts as well")
                break
            if longer and is_too_short(payload):
                limit = longer.pop(0)
                continue
            if (wider := refused_next(left_out, sent, payload)) is not None:
                left_out, untried = wider, None
                continue
            if untried is None:  # it may also name what is left out already
                named, untried = left_out, guesses(sent, payload)
            first = first or f"({shown}): {problem}"  # of guesses none helped
            if not untried:
                raise DyetraceError(
                    f"{shown_host(plan.url)} refuses what the plan would send {first}; check the address, the model's "
                    "name and the plan's options"
                )
            left_out = sorted({*named, *untried.pop(0)})
    if left_out:
        lines.append(in_words(left_out))
    return msgspec.structs.replace(
        plan,
        sampling=as_taken(plan.sampling, left_out),
        per_request=1 if "n" in left_out else plan.per_request,
        probed=lines,
    )


def _with_limit(body: Mapping[str, Any], limit: int) -> dict[str, Any]:
    return {name: limit if name in LIMITS else value for name, value in body.items()}


def _lacking(plan: TracePlan, payload: bytes, left_out: Collection[str]) -> list[str]:
    """What an answer has not that the plan asks for."""
    choices = read_response(payload, plan.per_request).choices
    found = []
    if plan.evidence == "logprobs" and any(choice.text and choice.tokens is None for choice in choices):
        found.append("its answer has no logprobs, which the plan counts on")
    if "n" not in left_out and 0 < len(choices) < plan.per_request:
        found.append(f"asked for {plan.per_request} answers at once it gives {len(choices)}")
    return found
