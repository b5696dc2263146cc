"""Asking a running server for answers to check: which of its endpoints serves, with whose account, and what it refuses.

Requests are those of any client of an OpenAI-compatible API; the account stands where vLLM reads it (``vllm_xargs``),
or wherever the operator's own arguments put it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from detect.server.answers import Reader, Refused, Served, Special
from detect.student.asking.address import address_below, check_url
from detect.student.asking.answers import Choice, read_response
from detect.student.asking.client import Endpoint, Reply, largest_body
from detect.student.asking.credentials import ApiKey
from detect.student.asking.fields import SETTINGS, fitted, in_words, named, refused_next
from detect.student.asking.pace import Pace, backoff, retry_after
from detect.student.asking.reach import Unreachable, cannot_reach, shown_host
from detect.student.asking.refusals import is_of_prompt
from detect.student.asking.trouble import Tell, Trouble
from watermark.errors import DyetraceError, MachineError

Kind = Literal["chat", "completions"]
_PATHS: dict[Kind, str] = {"chat": "/chat/completions", "completions": "/completions"}

ACCOUNT, MARK = "dyetrace_tenant", "dyetrace_mark"
_VLLM = "vllm_xargs"
_IDS = "return_token_ids"
_LONGEST_PAUSE = 120.0
_FIRST_BACKOFF, _THROTTLED = 0.5, 2.0  # seconds; the second where the server is throttled and says not for how long
_KEPT = "Ctrl-C ends the check"
_MOST_SAMPLES = 16

PROMPTS = (
    "Write a short story about a lighthouse keeper who finds a message in a bottle.",
    "Describe how bread is made, from grain to loaf.",
    "Explain to a ten-year-old why the sky is blue.",
    "Write a letter from a gardener to a neighbour about the coming spring.",
    "Give a lively account of a market day in a small town.",
    "What should somebody know before adopting an old dog?",
    "Tell the history of the bicycle in your own words.",
    "Write a dialogue between a river and a mountain.",
    "Plan a weekend in a city by the sea for a family with two children.",
    "Explain how vaccines work and why some need a second dose.",
    "Write a review of an imaginary restaurant on a ship.",
    "Describe the sounds and smells of a forest after rain.",
    "What makes a good teacher? Give reasons and examples.",
    "Write the opening chapter of a detective novel that is set in a library.",
    "Compare life in a village with life in a large city.",
    "Invent a festival, and describe its customs, its food and its music.",
)
"""Asked where the operator gives none: open questions, whose long answers leave a mark room."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to ask.

    Attributes
    ----------
    url
        Base address of the API; the address of an endpoint serves too.
    model
        Its name there.
    kind
        The endpoint; None tries chat, then completions.
    tenant
        The account to ask for; None names none.
    arguments
        Further top-level fields of every request. Where one of them names the account, ``vllm_xargs`` is not sent.
    max_tokens, temperature
        Of every answer, and of all but the request at temperature 0.
    concurrency, timeout, attempts
        Requests at once, seconds for one, and how often it is tried.
    left_out
        Settings that no request is to have (`detect.student.asking.fields`).
    """

    url: str
    model: str
    kind: Kind | None = None
    tenant: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    max_tokens: int = 200
    temperature: float = 1.0
    concurrency: int = 4
    timeout: float = 120.0
    attempts: int = 6
    left_out: tuple[str, ...] = ()


def with_opt_out(manner: Manner) -> dict[str, Any]:
    """Arguments that ask not to be marked, where the account stands too."""
    fields = request_arguments(manner)
    if ACCOUNT in fields:
        return fields | {MARK: "off"}
    place = next((name for name, value in fields.items() if isinstance(value, dict) and ACCOUNT in value), _VLLM)
    held = fields.get(place)
    return fields | {place: (held if isinstance(held, dict) else {}) | {MARK: "off"}}


def request_arguments(manner: Manner) -> dict[str, Any]:
    """The operator's arguments, and the account where vLLM reads it."""
    fields = dict(manner.arguments)
    placed = ACCOUNT in fields or any(isinstance(value, dict) and ACCOUNT in value for value in fields.values())
    if manner.tenant is None or placed:
        return fields
    return fields | {_VLLM: dict(fields.get(_VLLM) or {}) | {ACCOUNT: manner.tenant}}


