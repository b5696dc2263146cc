"""What goes to a client, between the task that reads an engine and the one that writes to the client.

As long as a pair hangs on what is read, reading never waits for the client: a slow one, or one that went away, must
not change what becomes of a pair. Afterwards a slow client slows the engine's stream down, as without a gateway.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

Send = Callable[[Any], Awaitable[None]]
"""ASGI's ``send``."""

RawHeaders = Sequence[tuple[bytes, bytes]]
_ROOM = 1 << 18
"""Bytes that wait for a client at most while the engine's stream may be held back."""


@dataclass(frozen=True, slots=True)
class _Start:
    status: int
    headers: RawHeaders


@dataclass(frozen=True, slots=True)
class _End:
    whole: bool


class Outlet:
    """A response on its way.

    Parameters
    ----------
    independent
        Whether whoever fills it must not wait for the client, nor end with it.

    Attributes
    ----------
    started
        Whether a status was put.
    ended
        Whether all was put.
    waiting
        Bytes that the client has not taken.
    """

    def __init__(self, independent: bool) -> None:
        self.started = self.ended = False
        self.waiting = 0
        self._independent = independent
        self._left = self._stops = False
        self._parts: deque[_Start | bytes | _End] = deque()
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    def filled_by(self, reader: asyncio.Task[None]) -> None:
        """Say which task fills it: it ends when nobody listens and no pair hangs on it."""
        self._reader = reader

    def start(self, status: int, headers: RawHeaders) -> None:
        """Put the status and the headers."""
        self.started = True
        self._put(_Start(status, headers))

    async def put(self, data: bytes) -> None:
        """Put a part of the body, and wait for room where this may wait."""
        self.put_now(data)
        while self.waiting > _ROOM and not self._independent and not self._left:
            self._room.clear()
            await self._room.wait()

    def put_now(self, data: bytes) -> None:
        """Put a part of the body, and wait for nothing."""
        if data and not self._left:
            self.waiting += len(data)
            self._put(data)

    def end(self, *, whole: bool = True) -> None:
        """Put the end; not ``whole``: what came so far was cut off, and the client is to see that."""
        if not self.ended:
            self.ended = True
            self._put(_End(whole))

    def release(self, *, dropped: bool) -> None:
        """Say that no pair hangs on it any more.

        Parameters
        ----------
        dropped
            Whether there is none: then nobody needs what is read when the client has gone.
        """
        self._independent, self._stops = False, dropped
        self._look()

    def leave(self) -> None:
        """Say that nobody listens any more."""
        self._left = True
        self._parts.clear()
        self._room.set()
        self._look()

    async def send_all(self, send: Send) -> bool:
        """Send what is put as it comes; return whether the response is whole."""
        while True:
            while not self._parts:
                self._more.clear()
                await self._more.wait()
            part = self._parts.popleft()
            if isinstance(part, _Start):
                await send({"type": "http.response.start", "status": part.status, "headers": list(part.headers)})
            elif isinstance(part, _End):
                if part.whole:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                return part.whole
            else:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                self.waiting -= len(part)
                self._room.set()

    def _put(self, part: _Start | bytes | _End) -> None:
        if not self._left:
            self._parts.append(part)
            self._more.set()

    def _look(self) -> None:
        # What has ended goes on to the end of the engine's response by itself, so that its connection serves again.
        in_vain = self._left and not self._independent and (self._stops or not self.ended)
        if in_vain and self._reader is not None:
            self._reader.cancel()
