"""Twins drawn later from an endpoint: one request for each served answer, with the request that is on record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Container, Sequence
from typing import Any

from detect.student.asking.account import ClientSettings
from detect.student.asking.address import api_root, check_url
from detect.student.asking.answers import Choice, read_response
from detect.student.asking.client import Endpoint, largest_body
from detect.student.asking.credentials import ApiKey
from detect.student.asking.pace import backoff, retry_after
from detect.student.asking.reach import Unreachable, cannot_reach, shown_host
from watermark.errors import DyetraceError, MachineError
from watermark.twins.logged import Logged
from watermark.twins.pair import Pair, TwinAnswer

Store = Callable[[Pair], None]


def check_askable(url: str, logged: Sequence[Logged]) -> None:
    """Refuse an address, and answers that an endpoint can't draw twins of.

    Raises
    ------
    DyetraceError
        The address is none, an answer is marked by a spec, or its model's name is not known.
    """
    check_url(url)
    for one in logged:
        if one.spec_id is not None:
            raise DyetraceError(
                f"{one.where} is marked by spec {one.spec_id[:16]}, and whether an endpoint marks alike can't be seen; "
                "draw its twin from the model's folder"
            )
        if not one.request.get("model"):
            raise DyetraceError(f"{one.where} doesn't say which model made it; give --model-name")


def regenerate_from(
    url: str,
    logged: Sequence[Logged],
    store: Store,
    *,
    key: ApiKey | None = None,
    have: Container[str] = (),
    engine: dict[str, str] | None = None,
    settings: ClientSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Ask for the twin of each answer that has none, and store each pair as soon as its twin is there.

    Parameters
    ----------
    url
        Base address of an OpenAI-compatible API.
    logged
        All answers of a log.
    store
        Makes a pair durable; it is called from one thread, a pair at a time.
    key
        Of the API.
    have
        Ids of pairs that need no twin any more.
    engine
        What draws, for `Pair.engine`.
    settings
        Of the client.
    progress
        Called with the number of twins drawn so far.

    Returns
    -------
    int
        How many requests the endpoint refused for good: these answers stay without a twin.

    Raises
    ------
    DyetraceError
        The endpoint can't be asked; what was stored stays, and the same call goes on from there.
    """
    check_askable(url, logged)
    wanted = [one for one in logged if one.id not in have]
    drawing = _Drawing(url, key, store, engine or {}, settings or ClientSettings(), progress)
    return asyncio.run(drawing.run(wanted))


class _Drawing:
    """A run: a few requests at once, each of which is tried again while that may help."""

    def __init__(
        self,
        url: str,
        key: ApiKey | None,
        store: Store,
        engine: dict[str, str],
        settings: ClientSettings,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._url, self._key, self._store, self._settings = url, key, store, settings
        self._engine = {"name": "endpoint", "endpoint": shown_host(url), **engine}
        self._progress = progress
        self._drawn = self._refused = 0

    async def run(self, wanted: Sequence[Logged]) -> int:
        """Draw all; the first that fails for good ends the run."""
        waiting = iter(wanted)
        longest = max((one.request["max_tokens"] for one in wanted), default=1)
        kinds = {kind: self._connect(kind, longest) for kind in {_kind(one) for one in wanted}}

        async def work() -> None:
            for one in waiting:
                await self._one(kinds[_kind(one)], one)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.most, len(wanted))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from None
        finally:
            for endpoint in kinds.values():
                await endpoint.close()
        return self._refused

    def _connect(self, kind: str, longest: int) -> Endpoint:
        return Endpoint(
            f"{api_root(self._url)}/{kind}",
            self._key,
            connections=self._settings.most,
            timeout=self._settings.timeout,
            largest=largest_body(longest, 0),
        )

    async def _one(self, endpoint: Endpoint, one: Logged) -> None:
        # A top_k of 0 keeps all tokens, and not every API knows the name.
        body = json.dumps(
            {name: value for name, value in one.request.items() if (name, value) != ("top_k", 0)}
        ).encode()
        for attempt in range(self._settings.attempts):
            try:
                reply = await endpoint.post(body)
            except Unreachable as error:
                if not error.connected and not self._drawn:
                    raise MachineError(cannot_reach(self._url, error)) from None
                trouble, wait = error.reason, 0.0
            else:
                response = read_response(reply.payload, 1)
                verdict = reply.verdict(response.error)
                if verdict == "answer":
                    if reply.problem is None and response.choices:
                        self._keep(one, response.choices[0], response.model)
                        return
                    verdict = "again"
                if verdict == "stop":
                    raise MachineError(
                        f"{shown_host(self._url)} can't be asked ({reply.says()}); what was drawn is kept, and the "
                        "same command goes on from there"
                    )
                if verdict == "refused":
                    self._refused += 1
                    return
                trouble = response.problem or reply.says()
                asked = retry_after(reply.headers, 0.0) or 0.0
                wait = min(asked, self._settings.longest_pause)
            if attempt + 1 < self._settings.attempts:
                await asyncio.sleep(max(wait, backoff(attempt, self._settings.first_backoff)))
        raise MachineError(
            f"{shown_host(self._url)} does not answer ({trouble}); what was drawn is kept, and the same command "
            "goes on from there"
        )

    def _keep(self, one: Logged, choice: Choice, model: str) -> None:
        # Whatever came is the twin: to leave out what looks bad of one of the two answers would tell them apart.
        named = {} if not model else {"model": model}
        self._store(one.pair(_twin(one, choice), {**self._engine, **named}))
        self._drawn += 1
        if self._progress is not None:
            self._progress(self._drawn)


def _kind(one: Logged) -> str:
    return "completions" if "prompt" in one.request and "messages" not in one.request else "chat/completions"


def _twin(one: Logged, choice: Choice) -> TwinAnswer:
    """The twin, of which no more is said than of the served answer."""
    ids: list[int] | None = None
    if one.answer.token_ids is not None and choice.token_ids is not None:
        ids = list(choice.token_ids)
    finish: Any = choice.finish_reason if one.answer.finish_reason is not None and not one.counted else None
    return TwinAnswer(text=choice.text, token_ids=ids, finish_reason=finish)
