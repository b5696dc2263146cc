"""The synchronous side of asking: an iterator over steps, which may be closed at any time and resumed later."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from detect.student.asking.account import Account, ClientSettings
from detect.student.asking.ask import Asker
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.ledger import Ledger
from detect.student.asking.questions import Questions, T
from detect.student.asking.trouble import Tell

Progress = Callable[[Account], None]
"""Told now and then, while waiting too, what asking has come to; always in the thread that iterates."""

_TICK = 0.25

_R = TypeVar("_R")


class Asking(Iterator[list[T]], Generic[T]):
    """Answers of a plan's steps (prompts of a trace, pairs of twins), a list for each, in its order; see `ask_all`.

    Attributes
    ----------
    account
        What it has come to; complete once the iterator has ended or was closed.
    """

    def __init__(
        self,
        questions: Questions[T],
        ledger: Ledger,
        key: ApiKey | None,
        budgets: Budgets | None,
        settings: ClientSettings,
        progress: Progress | None,
        tell: Tell | None,
    ) -> None:
        self._progress = progress
        self._asker = Asker(questions, ledger, key, budgets, settings, tell)
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that ends without closing this must not wait for it, and loses nothing on record.
        self._thread = threading.Thread(target=self._loop.run_forever, name="asking", daemon=True)
        self._thread.start()
        self._open = True
        try:
            self._wait(self._asker.start())
        except BaseException:
            self._end()
            raise

    @property
    def account(self) -> Account:
        """What asking has come to so far."""
        return self._asker.refresh()

    def __next__(self) -> list[T]:
        """The usable answers of the next step; an empty list where it has none."""
        if not self._open:
            raise StopIteration
        try:
            answers = self._wait(self._asker.next())
        except BaseException:
            self.close()
            raise
        if answers is None:
            self.close()
            raise StopIteration
        return answers

    def close(self) -> None:
        """Send nothing more; wait a little for what is under way, which is paid for. A second Ctrl-C doesn't wait."""
        if not self._open:
            return
        self._open = False
        try:
            self._wait(self._asker.stop())
        except KeyboardInterrupt:
            self._wait(self._asker.abandon())
            raise
        finally:
            self._end()

    def __enter__(self) -> Asking[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, _R]) -> _R:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while not concurrent.futures.wait([future], _TICK).done:
                self._tell()
            self._tell()
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._asker.refresh())

    def _end(self) -> None:
        self._open = False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def ask_all(
    questions: Questions[T],
    ledger: Ledger,
    *,
    key: ApiKey | None = None,
    budgets: Budgets | None = None,
    settings: ClientSettings | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Asking[T]:
    """Ask what a plan asks and iterate over the answers, one list for each step: of `SuspectAnswer` for each prompt.

    The order is the plan's, whatever comes back first; answers that the ledger holds are not asked for again. Use it in
    a ``with`` block, or call ``close``: then what is under way is put on record. After a crash, an interruption or an
    error the same call goes on where it ended.

    Parameters
    ----------
    questions
        What to ask, such as a `TracePlan`. It is entered into the ledger before anything is sent.
    ledger
        Where requests and answers are kept; open for writing.
    key
        `detect.student.asking.credentials.load_api_key`; None for servers that want none.
    budgets
        Tighter than the plan's own, for this run.
    settings
        How to send requests.
    progress
        Told how far it is.
    tell
        Takes a line at the first failure, and then every ten seconds while no answer comes; from another thread.

    Raises
    ------
    DyetraceError
        Now or while iterating: the endpoint cannot be reached, refuses the key or the request, or stays broken; it
        sends no logprobs where the plan counts on them; or the ledger cannot be written.
    """
    return Asking(questions, ledger, key, budgets, settings or ClientSettings(), progress, tell)
