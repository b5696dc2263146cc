"""How fast to ask: as many requests at once as the endpoint bears, no more often than it allows.

The number rises by one each time that so many requests went well, and is halved when the endpoint refuses or breaks
down (additive increase, multiplicative decrease: Chiu and Jain 1989); long waits for each token lower it gently. A
pause that the endpoint asks for (Retry-After) holds for all requests.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

LONGEST_BACKOFF = 60.0

_SMOOTHING = 0.2
_SLACK = 4.0  # a token may take that many times what it took at best before requests are thought to queue up
_FIXED = 32  # tokens that a request without any would take as long as
_CREEP = 1.05  # after each such decrease the best is raised so much: the endpoint may have become slower for good


class Stopped(Exception):
    """No further request is to be sent."""


@dataclass(order=True, slots=True)
class _Waiter:
    order: tuple[int, ...]
    place: int
    ready: asyncio.Future[None]


class Pace:
    """Places for requests; those that come first in the plan get the next free one.

    Parameters
    ----------
    start, most
        Requests at once after the first went well, and at most. The first goes alone: it shows whether the address,
        the key and the model are right.
    """

    def __init__(self, start: int, most: int) -> None:
        self.limit = 1.0
        self.in_flight = 0
        self.paused_until = 0.0
        self._start, self._most = float(min(start, most)), float(most)
        self._opened = self._closed = False
        self._epoch = self._places = 0
        self._waiting: list[_Waiter] = []
        self._smooth: float | None = None
        self._best = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, order: tuple[int, ...]) -> int:
        """Wait for a place; the value is to be handed to `refused` should it come to that.

        Raises
        ------
        Stopped
            `close` was called.
        """
        if self._closed:
            raise Stopped
        self._places += 1
        waiter = _Waiter(order, self._places, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, waiter)
        self._admit()
        try:
            await waiter.ready
        except asyncio.CancelledError:
            if waiter.ready.done() and not waiter.ready.cancelled() and waiter.ready.exception() is None:
                self.leave()
            raise
        return self._epoch

    def leave(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        self._admit()

    def went_well(self, seconds: float, tokens: int) -> None:
        """Raise the limit after an answer of so many tokens in so many seconds, unless tokens take too long."""
        if not self._opened:
            self._opened, self.limit = True, self._start
        elif self.in_flight >= int(self.limit):
            self.limit = min(self._most, self.limit + 1 / self.limit)
        each = seconds / (tokens + _FIXED)
        self._smooth = each if self._smooth is None else (1 - _SMOOTHING) * self._smooth + _SMOOTHING * each
        self._best = min(self._best, self._smooth)
        if self._smooth > _SLACK * self._best:
            self.limit = max(1.0, 0.75 * self.limit)
            self._best, self._smooth = self._best * _CREEP, None
        self._admit()

    def refused(self, epoch: int) -> None:
        """Halve the limit, once for all requests that were under way together."""
        if epoch == self._epoch:
            self._epoch += 1
            self.limit = max(1.0, self.limit / 2)

    def pause(self, seconds: float) -> None:
        """Send nothing for so long."""
        self.paused_until = max(self.paused_until, time.monotonic() + seconds)

    def close(self) -> None:
        """Send nothing any more: whoever waits for a place gets `Stopped`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for waiter in self._waiting:
            if not waiter.ready.done():
                waiter.ready.set_exception(Stopped())
        self._waiting.clear()

    def _admit(self) -> None:
        rest = self.paused_until - time.monotonic()
        if self._waiting and rest > 0:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(rest, self._admit)
            return
        while self._waiting and self.in_flight < int(self.limit):
            waiter = heapq.heappop(self._waiting)
            if not waiter.ready.done():
                self.in_flight += 1
                waiter.ready.set_result(None)


def backoff(attempt: int, first: float) -> float:
    """Seconds to wait after failure number ``attempt`` (from 0): random up to ``first`` * 2^attempt, 60 at most."""
    longest = min(LONGEST_BACKOFF, first * 2.0**attempt)
    return random.uniform(longest / 2, longest)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the endpoint asks to wait (RFC 9110, section 10.2.3; OpenAI's milliseconds before it), or None.

    Parameters
    ----------
    headers
        With names in lower case.
    now
        Seconds since 1970, to which a date refers.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None or (seconds := _number(value)) is not None:
        return None if value is None else seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None
