"""Engines: how tasks are spread over processors. None of them knows what a task does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from watermark.errors import DyetraceError

if TYPE_CHECKING:
    from detect.corpus.tasks import Outcome, Task

ENGINES = ("local", "ray", "datatrove")


class Engine(Protocol):
    """Runs tasks of one stage at a time; the tasks leave their results in the work folder."""

    name: str

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Run all tasks in any order; yield each outcome as it comes. A worker that dies is replaced."""
        ...

    def close(self) -> None:
        """Let workers go."""
        ...


def make_engine(name: str, workers: int | None, address: str | None) -> Engine:
    """The engine of that name.

    Raises
    ------
    DyetraceError
        There is none, or its package is not installed.
    """
    makers: dict[str, Callable[[int | None, str | None], Engine]] = {
        "local": _local,
        "ray": _ray,
        "datatrove": _datatrove,
    }
    if name not in makers:
        raise DyetraceError(f"engine ({name!r}) must be one of {', '.join(ENGINES)}")
    return makers[name](workers, address)


def _local(workers: int | None, address: str | None) -> Engine:
    from detect.corpus.engines.local import LocalEngine

    if address is not None:
        raise DyetraceError("--address goes with --engine ray: local workers have none")
    return LocalEngine(workers)


def _ray(workers: int | None, address: str | None) -> Engine:
    from detect.corpus.engines.ray import RayEngine

    return RayEngine(workers, address)


def _datatrove(workers: int | None, address: str | None) -> Engine:
    from detect.corpus.engines.datatrove import DatatroveEngine

    if address is not None:
        raise DyetraceError("--address goes with --engine ray")
    return DatatroveEngine(workers)
