"""What people are told while an endpoint gives no answers: the first failure at once, then a line every ten seconds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

Tell = Callable[[str], None]
"""Takes one line for people."""

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_OUTAGES = 30.0
"""An outage that begins sooner after the last line is told of only if it lasts: a busy server refuses now and then."""

_LOOK = 0.25  # seconds between looks at the clock


class Trouble:
    """Watches requests to one endpoint, and says what is wrong with it while nothing comes.

    Parameters
    ----------
    host
        What the endpoint is called in the lines.
    timeout
        Seconds that a request may take.
    kept
        What Ctrl-C does, as a part of a sentence.
    tell
        Takes the lines; None where nobody is told.
    clock
        Seconds, rising.
    """

    def __init__(
        self, host: str, timeout: float, kept: str, tell: Tell | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._host, self._timeout, self._kept, self._clock = host, timeout, kept, clock
        self._tell = tell or (lambda line: None)
        self._under_way = self._failures = 0
        self._reason = ""
        self._tries: list[float] = []  # when requests that failed are tried again
        self._since: float | None = None  # nothing has been answered from here on, though something was asked
        self._last_line: float | None = None
        self._answered = self._told = False

    def sent(self) -> None:
        """A request is on its way, until it has `answered` or `failed`."""
        if self._since is None:
            self._since = self._clock()
        self._under_way += 1

    def failed(self, reason: str, wait: float | None) -> None:
        """It failed, and is tried again after ``wait`` seconds; None: not again."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        self._under_way -= 1
        self._failures += 1
        self._reason = reason
        if wait is not None:
            self._tries.append(now + wait)
        if self._failures == 1 and (self._last_line is None or now - self._last_line >= SECONDS_BETWEEN_OUTAGES):
            self._say(now, f"{reason}{self._next(now)}; {self._kept}")

    def answered(self) -> None:
        """An answer came."""
        now = self._clock()
        self._under_way -= 1
        if self._told and self._failures and self._since is not None:
            self._say(now, f"answers again after {self._count()} in {now - self._since:,.0f} s")
        self._answered, self._told, self._failures = True, False, 0
        self._since = now if self._under_way else None

    def look(self) -> None:
        """Say that it goes on, when a line is due."""
        now = self._clock()
        if self._since is None or not (self._under_way or self._failures):
            return
        due = SECONDS_BETWEEN_LINES if self._failures or not self._answered else SECONDS_BETWEEN_OUTAGES
        if now - max(self._since, self._since if self._last_line is None else self._last_line) < due:
            return
        seconds = f"{now - self._since:,.0f} s"
        if self._failures:
            self._say(
                now, f"still no answer: {self._count()} in {seconds} ({self._reason}){self._next(now)}; {self._kept}"
            )
        else:
            each = f"{self._under_way} asked for, each may take {self._timeout:,g} s"
            self._say(now, f"no answer for {seconds}: {each}; {self._kept}")

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look now and then, while the block runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            self.look()

    def _count(self) -> str:
        return "1 failure" if self._failures == 1 else f"{self._failures:,} failures"

    def _next(self, now: float) -> str:
        self._tries = [then for then in self._tries if then > now]
        return f"; next try in {min(self._tries) - now:,.0f} s" if self._tries else ""

    def _say(self, now: float, what: str) -> None:
        self._last_line, self._told = now, True
        self._tell(f"{self._host}: {what}")
