"""Ray tasks: the same work on a cluster. The work folder must be on a disk that all nodes share.

Keys travel as sources, so ``file:`` keys must be readable on every node, and ``env:`` variables set there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from detect.corpus.tasks import Outcome, Task, run
from watermark.errors import DyetraceError, MachineError

_RETRIES = 3  # of a task whose worker died
_AHEAD = 2  # tasks submitted for each processor


class RayEngine:
    """Runs tasks as Ray remote functions.

    Parameters
    ----------
    workers
        Processors to use: of a cluster, at most so many tasks at a time.
    address
        Of the cluster ("auto" finds it); None starts one on this machine.

    Raises
    ------
    DyetraceError
        Ray is not installed, or the cluster can't be reached.
    """

    name = "ray"

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise MachineError("--engine ray needs Ray: pip install 'dyetrace[ray]'") from None
        self._ray = ray
        options: dict[str, Any] = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise MachineError(f"no Ray cluster at {address}: {str(error).splitlines()[0]}; start one first") from None
        cluster: Any = ray.cluster_resources
        self.workers = workers or int(cluster().get("CPU", 1))
        self._remote: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(run_single_threaded)

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Run all tasks; yield each outcome as it comes."""
        waiting = list(tasks)[::-1]
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < self.workers * _AHEAD:
                running.append(self._remote.remote(waiting.pop()))
            done, running = self._ray.wait(running)
            for result in done:
                yield self._result(result)

    def _result(self, result: Any) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(result)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DyetraceError):
                raise error.cause from None
            raise
        except self._ray.exceptions.WorkerCrashedError:
            raise MachineError(
                "Ray workers died again and again (of memory?); finished work is kept: run the same command again"
            ) from None
        return outcome

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


def run_single_threaded(task: Task) -> Outcome:
    """Run a task on one processor, as Ray was told."""
    import numba

    numba.set_num_threads(1)
    return run(task)
