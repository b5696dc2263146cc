"""A datatrove executor for each stage: what runs where datatrove does (here, under Slurm, on Ray).

Statistics and progress stay in our own work folder. Of datatrove come the spreading of ranks and nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from detect.corpus.engines.forkserver import end_with_parent
from detect.corpus.engines.local import cores
from detect.corpus.tasks import Outcome, Task, run
from watermark.errors import MachineError

Executor = Callable[[list[Any], int, str], Any]
"""Makes an executor of a pipeline, a number of tasks and a folder for logs."""


class DatatroveEngine:
    """Runs tasks as ranks of datatrove executors.

    Parameters
    ----------
    workers
        Local processes; as many as there are processors when None.
    executor
        Makes another executor than the local one, such as ``lambda pipeline, tasks, logs: SlurmPipelineExecutor(...)``
        that waits for its end. The work folder must be on a disk that all nodes share.

    Raises
    ------
    DyetraceError
        datatrove is not installed.
    """

    name = "datatrove"

    def __init__(self, workers: int | None = None, executor: Executor | None = None) -> None:
        try:
            from datatrove.executor import LocalPipelineExecutor
        except ImportError:
            raise MachineError("--engine datatrove needs it: pip install 'dyetrace[datatrove]'") from None
        self.workers = workers or cores()

        def local(pipeline: list[Any], tasks: int, logs: str) -> Any:
            return LocalPipelineExecutor(
                pipeline, tasks=tasks, workers=self.workers, logging_dir=logs, start_method="forkserver"
            )

        self._executor = executor or local

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Run all tasks, one rank each; yield the outcomes when all have ended."""
        waiting = list(tasks)
        if not waiting:
            return
        with tempfile.TemporaryDirectory(prefix="dyetrace-") as logs:
            self._executor([RankTasks(waiting)], len(waiting), logs).run()
        for task in waiting:  # each finds its result
            yield run(task)

    def close(self) -> None:
        """Nothing to let go."""


class RankTasks:
    """A datatrove pipeline step: of a list of tasks, those of one rank."""

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Run this rank's tasks; documents that flow by are left alone."""
        import numba

        end_with_parent()
        numba.set_num_threads(1)
        for task in self.tasks[rank::world_size]:
            run(task)
        return data
