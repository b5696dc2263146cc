"""`TracePlan`: everything about a trace through an endpoint that must be fixed before the first query, and its hash.

Prompts, statistic, keys (by fingerprint and commitment) and target stand in one JSON file whose SHA-256 the report
carries, so that a sceptic can see that nothing was chosen after looking at answers.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from detect.laws.level import DEFAULT_ALPHA, check_alpha
from detect.student.asking.address import address_below, check_url
from detect.student.asking.answers import Response, SuspectAnswer
from detect.student.asking.budget import Budgets
from detect.student.asking.canonical import canonical_json
from detect.student.asking.client import largest_body
from detect.student.asking.fields import LimitField, sampling_in_words
from detect.student.asking.questions import Request, Taken
from watermark.commitment import Commitment
from watermark.errors import DyetraceError
from watermark.files.versioned import check_known_version, parse_versioned
from watermark.files.writing import write_atomically

PLAN_VERSION = 2
"""Version 1 chose prompts by the contexts of marked answers, which can make an innocent endpoint look guilty."""
MOST_SAMPLES = 1024
_UNLIMITED = 1 << 15  # tokens of an answer that are read at most where its length is left to the server
_OWN_FIELDS = {"model", "messages", "prompt", "n", "stream", "temperature", "top_p", "seed", "logprobs", "top_logprobs"}
_OWN_FIELDS |= {"max_tokens", "max_completion_tokens"}

_ADDED = {"probed"}  # since the first release: see `canonical_json`


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message of a chat prompt."""

    role: str
    content: str


class PlannedPrompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked.

    Attributes
    ----------
    prompt
        Messages, or a plain string: for a chat endpoint the user's one message, for completions the text to go on from.
    answer
        Id of one of the owner's served answers to it.
    """

    prompt: str | list[Message]
    answer: str | None = None


class PromptChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How prompts were chosen: by the SHA-256 of a public seed and each prompt (`detect.student.asking.prompts`).

    Attributes
    ----------
    source, sha256
        The file that they come from.
    offered
        Distinct prompts in it, of which the first by hash were taken.
    seed
        Public.
    account
        Only prompts of this account's answers were offered; null for all.
    """

    source: str
    sha256: str
    offered: int
    seed: str
    account: str | None = None


class SamplingPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the endpoint is to sample.

    Attributes
    ----------
    temperature, top_p
        Null where they are not sent, and the server's own hold.
    max_tokens
        Of an answer. It is what budgets reckon with also where no limit is sent.
    seed
        Sent as ``seed`` + sample number where given; not every server has it.
    top_logprobs
        Alternatives at each position, where the evidence is "logprobs"; OpenAI allows 20 for chat and 5 for
        completions, vLLM 20 unless it was started otherwise.
    limit_field
        What the server calls ``max_tokens``; null where no limit is sent.
    extra
        Further fields of the request, as they are: {"top_k": -1} where a server samples from a truncated
        distribution by default.
    """

    temperature: float | None = 1.0
    top_p: float | None = 1.0
    max_tokens: int = 256
    seed: int | None = None
    top_logprobs: int = 20
    limit_field: LimitField | None = "max_tokens"
    extra: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.temperature is not None:
            _within("sampling.temperature", self.temperature, 0.0, 100.0)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise DyetraceError(f"plan field sampling.top_p must lie in (0, 1] (got {self.top_p})")
        _within("sampling.max_tokens", self.max_tokens, 1, 1 << 20)
        _within("sampling.top_logprobs", self.top_logprobs, 0, 1 << 20)
        if taken := sorted(_OWN_FIELDS & self.extra.keys()):
            raise DyetraceError(f"plan field sampling.extra must not hold {taken[0]!r}, which the plan sets itself")


class TracePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A trace through an endpoint, as fixed before its first query.

    Attributes
    ----------
    created
        UTC, by the analyst's clock.
    url
        Base address of the OpenAI-compatible API, such as https://host/v1; never with credentials in it. Its query
        (Azure's ``?api-version=``) is sent with each request.
    model
        The suspect's name there.
    endpoint
        "chat" (/chat/completions) or "completions" (/completions).
    evidence
        "samples" (texts alone) or "logprobs" (alternatives at each position too).
    prompts
        In the order in which they are asked and their answers are counted.
    choice
        How they were chosen; null where whoever made the plan in Python answers for that.
    samples
        Answers to each prompt.
    per_request
        How many of them one request asks for (``n``); many servers know only 1.
    readout
        How answers become weights (`detect.student`).
    statistic
        Whatever else the statistic depends on, by name.
    hypotheses
        The keys that are tested: "global", "tenant:NAME".
    spec_id, key_fingerprint, commitment
        The watermark and its key; the commitment shows that the key was fixed earlier still.
    target_log10_p
        Where asking may stop, negative.
    probed
        What was tried at the endpoint before, to find what it takes, and what came of it, a line each.
    """

    format: Literal["dyetrace-plan"] = "dyetrace-plan"
    version: int = PLAN_VERSION
    created: str
    url: str
    model: str
    endpoint: Literal["chat", "completions"] = "chat"
    evidence: Literal["samples", "logprobs"] = "samples"
    prompts: list[PlannedPrompt]
    choice: PromptChoice | None = None
    samples: int = 1
    per_request: int = 1
    sampling: SamplingPlan = msgspec.field(default_factory=SamplingPlan)
    readout: str
    statistic: dict[str, str | int | float | bool | list[str] | None] = {}
    hypotheses: list[str] = msgspec.field(default_factory=lambda: ["global"])
    spec_id: str
    key_fingerprint: str
    commitment: Commitment | None = None
    decoy_seed: str = "dyetrace"
    decoys: int = 100
    target_log10_p: float = -10.0
    alpha: float = DEFAULT_ALPHA
    budgets: Budgets = msgspec.field(default_factory=Budgets)
    probed: list[str] = []

    def __post_init__(self) -> None:
        _check_version(self.version)
        check_url(self.url)
        if not self.model.strip():
            raise DyetraceError("plan field model is empty; name the suspect as its endpoint does")
        _within("samples", self.samples, 1, MOST_SAMPLES)
        _within("per_request", self.per_request, 1, self.samples)
        _within("decoys", self.decoys, 0, 1 << 30)
        check_alpha(self.alpha)
        if not (math.isfinite(self.target_log10_p) and self.target_log10_p < 0):
            raise DyetraceError(f"plan field target_log10_p must be a negative number (got {self.target_log10_p})")
        if self.samples > 1 and self.sampling.temperature == 0:
            raise DyetraceError("a plan with several samples needs a temperature above 0: at 0 they are all the same")
        if not self.hypotheses:
            raise DyetraceError("plan field hypotheses is empty; name the keys to test")
        _check_prompts(self.prompts, self.endpoint)
        if self.commitment is not None and (self.commitment.spec_id, self.commitment.key_fingerprint) != (
            self.spec_id,
            self.key_fingerprint,
        ):
            raise DyetraceError("the plan's commitment is of another spec or key; give the one made for this spec")

    @property
    def steps(self) -> int:
        """As for `detect.student.asking.questions.Questions`: one for each prompt."""
        return len(self.prompts)

    @property
    def largest_body(self) -> int:
        """As for `Questions`."""
        alternatives = self.sampling.top_logprobs + 1 if self.evidence == "logprobs" else 0
        limit = self.sampling.max_tokens
        longest = max(limit, _UNLIMITED) if self.sampling.limit_field is None else limit
        return largest_body(self.per_request * longest, alternatives)

    @property
    def canonical(self) -> bytes:
        """As for `Questions`."""
        return canonical_plan(self)

    @property
    def sha256(self) -> str:
        """As for `Questions`."""
        return plan_sha256(self)

    @property
    def asked_for(self) -> str:
        """Which sampling is asked for, for people."""
        sampling = self.sampling
        limit = None if sampling.limit_field is None else sampling.max_tokens
        settings = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": limit}
        return sampling_in_words(settings | sampling.extra)

    def samples_of(self, step: int) -> list[range]:
        """As for `Questions`."""
        firsts = range(0, self.samples, self.per_request)
        return [range(first, min(first + self.per_request, self.samples)) for first in firsts]

    def request(self, step: int, sample: int, count: int) -> Request:
        """As for `Questions`."""
        body = request_body(self, step, sample, count)
        return Request(
            url=endpoint_url(self),
            body=body,
            key=request_key(self, body, sample),
            step=step,
            sample=sample,
            count=count,
            prompt_bytes=prompt_bytes(self, step),
            most_tokens=self.sampling.max_tokens,
        )

    def take(self, request: Request, entry: int, payload: bytes, response: Response) -> Taken[SuspectAnswer]:
        """As for `Questions`."""
        usable = [(place, choice) for place, choice in enumerate(response.choices) if choice.said]
        answers = [
            SuspectAnswer(
                prompt=request.step,
                sample=request.sample + place,
                text=choice.text,
                tokens=choice.tokens,
                finish_reason=choice.finish_reason,
                prompt_tokens=response.prompt_tokens,
                completion_tokens=response.completion_tokens,
                entry=entry,
                parts=choice.parts,
            )
            for place, choice in usable
        ]
        unusable = [choice.problem or "no text" for choice in response.choices if not choice.said]
        if not response.choices:
            unusable = [response.problem or "no choices"]
        if self.evidence != "logprobs":
            return Taken(answers, unusable)
        lacking = sum(not answer.has_logprobs for answer in answers)
        # Reasoning that was cut off before the answer has none where servers give those of the answer proper alone.
        proper = [answer for answer in answers if answer.text]
        silent = bool(proper) and all(answer.tokens is None for answer in proper)
        needed = "no logprobs, which the plan counts on; make a plan without --logprobs"
        what = "it sends answers without log-probabilities"
        if any(answer.is_spelled and not answer.has_logprobs for answer in answers):
            what = "the log-probabilities of an answer are all of the ends of characters"
        if any(answer.tokens is not None and not answer.is_spelled for answer in answers):
            what = "its log-probabilities do not spell its answers"
        told = (
            f"{what}; such answers are read by what they say alone, which shows far less: end this here unless that is "
            "what you want"
        )
        return Taken(answers, unusable, lacking, needed if silent else None, told if lacking else None)

    def repeated(self, answers: Sequence[SuspectAnswer]) -> int:
        """As for `Questions`."""
        return len(answers) - len({answer.said for answer in answers})


