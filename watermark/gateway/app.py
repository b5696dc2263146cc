"""The gateway as an ASGI application: it forwards, and draws twins for a share of the requests for answers.

The order in which things are decided is what makes a pair valid: whether a request can be twinned, then the
operator's limits, then whether this one is, by a fresh nonce, then the coin; and only then is the engine asked.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from watermark.errors import DyetraceError
from watermark.gateway.accounts import Accounts
from watermark.gateway.budget import Budget
from watermark.gateway.choices import Chunks, Unreadable, whole
from watermark.gateway.counters import Counters
from watermark.gateway.drawing import Drawing
from watermark.gateway.events import Events
from watermark.gateway.json_parts import Parts
from watermark.gateway.outlet import Outlet, Send
from watermark.gateway.requests import ENDPOINTS, Asked, Untwinned, read
from watermark.gateway.tape import Tape
from watermark.gateway.upstream import Headers, Upstream, handed_back, is_stream
from watermark.keys.secret import SecretKey
from watermark.twins.pair import Pair, new_nonce

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Tell = Callable[[str], None]

_ROOT = b"/v1"
_LARGEST_REQUEST = 1 << 22
_LARGEST_PAIR = 1 << 24
_REFUSES_TWO = (400, 422, 500, 501)
"""Statuses by which servers say that they don't give two answers; the request is then sent again for one."""
_MOST_UNWRITTEN = 64
"""Pairs that wait for the disk at most while new twins are drawn."""
_SECONDS_TO_LEDGER = 60.0
"""After trouble with the ledger no twin is drawn for so long."""


class Ledger(Protocol):
    """Where pairs go (`watermark.twins.ledger.TwinLedger`)."""

    def append(self, pair: Pair) -> str:
        """Keep a pair; on return it is on the disk."""
        ...


@dataclass(frozen=True)
class Settings:
    """What the operator decides.

    Attributes
    ----------
    share
        Of the requests that can be twinned, in [0, 1].
    two_requests
        Whether the engine is asked twice for one answer each, in place of once for two.
    time_limit
        Seconds that both answers may take, from the request on; later there is no pair.
    usage_last
        How the engine's last piece of a stream looks, for chats and for completions; an endpoint that is not in it
        gives one answer alone.
    """

    share: float
    two_requests: bool
    time_limit: float
    usage_last: dict[bool, Parts]


