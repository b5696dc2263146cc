"""Many jobs after each other, by a seed; their faults are gathered, and made small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.jobs import Job, jobs

_settings = partial(
    settings, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def drawn(folder: Path, number: int, count: int) -> list[Job]:
    """So many jobs of which no two are the same; the same ones for each number."""
    found: dict[Job, None] = {}

    @seed(number)
    @_settings(max_examples=4 * count)
    @given(jobs(folder))
    def note(job: Job) -> None:
        found[job] = None

    note()
    return list(found)[:count]


def smaller(job: Job, still: Callable[[Job], bool]) -> Job:
    """The job with everything left out that a fault does not need."""
    while True:
        for candidate in _parts(job):
            if still(candidate):
                job = candidate
                break
        else:
            return job


def _parts(job: Job) -> Iterator[Job]:
    usual = Job(job.command, job.words)
    for name in ("signal", "file_size", "setting", "stdin", "stdout", "stderr", "process", "workers"):
        if getattr(job, name) != getattr(usual, name):
            yield replace(job, **{name: getattr(usual, name)})
    begin = len(job.command.split())
    for place in range(begin, len(job.words)):
        for width in (2, 1):
            if place + width <= len(job.words):
                yield replace(job, words=job.words[:place] + job.words[place + width :])
