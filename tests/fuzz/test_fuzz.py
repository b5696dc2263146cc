"""Two thousand commands that nobody would type, each time the same ones: `tests.fuzz.invariants` hold after each."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.batch import drawn, smaller
from tests.fuzz.grammar import LINES, options
from tests.fuzz.invariants import faults
from tests.fuzz.jobs import Job
from tests.fuzz.running import Workshop

BATCHES, JOBS = 20, 100
SHOWN = 5  # of the faults of a batch


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workshop that all processes of this session copy; whoever is first makes it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, done = shared / "workshop", shared / "workshop-done"
    with open(shared / "workshop-lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            made = [sys.executable, "-m", "tests.fuzz.workshop", str(folder)]
            root = Path(__file__).parents[2]
            subprocess.run(made, cwd=root, check=True, capture_output=True, text=True)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def workshop(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    made = Workshop(template, tmp_path_factory.mktemp("fuzz") / "own")
    yield made
    made.close()


@pytest.mark.parametrize("number", range(BATCHES))
def test_no_command_breaks_whatever_it_is_given(number: int, template: Path, workshop: Workshop) -> None:
    jobs = drawn(template, number, JOBS)
    assert len(jobs) > JOBS // 2
    assert _broken(workshop, jobs) == []


def _broken(workshop: Workshop, jobs: list[Job]) -> list[str]:
    """What is wrong, each kind of fault once and with the least that shows it."""
    found: dict[str, str] = {}
    for job in jobs:
        for fault in faults(job, workshop.run(job)):
            if fault not in found and len(found) < SHOWN:
                least = smaller(job, lambda part, fault=fault: fault in faults(part, workshop.run(part)))  # type: ignore[misc]
                found[fault] = f"{fault}: {least}"
    return list(found.values())


def test_every_command_is_tried() -> None:
    assert set(LINES) == set(options())


@pytest.mark.parametrize("command", sorted(set(LINES) - {""}))
def test_lines_work_as_they_are(command: str, workshop: Workshop) -> None:
    """Or the fuzzer would try refusals alone."""
    import shlex

    for line in LINES[command][1]:
        job = Job(command, tuple(shlex.split(line)), stdin="prompts")
        outcome = workshop.run(job)
        assert outcome.ended.status in (0, 3, 4, 183), (line, outcome.stderr.decode())
        assert faults(job, outcome) == []