def parse_argument(text: str) -> tuple[str, Any]:
    """NAME=VALUE as a field of a request; a VALUE that is JSON is sent as such, any other as a string."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise DyetraceError(f"argument {text!r} must have the form NAME=VALUE")
    try:
        return name.strip(), json.loads(value)
    except (ValueError, RecursionError):
        return name.strip(), value


class Server:
    """A server being asked, for use inside one event loop: `begin`, then `ask`, and `close` at the end.

    Parameters
    ----------
    manner, key
        How to ask, and the API key; None for servers that want none.
    tell
        Takes a line at the first failure, and then every ten seconds while no answer comes.

    Attributes
    ----------
    tell
        As given.
    left_out, refusals
        Settings that no request has, and what the server said of those among them that it refuses.
    """

    def __init__(self, manner: Manner, key: ApiKey | None, tell: Tell | None = None) -> None:
        check_url(manner.url)
        self.kind: Kind | None = manner.kind
        self._manner, self._key = manner, key
        self._pace = Pace(manner.concurrency, manner.concurrency)
        self._trouble = Trouble(shown_host(manner.url), manner.timeout, _KEPT, tell)
        self._endpoints: dict[Kind, Endpoint] = {}
        self._arguments = request_arguments(manner)
        self.tell = tell or (lambda line: None)
        self.left_out = list(manner.left_out)
        self.refusals: list[str] = []
        self._places = 0

    async def begin(self, prompt: str) -> tuple[Choice, ...] | Refused:
        """The first answer, from the endpoint that serves: the given one, the address's own, else whichever does.

        It may be a refusal of the prompt itself, by a content filter.

        Raises
        ------
        DyetraceError
            None serves.
        """
        path = urlsplit(self._manner.url).path.rstrip("/")
        own = next((kind for kind, end in _PATHS.items() if path.endswith(end)), None)
        kinds: Sequence[Kind] = [own] if own else list(_PATHS)
        refusals: dict[str, str] = {}
        for kind in [self.kind] if self.kind else kinds:
            self.kind = kind
            found = await self.ask(prompt)
            if not isinstance(found, Refused) or is_of_prompt(found.status, found.payload):
                return found
            refusals.setdefault(found.says, kind)
        said = "; ".join(f"{kind}: {says}" if len(refusals) > 1 else says for says, kind in refusals.items())
        raise DyetraceError(f"{self.host} refuses to answer: {said}")

    async def ask(self, prompt: str, **changes: Any) -> tuple[Choice, ...] | Refused:
        """Answers to a prompt; ``changes`` replace fields of the request.

        Raises
        ------
        DyetraceError
            The server can't be reached, wants another key, or stays broken.
        """
        assert self.kind is not None
        body: dict[str, Any] = {"model": self._manner.model}
        if self.kind == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        own = {_IDS: True, "temperature": self._manner.temperature, "max_tokens": self._manner.max_tokens}
        given = self._arguments | changes
        left_out, gone = self.left_out, list[str]()
        while True:
            settings = fitted(own, left_out)
            found = await self._send(body | settings | given)
            if not isinstance(found, Refused):
                self._leave_out(left_out, gone)
                return found
            wider = refused_next(left_out, settings.keys() - given.keys(), found.payload, besides=[_IDS])
            if wider is None:
                return found
            gone.append(f"{', '.join(sorted({*wider} - {*left_out}))}: {found.says}")
            left_out = wider

    def _leave_out(self, left_out: list[str], refusals: Sequence[str]) -> None:
        """Leave out from now on what was refused by name, and say so where it changes what is asked for."""
        if len(left_out) <= len(self.left_out):
            return
        self.left_out = left_out
        if settings := [name for name in left_out if name != _IDS]:
            self.refusals = list(refusals)
            self.tell(f"{self.host} refuses what was to be sent ({'; '.join(refusals)}); {in_words(settings)}")

    def watched(self) -> AbstractAsyncContextManager[None]:
        """A block in which people are told what is wrong while no answer comes."""
        return self._trouble.watched()

    async def close(self) -> None:
        """Close the connections."""
        for endpoint in self._endpoints.values():
            await endpoint.close()

    @property
    def host(self) -> str:
        """What it is called in messages."""
        return shown_host(self._manner.url)

    def _endpoint(self, kind: Kind) -> Endpoint:
        if kind not in self._endpoints:
            self._endpoints[kind] = Endpoint(
                address_below(self._manner.url, _PATHS[kind]),
                self._key,
                connections=self._manner.concurrency,
                timeout=self._manner.timeout,
                largest=largest_body(_MOST_SAMPLES * self._manner.max_tokens, 0),
            )
        return self._endpoints[kind]

    async def _send(self, body: dict[str, Any]) -> tuple[Choice, ...] | Refused:
        assert self.kind is not None
        endpoint, data = self._endpoint(self.kind), json.dumps(body).encode()
        self._places += 1
        place, why = (self._places,), ""
        for attempt in range(self._manner.attempts):
            epoch = await self._pace.enter(place)
            self._trouble.sent()
            reply = None
            try:
                reply = await endpoint.post(data)
                found = self._read(reply, int(body.get("n", 1)))
                if found is not None:
                    self._trouble.answered()
                    return found
                why = reply.problem or reply.says()
            except Unreachable as error:
                why = error.reason
                if not error.connected and attempt == 0 and self._places == 1:
                    raise MachineError(cannot_reach(self._manner.url, error)) from None
            finally:
                self._pace.leave()
            self._pace.refused(epoch)
            await _pause(self._trouble, self._manner, attempt, why, reply)
        raise MachineError(f"{self.host} does not answer ({why}, {self._manner.attempts} times); try again later")

    def _read(self, reply: Reply, wanted: int) -> tuple[Choice, ...] | Refused | None:
        """What a response holds; None where it is worth another try."""
        if reply.problem is not None:
            return None
        response = read_response(reply.payload, wanted)
        verdict = reply.verdict(response.error)
        if verdict == "answer":
            tokens = response.completion_tokens or self._manner.max_tokens
            self._pace.went_well(reply.seconds, tokens // max(1, len(response.choices)))
            return response.choices
        of_prompt = is_of_prompt(reply.status, reply.payload)
        if verdict == "again" and not of_prompt and not (reply.status < 300 and named(reply.payload, SETTINGS)):
            return None
        if verdict == "stop" and reply.status not in (404, 405) and not of_prompt:
            raise DyetraceError(f"{self.host} refuses: {reply.says()}; check the address, and the key of --api-key")
        status = reply.status if response.error is None else response.error[0] or reply.status
        return Refused(status, reply.says(), reply.payload)


async def _pause(trouble: Trouble, manner: Manner, attempt: int, why: str, reply: Reply | None) -> None:
    """Say that a request failed, and wait as long as the server asks for, or else longer each time.

    Raises
    ------
    MachineError
        It asks to wait for too long.
    """
    asked = None if reply is None else retry_after(reply.headers, time.time())
    if asked is not None and asked > _LONGEST_PAUSE:
        raise MachineError(f"{shown_host(manner.url)} asks to wait {asked:,.0f} s; run the check again after that")
    if attempt + 1 == manner.attempts:
        trouble.failed(why, None)
        return
    throttled = reply is not None and reply.status == 429 and asked is None
    wait = max(asked or 0.0, backoff(attempt, _THROTTLED if throttled else _FIRST_BACKOFF))
    trouble.failed(why, wait)
    await asyncio.sleep(wait)


async def served_models(manner: Manner, key: ApiKey | None, tell: Tell | None = None) -> list[str]:
    """Names of the models that a server says it has (``/v1/models``).

    Parameters
    ----------
    manner
        How to ask; its model is not looked at.
    key, tell
        As for `Server`.

    Raises
    ------
    DyetraceError
        It can't be reached, or does not say.
    """
    check_url(manner.url)
    address, host = address_below(manner.url, "/models"), shown_host(manner.url)
    endpoint = Endpoint(address, key, connections=1, timeout=manner.timeout, largest=largest_body(0, 0))
    trouble = Trouble(host, manner.timeout, _KEPT, tell)
    try:
        async with trouble.watched():
            reply = await _listed(endpoint, trouble, manner)
    finally:
        await endpoint.close()
    if reply.status in (401, 403):
        raise DyetraceError(f"{host} refuses: {reply.says()}; check the key of --api-key")
    try:
        listed = json.loads(reply.payload)["data"] if reply.status == 200 else []
        names = [entry["id"] for entry in listed if isinstance(entry["id"], str)]
    except (ValueError, KeyError, TypeError, RecursionError):
        names = []
    if not names:
        raise DyetraceError(f"{host} does not say which models it has ({reply.says()}); name one by --model")
    return names


async def _listed(endpoint: Endpoint, trouble: Trouble, manner: Manner) -> Reply:
    """The server's list of models, tried as often as a request."""
    for attempt in range(manner.attempts):
        trouble.sent()
        reply = None
        try:
            reply = await endpoint.get()
            if reply.verdict(None) != "again":
                trouble.answered()
                return reply
            why = reply.says()
        except Unreachable as error:
            why = error.reason
            if not error.connected:
                raise MachineError(cannot_reach(manner.url, error)) from None
        await _pause(trouble, manner, attempt, why, reply)
    raise MachineError(
        f"{shown_host(manner.url)} does not answer ({why}, {manner.attempts} times); try again later, or name "
        "the model by --model if it is the list of models alone that it does not give"
    )


