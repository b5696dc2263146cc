"""Processes on this machine: the default engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from detect.corpus.engines.forkserver import end_with_parent, interrupts_afterwards, start_early
from detect.corpus.tasks import Outcome, Task, run
from watermark.errors import DyetraceError, MachineError

_DEATHS = 3  # of workers during one and the same task, after which it is given up
_AHEAD = 2  # tasks handed to each worker before it asks


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """A pool of processes that is made anew when a worker is killed.

    Parameters
    ----------
    workers
        How many; as many as there are processors when None. One runs in this process itself.
    """

    name = "local"

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or cores()
        self._pool: ProcessPoolExecutor | None = None

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Run all tasks; yield each outcome as it comes."""
        waiting = list(tasks)[::-1]
        deaths: dict[Task, int] = {}
        running: dict[Future[Outcome], Task] = {}
        while waiting or running:
            pool = self._started()
            while waiting and len(running) < self.workers * _AHEAD:
                task = waiting.pop()
                try:
                    with interrupts_afterwards():
                        running[pool.submit(run, task)] = task
                except BrokenProcessPool:
                    waiting.append(task)
                    break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            broken = not running
            for future in done:
                task = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    broken = True
                    deaths[task] = deaths.get(task, 0) + 1
                    waiting.append(task)
                    if deaths[task] >= _DEATHS * self.workers * _AHEAD:
                        raise MachineError(
                            f"workers died again and again while at {task.stage} number {task.number} (of memory?); "
                            "finished work is kept: run the same command with fewer --workers"
                        ) from None
            if broken:
                self.close()
        self.close()  # memory of one stage is not held through the next; new workers are forked in no time

    def _started(self) -> ProcessPoolExecutor:
        """The pool."""
        if self._pool is None:
            _refuse_unguarded()
            self._pool = ProcessPoolExecutor(self.workers, mp_context=start_early(), initializer=_prepare)
        return self._pool

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _refuse_unguarded() -> None:
    """Refuse a program that each worker would run anew: workers import it, and it would scan while it is imported."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or getattr(main.__spec__, "name", "").endswith(".__main__"):
        return  # which workers don't import
    try:
        source = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if "__name__" not in source:
        raise DyetraceError(
            f'each worker of a scan would run {path} anew; put what it does under a line if __name__ == "__main__":'
        )


def _prepare() -> None:
    """Workers end with their scan, and are as many as processors: own threads would only get in each other's way."""
    import numba

    end_with_parent()
    numba.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