class Gateway:
    """The application.

    Parameters
    ----------
    settings, upstream, accounts, budget, counters
        What the operator decides, the server behind, whose requests are, how many twins may be drawn, and what is
        counted.
    ledger
        Where pairs go.
    coin
        The key that coins are tossed under.
    tell
        Called with a line for the operator when something is wrong.

    Attributes
    ----------
    trouble
        Why pairs could not be kept the last time; None where all is well.
    """

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        accounts: Accounts,
        budget: Budget,
        counters: Counters,
        ledger: Ledger,
        coin: SecretKey,
        tell: Tell,
    ) -> None:
        self._settings, self._upstream, self._accounts, self._budget = settings, upstream, accounts, budget
        self.counters, self._ledger, self._coin, self._tell = counters, ledger, coin, tell
        self._own_headers = accounts.own_headers
        self._tasks: set[asyncio.Task[None]] = set()
        self._drawings: set[Drawing] = set()
        self._pairs: asyncio.Queue[Pair | None] = asyncio.Queue()
        self._no_twins_before = 0.0
        self._ends = False
        self.trouble: str | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or begin and end (the ASGI specification, version 3)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    def stop(self) -> None:
        """Drop the pairs that are under way, as the process is about to end.

        All of them at once: to wait for clients would mean to wait for the served answers alone.
        """
        self._ends = True
        for drawing in list(self._drawings):
            drawing.drop("gateway ended")

    # --- beginning and end -------------------------------------------------------------------------------

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        writer = asyncio.create_task(self._write())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.stop()
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self._pairs.put_nowait(None)
        await writer
        await send({"type": "lifespan.shutdown.complete"})

    async def _write(self) -> None:
        """Write pairs down, in the order in which they were complete."""
        while (pair := await self._pairs.get()) is not None:
            try:
                await asyncio.to_thread(self._ledger.append, pair)
            except DyetraceError as error:
                self._no_twins_before = asyncio.get_running_loop().time() + _SECONDS_TO_LEDGER
                if self.trouble is None:
                    self._tell(f"no twins for a while: {error}")
                self.trouble = str(error)
                self.counters.pair("not written")
            else:
                self.trouble = None
                self.counters.pair("recorded", tied=pair.tied)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- one request -------------------------------------------------------------------------------------

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = _below_root(scope["raw_path"])
        if path is None:
            await _error(404, "there is nothing here; the API is below /v1", "invalid_request_error")(
                scope, receive, send
            )
            return
        account = self._accounts.of(request.headers)
        if (query := scope["query_string"]) != b"":
            path += "?" + query.decode("latin-1")
        sent = asyncio.Event()  # all of the client's request has come
        headers = request.headers.raw
        chat = ENDPOINTS.get(scope["path"].removeprefix("/v1")) if request.method == "POST" else None
        drawing, outlet = None, Outlet(independent=False)
        if chat is None:
            if request.method == "POST":
                self.counters.request("other endpoint", account)
            has_body = any(name in request.headers for name in ("content-length", "transfer-encoding"))
            content = _streamed(request.stream(), b"", sent) if has_body else None
            if content is None:
                sent.set()
            work = self._pass_on(request.method, path, self._upstream.passed_on(headers), content, outlet)
        else:
            parts = request.stream()
            try:
                raw, complete = await _body(parts)
            except ClientDisconnect:
                return
            if not complete:
                self.counters.request("too large", account)
                content = _streamed(parts, raw, sent)
                work = self._pass_on("POST", path, self._upstream.passed_on(headers), content, outlet)
            else:
                sent.set()
                asked = read(raw, chat)
                drawing = self._drawn(asked, account)
                if drawing is not None:
                    outlet = Outlet(independent=True)
                work = self._ask(asked, path, self._upstream.read_whole(headers), outlet, drawing)
        if drawing is None:
            reader = self._task(self._fill(outlet, None, work))
        else:
            reader = self._task(self._fill(outlet, drawing, work))
            self._watch(drawing, outlet)
        outlet.filled_by(reader)
        await _deliver(outlet, sent, receive, send)

    def _drawn(self, asked: Asked, account: str | None) -> Drawing | None:
        """Decide whether a request is twinned, and toss the coin if so."""
        reason = asked.untwinned or self._refusal(asked.chat)
        nonce = new_nonce()
        if reason is None and not is_drawn(nonce, self._settings.share):
            reason = "not drawn"
        self.counters.request(reason or "twinned", account)
        if reason is not None:
            return None
        return Drawing(
            self._coin,
            nonce,
            chat=asked.chat,
            request=asked.recorded,
            account=account,
            asked="two requests" if self._settings.two_requests else "n = 2",
        )

    def _refusal(self, chat: bool) -> Untwinned | None:
        if self._ends:
            return "gateway ends"
        if chat not in self._settings.usage_last:
            return "engine gives one answer"
        if asyncio.get_running_loop().time() < self._no_twins_before or self._pairs.qsize() >= _MOST_UNWRITTEN:
            return "ledger"
        return self._budget.refusal()

    def _watch(self, drawing: Drawing, outlet: Outlet) -> None:
        """Have the limits hold for both answers alike, and take the pair when there is one."""
        self._budget.begin()
        self._drawings.add(drawing)
        self.counters.under_way(self._budget.under_way)
        late = asyncio.get_running_loop().call_later(self._settings.time_limit, drawing.drop, "took too long")

        def settled() -> None:
            late.cancel()
            self._drawings.discard(drawing)
            self._budget.end(drawing.tokens)
            self.counters.under_way(self._budget.under_way)
            if drawing.pair is not None:
                self._pairs.put_nowait(drawing.pair)
            else:
                self.counters.pair(str(drawing.dropped))
            outlet.release(dropped=drawing.pair is None)

        drawing.when_settled(settled)

    async def _fill(self, outlet: Outlet, drawing: Drawing | None, work: Coroutine[Any, Any, None]) -> None:
        """Do what fills an outlet, and say so where it fails."""
        try:
            await work
        except httpx2.TimeoutException:
            _fail(outlet, 504, "the server behind this gateway took too long to answer")
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, Unreadable):
            _fail(outlet, 502, "the server behind this gateway gave no answer that could be read")
        except ClientDisconnect:
            _fail(outlet, 400, "the request did not come whole")
        except Exception as error:
            self._tell(
                f"internal error: {type(error).__name__} while a request was answered; this is a fault of dyetrace"
            )
            _fail(outlet, 500, "the gateway failed")
        finally:
            if drawing is not None:
                drawing.drop("engine failed")

    # --- what the engine is asked --------------------------------------------------------------------------

    async def _ask(self, asked: Asked, path: str, headers: Headers, outlet: Outlet, drawing: Drawing | None) -> None:
        if asked.untwinned is not None or asked.chat not in self._settings.usage_last:
            await self._pass_on("POST", path, headers, asked.raw, outlet)
        elif not self._settings.two_requests:
            await self._ask_once(asked, path, headers, outlet, drawing)
        elif drawing is None:
            await self._pass_on("POST", path, headers, asked.raw, outlet)
        else:
            await self._ask_twice(asked, path, headers, outlet, drawing)

    async def _pass_on(
        self, method: str, path: str, headers: Headers, content: bytes | AsyncIterator[bytes] | None, outlet: Outlet
    ) -> None:
        """Hand a response back byte by byte."""
        async with self._upstream.asked(method, path, headers, content) as response:
            await _hand_back(response, outlet)

    async def _ask_once(
        self, asked: Asked, path: str, headers: Headers, outlet: Outlet, drawing: Drawing | None
    ) -> None:
        """One request, for two answers where they are drawn; either way the client's response is made alike."""
        if drawing is not None:
            async with self._upstream.asked("POST", path, headers, asked.asking_for(2)) as response:
                if response.status_code not in _REFUSES_TWO:
                    await self._choose(response, asked, outlet, drawing)
                    return
            # Before anything was served, so that no twin is served alone: this is an answer that has none.
            drawing.drop("engine refused two")
        async with self._upstream.asked("POST", path, headers, asked.asking_for(1)) as response:
            await self._choose(response, asked, outlet, None)

    async def _choose(self, response: httpx2.Response, asked: Asked, outlet: Outlet, drawing: Drawing | None) -> None:
        if response.status_code != 200:
            if drawing is not None:
                drawing.drop("engine refused")
            await _hand_back(response, outlet)
            return
        parts = _limited(response, drawing)
        if not is_stream(response):
            body = whole(b"".join([part async for part in parts]), asked, drawing)
            length = (b"content-length", str(len(body)).encode())
            outlet.start(response.status_code, [*handed_back(response, as_it_comes=False), length])
            await outlet.put(body)
            outlet.end()
            return
        outlet.start(response.status_code, handed_back(response, as_it_comes=False))
        events, chunks = Events(), Chunks(asked, drawing, self._settings.usage_last[asked.chat])
        async for part in parts:
            for event in events.feed(part):
                await outlet.put(chunks.feed(event))
                if chunks.finished:
                    outlet.end()
        if drawing is not None:
            drawing.end()
        elif events.rest:
            await outlet.put(events.rest)
        outlet.end()

    async def _ask_twice(self, asked: Asked, path: str, headers: Headers, outlet: Outlet, drawing: Drawing) -> None:
        """Two requests of the same bytes, always in the same order; the served one's response is handed back."""

        async def follow(number: int) -> None:
            own = outlet if number == drawing.served else None
            async with self._upstream.asked("POST", path, headers, asked.raw) as response:
                if response.status_code != 200:
                    drawing.drop("engine refused")
                tape = Tape(drawing, number, is_stream(response))
                if own is not None:
                    own.start(response.status_code, handed_back(response, as_it_comes=True))
                async for part in _limited(response, drawing):
                    if own is not None:
                        await own.put(part)
                    tape.feed(part)
                tape.end()
                if own is not None:
                    own.end()

        async def withheld(work: Coroutine[Any, Any, None]) -> None:
            try:
                await work
            except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError):
                drawing.drop("engine failed")

        works = follow(0), follow(1)
        tasks = [self._task(withheld(work) if n != drawing.served else work) for n, work in enumerate(works)]
        other = tasks[1 - drawing.served]

        def settled() -> None:
            if drawing.pair is None:
                other.cancel()

        drawing.when_settled(settled)
        await tasks[drawing.served]
        await asyncio.wait([other])