async def ask_for_answers(
    server: Server,
    reader: Reader,
    prompts: Sequence[str],
    count: int,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Served], list[str]]:
    """Texts of ``count`` answers to prompts in turn, from prompt number ``first`` on, and why others could not be had.

    A prompt that a content filter refuses is left out, also where it is the first one.

    Parameters
    ----------
    progress
        Called with the number of answers that came and that were asked for.

    Raises
    ------
    DyetraceError
        The server can't be asked, or its answers can't be read.
    """
    places = [(first + number) % len(prompts) for number in range(count)]
    lacking: list[str] = []
    while isinstance(begun := await server.begin(prompts[places[len(lacking)]]), Refused):
        lacking.append(begun.says)
        if len(lacking) == len(places):
            raise DyetraceError(
                f"{server.host} refuses all {len(lacking)} prompts: {begun.says}; give others by --prompts"
            )
        if len(lacking) == 1:
            server.tell(f"{server.host} refuses a prompt ({begun.says}); it is left out, as others will be")
    at = len(lacking)
    read, why = _read(begun, reader, places[at])  # what can't be read shows at the first one
    lacking += why
    rest = places[at + 1 :]
    others = await _together(server, [prompts[p] for p in rest], at + 1, progress or (lambda done, total: None))
    for place, outcome in zip(rest, others, strict=True):
        more, why = _read(outcome, reader, place)
        read, lacking = read + more, lacking + why
    return [text for texts in read for text in texts], lacking


