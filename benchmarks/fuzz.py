"""Commands at random, a hundred thousand of them: how they end, how long they take, and what breaks.

A run is a command line that works, changed here and there, under streams, settings and signals at random (tests/fuzz).
Batches are drawn by number and each is kept when it is done, so that the same command goes on after a stop, and
another --first tries others. Faults are listed with the least that shows them; there must be none.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import msgspec

from benchmarks.common import Report, json_option, quick_option
from tests.fuzz.batch import drawn, smaller
from tests.fuzz.invariants import faults
from tests.fuzz.running import Workshop

BATCH = 200
SHRUNK = 3  # faults of a batch that are made small


class Done(msgspec.Struct):
    """A batch: runs by command and status, processor seconds by command, faults and the lines that show them."""

    statuses: dict[str, dict[int, int]]
    seconds: dict[str, float]
    faults: dict[str, str]

    @property
    def runs(self) -> int:
        """How many there were."""
        return sum(count for counts in self.statuses.values() for count in counts.values())


_own: list[Workshop] = []


def _begin(template: Path, place: Path) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # end with the process that hands out batches
    _own.append(Workshop(template, Path(tempfile.mkdtemp(dir=place)) / "own"))


def _run(template: Path, number: int, count: int) -> Done:
    [workshop] = _own
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    found: dict[str, str] = {}
    for job in drawn(template, number, count):
        outcome = workshop.run(job)
        seconds[job.command] += outcome.ended.seconds
        statuses[job.command][outcome.ended.status] += 1
        for fault in faults(job, outcome):
            if fault not in found:
                least = job
                if len(found) < SHRUNK:
                    least = smaller(job, lambda part, fault=fault: fault in faults(part, workshop.run(part)))  # type: ignore[misc]
                found[fault] = str(least)
    return Done({name: dict(counts) for name, counts in statuses.items()}, dict(seconds), found)


@click.command(help=__doc__)
@quick_option
@json_option
@click.option("--runs", default=100_000, show_default=True, help="How many.")
@click.option("--first", default=1_000, show_default=True, help="Number of the first batch; CI has those below 1000.")
@click.option("--processes", default=2, show_default=True, help="At once.")
@click.option("--minutes", default=600.0, show_default=True, help="Begin no further batch after so many.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder for batches that are done, to go on from.")
def main(
    quick: bool, json_path: Path | None, runs: int, first: int, processes: int, minutes: float, work: Path | None
) -> None:
    count, runs, processes = (20, 20, 1) if quick else (BATCH, runs, processes)
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dyetrace-fuzz-")))
        kept = work or place / "batches"
        kept.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        done = list(_batches(place, kept, first, runs, count, processes, minutes))
    report = Report(
        "Commands at random: runs by exit status",
        {"batches": f"{first} to {first + len(done) - 1}", "processes": processes},
    )
    for name in sorted({name for batch in done for name in batch.statuses}):
        ends: Counter[int] = sum((Counter(b.statuses.get(name, {})) for b in done), Counter())
        seconds = sum(batch.seconds.get(name, 0.0) for batch in done)
        columns = {
            str(status): ends[status] for status in sorted({s for b in done for c in b.statuses.values() for s in c})
        }
        report.add(command=name or "(none)", runs=ends.total(), **columns, ms=round(1000 * seconds / ends.total()))
    broken = {fault: line for batch in done for fault, line in batch.faults.items()}
    report.notes.append(f"{sum(batch.runs for batch in done):,} runs, {len(broken)} kinds of faults")
    report.notes.append(f"{time.monotonic() - started:.0f} seconds, without what earlier calls did")
    report.notes += [f"{fault}: {line}" for fault, line in sorted(broken.items())]
    report.finish(json_path)
    sys.exit(1 if broken else 0)


def _batches(
    place: Path, kept: Path, first: int, runs: int, count: int, processes: int, minutes: float
) -> Iterator[Done]:
    """Batches until there are enough runs, those that an earlier call did first."""
    left = runs
    number = first
    while left > 0 and (path := _path(kept, number)).exists():
        done = msgspec.json.decode(path.read_bytes(), type=Done, strict=False)
        left, number = left - done.runs, number + 1
        yield done
    if left <= 0:
        return
    template = place / "workshop"
    template.mkdir()
    subprocess.run([sys.executable, "-m", "tests.fuzz.workshop", str(template)], check=True, capture_output=True)
    until = time.monotonic() + 60 * minutes
    running: dict[Any, int] = {}
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (template, place)) as pool:
        while left > 0 or running:
            while left > 0 and len(running) < processes and time.monotonic() < until:
                running[pool.submit(_run, template, number, count)] = number
                left, number = left - count, number + 1
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED)[0]:
                done = future.result()
                left += count - done.runs
                _path(kept, running.pop(future)).write_bytes(msgspec.json.encode(done))
                for fault, line in done.faults.items():
                    click.echo(f"{fault}: {line}", err=True)
                yield done


def _path(kept: Path, number: int) -> Path:
    return kept / f"batch-{number:06}.json"


if __name__ == "__main__":
    main()