def is_drawn(nonce: str, share: float) -> bool:
    """Whether the request with this nonce is twinned: by a hash of it, which says nothing of its coin.

    Examples
    --------
    >>> is_drawn("00" * 16, 1.0), is_drawn("00" * 16, 0.0)
    (True, False)
    """
    digest = hashlib.sha256(b"dyetrace-drawn\0" + bytes.fromhex(nonce)).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def _below_root(raw_path: bytes) -> str | None:
    """A request's path below /v1; None for paths that lie elsewhere, or that could lead there."""
    path = raw_path.partition(b"?")[0]
    if path != _ROOT and not path.startswith(_ROOT + b"/"):
        return None
    segments = path.lower().replace(b"%2e", b".").replace(b"%2f", b"/").replace(b"\\", b"/").split(b"/")
    return None if b".." in segments or b"." in segments else path.removeprefix(_ROOT).decode("latin-1")


async def _body(parts: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """The beginning of a request's body, and whether it is all of it."""
    found = bytearray()
    async for part in parts:
        found += part
        if len(found) > _LARGEST_REQUEST:
            return bytes(found), False
    return bytes(found), True


async def _streamed(parts: AsyncIterator[bytes], first: bytes, sent: asyncio.Event) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for part in parts:
        if part:
            yield part
    sent.set()


async def _limited(response: httpx2.Response, drawing: Drawing | None) -> AsyncIterator[bytes]:
    """The bytes of a response; of both answers together only so many are kept."""
    async for part in response.aiter_raw():
        if drawing is not None:
            drawing.bytes_read += len(part)
            if drawing.bytes_read > _LARGEST_PAIR:
                drawing.drop("too large")
        yield part


async def _hand_back(response: httpx2.Response, outlet: Outlet) -> None:
    outlet.start(response.status_code, handed_back(response, as_it_comes=True))
    async for part in response.aiter_raw():
        await outlet.put(part)
    outlet.end()


async def _deliver(outlet: Outlet, sent: asyncio.Event, receive: Receive, send: Send) -> None:
    """Send what an outlet gets until it ends or the client goes away."""

    async def gone() -> None:
        await sent.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    sender, watcher = asyncio.create_task(outlet.send_all(send)), asyncio.create_task(gone())
    try:
        await asyncio.wait([sender, watcher], return_when=asyncio.FIRST_COMPLETED)
    finally:
        outlet.leave()
        for task in (sender, watcher):
            task.cancel()
        await asyncio.gather(sender, watcher, return_exceptions=True)


def _fail(outlet: Outlet, status: int, message: str) -> None:
    """End a response that can't be had: by an error where nothing was sent, else by cutting it off."""
    if outlet.started:
        outlet.end(whole=False)
        return
    response = _error(status, message, "upstream_error")
    outlet.start(status, response.raw_headers)
    outlet.put_now(bytes(response.body))
    outlet.end()


def _error(status: int, message: str, kind: str) -> JSONResponse:
    error = {"message": message, "type": kind, "param": None, "code": None}
    return JSONResponse({"error": error}, status)