def _check_version(version: int) -> None:
    if version == 1:
        raise DyetraceError(
            "this plan has version 1, which chose its prompts by the contexts of marked answers: a choice that can "
            "make an innocent endpoint look guilty; make a new plan with `dyetrace trace plan`"
        )
    check_known_version(version, PLAN_VERSION, "plan")


def _within(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DyetraceError(f"plan field {field} must lie in {low} .. {high} (got {value})")


def _check_prompts(prompts: list[PlannedPrompt], endpoint: str) -> None:
    if not prompts:
        raise DyetraceError("the plan has no prompts; give at least one")
    seen: dict[bytes, int] = {}
    for number, planned in enumerate(prompts, 1):
        if not planned.prompt or (isinstance(planned.prompt, str) and not planned.prompt.strip()):
            raise DyetraceError(f"prompt {number} of the plan is empty; remove it or fill it in")
        if endpoint == "completions" and not isinstance(planned.prompt, str):
            raise DyetraceError(f"prompt {number} of the plan is a list of messages, but completions take a string")
        # Equal prompts would share their answers in the ledger and count one answer twice.
        try:
            name = hashlib.sha256(msgspec.json.encode(planned.prompt)).digest()
        except UnicodeEncodeError:
            raise DyetraceError(f"prompt {number} of the plan holds characters that Unicode has not; mend it") from None
        first = seen.setdefault(name, number)
        if first != number:
            raise DyetraceError(
                f"prompts {first} and {number} of the plan are the same; remove one, or raise the samples of each"
            )


def prompt_messages(prompt: str | list[Message]) -> list[Message]:
    """A prompt as a chat endpoint takes it: a plain string is the user's one message."""
    return [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt


def prompt_text(prompt: str | list[Message]) -> str:
    """A prompt's words, without roles."""
    return prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)


def endpoint_url(plan: TracePlan) -> str:
    """Where the plan's requests go."""
    return address_below(plan.url, "/chat/completions" if plan.endpoint == "chat" else "/completions")


def request_body(plan: TracePlan, prompt: int, sample: int, count: int) -> bytes:
    """The JSON of the request for ``count`` samples of a prompt, from sample number ``sample`` on."""
    body = {"model": plan.model, **shown_as(plan, plan.prompts[prompt].prompt), **request_settings(plan, sample, count)}
    return msgspec.json.encode(body)


def shown_as(plan: TracePlan, asked: str | list[Message]) -> dict[str, Any]:
    """A prompt as a field of the request."""
    return {"messages": prompt_messages(asked)} if plan.endpoint == "chat" else {"prompt": asked}


def request_settings(plan: TracePlan, sample: int, count: int) -> dict[str, Any]:
    """What a request says beside its model and its prompt."""
    sampling = plan.sampling
    named = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    body: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if sampling.limit_field is not None:
        body[sampling.limit_field] = sampling.max_tokens
    if count > 1:
        body["n"] = count
    if sampling.seed is not None:
        body["seed"] = (sampling.seed + sample) % 2**31
    if plan.evidence == "logprobs" and plan.endpoint == "chat":
        body["logprobs"], body["top_logprobs"] = True, sampling.top_logprobs
    elif plan.evidence == "logprobs":
        body["logprobs"] = sampling.top_logprobs
    return body | sampling.extra


def request_key(plan: TracePlan, body: bytes, sample: int) -> str:
    """SHA-256 (hex) that names a request's answers in the ledger, whichever plan asked for them."""
    parts = [endpoint_url(plan), plan.model, plan.endpoint, hashlib.sha256(body).hexdigest(), sample]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def prompt_bytes(plan: TracePlan, prompt: int) -> int:
    """UTF-8 bytes of a prompt with 16 for each message's frame: no tokenizer makes more tokens of it."""
    asked = plan.prompts[prompt].prompt
    parts = [asked] if isinstance(asked, str) else [part for m in asked for part in (m.role, m.content)]
    return sum(len(part.encode("utf-8", "replace")) + 16 for part in parts)


def canonical_plan(plan: TracePlan) -> bytes:
    """The one byte string that stands for this plan: all fields, sorted keys, no white space."""
    return canonical_json(parse_plan(msgspec.json.encode(plan), "the plan"), _ADDED)


def plan_sha256(plan: TracePlan) -> str:
    """SHA-256 (hex) of the canonical plan."""
    return hashlib.sha256(canonical_plan(plan)).hexdigest()


def parse_plan(data: bytes, where: str) -> TracePlan:
    """Read a plan from JSON.

    Raises
    ------
    DyetraceError
        Not JSON, an unknown or missing field, a value out of range, or another version.
    """
    return parse_versioned(
        data,
        TracePlan,
        where,
        what="a plan of a trace",
        restore="restore it, or write a new one with `dyetrace trace plan`",
        check_version=_check_version,
    )


def load_plan(path: Path) -> TracePlan:
    """Read a plan file."""
    return parse_plan(plan_bytes(path), f"plan {path}")


def plan_bytes(path: Path) -> bytes:
    """The bytes of a plan file, of whichever kind of trace."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DyetraceError(
            f"cannot read plan {path}: {error.strerror}; write one with `dyetrace trace plan`"
        ) from None


def check_new_plan(path: Path) -> None:
    """Raise DyetraceError where something lies already."""
    if os.path.lexists(path):
        raise DyetraceError(f"{path} exists already; a plan is never overwritten, so choose another name")


def write_plan(path: Path, plan: TracePlan) -> str:
    """Write a plan as indented JSON and return its SHA-256; an existing file is never overwritten."""
    check_new_plan(path)
    write_atomically(path, msgspec.json.format(canonical_plan(plan), indent=2) + b"\n")
    return plan_sha256(plan)
