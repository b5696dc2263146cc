"""What the server behind is asked when the gateway starts: whether it gives two answers to one request, and how.

Each endpoint is tried whole and streamed. What is wrong with it is said in one line, as later nobody would notice:
twins that can't be told apart from single answers are the point.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec

from watermark.errors import DyetraceError, MachineError
from watermark.gateway.events import DONE, Events, data_of
from watermark.gateway.json_parts import Parts, parts_of
from watermark.gateway.requests import ENDPOINTS
from watermark.gateway.sides import Side
from watermark.gateway.upstream import Upstream, is_stream

_QUESTION = "Name a colour and say what it reminds you of."
_OTHER = "Tell me about a place that you would like to see, and why."
_TOKENS = 16
_SECONDS = 300.0
_LARGEST = 1 << 20
_ASKED = {"max_tokens": _TOKENS, "temperature": 1.0}


class _Unfit(Exception):
    """Why an endpoint gives no twins, as the end of a sentence."""


async def look(upstream: Upstream, model: str | None) -> tuple[dict[bool, Parts], dict[bool, str]]:
    """Try the server.

    Parameters
    ----------
    upstream
        The server.
    model
        Which model to ask; None for the first that it lists.

    Returns
    -------
    usage_last, lacking
        For chats (True) and completions (False), where two answers can be had: how the last piece of a stream looks,
        which counts tokens; and where they can't: why.

    Raises
    ------
    DyetraceError
        Neither endpoint gives two answers.
    MachineError
        Nobody answers.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            name = await first_model(upstream) if model is None else model
            found: dict[bool, Parts] = {}
            lacking: dict[bool, str] = {}
            for path, chat in ENDPOINTS.items():
                try:
                    found[chat] = await _try(upstream, path, chat, name)
                except _Unfit as why:
                    lacking[chat] = f"{path}: {why}"
    except (httpx2.HTTPError, TimeoutError) as error:
        raise _unreachable(upstream, error) from None
    if not found:
        raise DyetraceError(
            f"the server gives no two answers to one request that can be told apart ({'; '.join(lacking.values())}); "
            "with --two-requests it is asked twice instead"
        )
    return found, lacking


async def always_equal(upstream: Upstream, model: str | None) -> bool:
    """Whether a server gives one answer alone to each of two questions, asked twice at temperature 1.

    It may decode greedily whatever it is asked, or have a mark of its own that fixes its answers: then twins are equal,
    and say nothing. A server that can't be asked is given the benefit of the doubt.

    Raises
    ------
    MachineError
        Nobody answers.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            await _read(upstream, "GET", "/models", None)
            name = await first_model(upstream) if model is None else model
            for path, chat in ENDPOINTS.items():
                with contextlib.suppress(_Unfit):
                    texts = [await _text(upstream, path, chat, name, asked) for asked in (_QUESTION, _OTHER) * 2]
                    return texts[:2] == texts[2:]
    except DyetraceError:
        return False
    except (httpx2.HTTPError, TimeoutError) as error:
        raise _unreachable(upstream, error) from None
    return False


async def _text(upstream: Upstream, path: str, chat: bool, model: str, question: str) -> str:
    _, _, body = await _answered(upstream, path, {"model": model, **_prompt(chat, question), **_ASKED}, streamed=False)
    first, _ = _sides([_decoded(body)], chat)
    return first.answer.text


async def first_model(upstream: Upstream) -> str:
    """The first model that a server lists.

    Raises
    ------
    DyetraceError
        It lists none.
    httpx2.HTTPError
        Nobody answers.
    """
    status, _, body = await _read(upstream, "GET", "/models", None)
    try:
        name = msgspec.json.decode(body)["data"][0]["id"]
        if status == 200 and isinstance(name, str):
            return name
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        pass
    raise DyetraceError(
        f"the server lists no models (status {status} at /models); name one by --model, give its key by --api-key if "
        "it wants one, and check the address"
    )


def _unreachable(upstream: Upstream, error: Exception) -> MachineError:
    host = httpx2.URL(upstream.url).netloc.decode("ascii", "replace")
    why = "it takes too long" if isinstance(error, (httpx2.TimeoutException, TimeoutError)) else type(error).__name__
    return MachineError(f"cannot reach the server at {host} ({why}); check --upstream and that the server is up")


async def _try(upstream: Upstream, path: str, chat: bool, model: str) -> Parts:
    """How the last piece of a stream looks; raises `_Unfit`."""
    asked = {"model": model, **_prompt(chat, _QUESTION), **_ASKED, "return_token_ids": True}
    _, _, body = await _answered(upstream, path, asked | {"n": 2}, streamed=False)
    response = _decoded(body)
    if not isinstance(response.get("usage"), dict):
        raise _Unfit("it does not count tokens")
    _check(_sides([response], chat), prompt_known=False)
    counting = {"stream": True, "stream_options": {"include_usage": True}}
    _, _, body = await _answered(upstream, path, asked | counting | {"n": 2}, streamed=True)
    _check(_sides([_decoded(data) for data in _datas(body)], chat), prompt_known=True)
    _, _, body = await _answered(upstream, path, asked | counting, streamed=True)
    for data in reversed(_datas(body)):
        parts = parts_of(data)
        if parts.keys() >= {"choices", "usage"} and not msgspec.json.decode(parts["choices"]):
            return parts
    raise _Unfit("a stream does not count tokens where it is asked to")


def _prompt(chat: bool, question: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}]} if chat else {"prompt": question}


async def _answered(upstream: Upstream, path: str, asked: dict[str, Any], streamed: bool) -> tuple[int, bool, bytes]:
    status, events, body = await _read(upstream, "POST", path, msgspec.json.encode(asked))
    if status != 200:
        raise _Unfit(f"it answers with status {status}")
    if streamed and not events:
        raise _Unfit("it does not stream")
    return status, events, body


async def _read(upstream: Upstream, method: str, path: str, content: bytes | None) -> tuple[int, bool, bytes]:
    """Status, whether it is a stream, and the body."""
    headers = upstream.read_whole([(b"content-type", b"application/json"), (b"user-agent", b"dyetrace")])
    async with upstream.asked(method, path, headers, content) as response:
        body = b"".join([part async for part in _first(response)])
        return response.status_code, is_stream(response), body


async def _first(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The bytes of a body, as far as anything sensible goes."""
    read = 0
    async for part in response.aiter_raw():
        read += len(part)
        if read > _LARGEST:
            return
        yield part


def _datas(body: bytes) -> list[bytes]:
    found = [data_of(event) for event in Events().feed(body)]
    return [data for data in found if data is not None and data != DONE]


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise _Unfit("its answer is not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("choices"), list):
        raise _Unfit("its answer has no choices")
    return found


def _sides(responses: list[dict[str, Any]], chat: bool) -> tuple[Side, Side]:
    sides = Side(chat), Side(chat)
    for response in responses:
        for choice in response["choices"]:
            if not isinstance(choice, dict) or choice.get("index") not in (0, 1):
                raise _Unfit("its choices are not numbered 0 and 1")
            sides[choice["index"]].add(response, choice)
    return sides


def _check(sides: tuple[Side, Side], *, prompt_known: bool) -> None:
    for side in sides:
        if not side.pieces:
            raise _Unfit("it gives one answer where two are asked for (n = 2)")
        if side.finish_reason is None:
            raise _Unfit("it does not say of each of two answers how it ended")
        if not side.counted:
            raise _Unfit("it does not say the token ids of each of two answers (return_token_ids)")
        if prompt_known and side.prompt_token_ids is None:
            raise _Unfit("it does not say the token ids of the prompt (return_token_ids)")
