"""The ledger as an event loop writes it: whatever comes together shares one write to the disk."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from detect.student.asking.ledger import Draft, Ledger
from watermark.errors import DyetraceError


class Recorder:
    """Appends to a ledger without holding up the event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._pending: list[tuple[Draft, asyncio.Future[int]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def append(self, draft: Draft) -> int:
        """The entry's number, once it is on the disk; a cancelled caller's entry is written all the same.

        Raises
        ------
        DyetraceError
            It cannot be written.
        """
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending.append((draft, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await asyncio.shield(done)

    async def close(self) -> None:
        """Wait until everything is on the disk."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._thread.shutdown()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            batch, self._pending = self._pending, []
            try:
                drafts = [draft for draft, _ in batch]
                numbers = await loop.run_in_executor(self._thread, self._ledger.append, drafts)
            except DyetraceError as error:
                for _, done in batch:
                    done.set_exception(error)
                    done.exception()  # a caller that was cancelled does not come for it
                continue
            for (_, done), number in zip(batch, numbers, strict=True):
                done.set_result(number)