async def _together(
    server: Server, prompts: Sequence[str], done: int, progress: Callable[[int, int], None]
) -> list[tuple[Choice, ...] | Refused]:
    """Outcomes of prompts, where ``done`` others came before them, one by one."""
    total = done + len(prompts)
    progress(done, total)

    async def ask(prompt: str) -> tuple[Choice, ...] | Refused:
        nonlocal done
        found = await server.ask(prompt)
        done += 1
        progress(done, total)
        return found

    tasks = [asyncio.create_task(ask(prompt)) for prompt in prompts]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read(outcome: tuple[Choice, ...] | Refused, reader: Reader, prompt: int) -> tuple[list[list[Served]], list[str]]:
    """The texts of each answer, and why others have none."""
    if isinstance(outcome, Refused):
        return [], [outcome.says]
    read = [reader.read(prompt, choice) for choice in outcome]
    lacking = [choice.problem or "no text" for choice, found in zip(outcome, read, strict=True) if not found]
    return [found for found in read if found], lacking if outcome else ["no choices"]


async def ask_special(server: Server, reader: Reader, manner: Manner, prompts: Sequence[str]) -> Special:
    """Make the requests of `Special`, one after the other, of prompts that the server answers."""

    async def ask(number: int, **changes: Any) -> list[Served] | Refused:
        place = number % len(prompts)
        outcome = await server.ask(prompts[place], **changes)
        if isinstance(outcome, Refused):
            return outcome
        return [max(texts, key=lambda text: len(text.ids)) for texts in _read(outcome, reader, place)[0]]

    return Special(
        greedy=await ask(0, temperature=0.0),
        samples=await ask(1, n=3),
        opted_out=await ask(2, **with_opt_out(manner)),
        seeded=(await ask(3, seed=1234), await ask(3, seed=1234)),
    )
