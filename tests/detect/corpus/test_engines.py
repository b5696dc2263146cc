"""Every engine runs the same tasks to the same report, workers that die on the way included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from detect.corpus import scan as scan_module
from detect.corpus.engines import Engine, make_engine
from detect.corpus.engines.local import LocalEngine
from detect.corpus.scan import ScanJob, scan
from detect.corpus.tasks import Outcome, Task
from detect.corpus.work import WORK
from tests.detect.corpus.marked import SECRET, SETTINGS, InlineEngine, documents, spec, write_jsonl
from tests.detect.corpus.test_scan import report
from watermark.errors import DyetraceError
from watermark.keys import write_key_file
from watermark.spec import write_spec


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ScanJob:
    folder = tmp_path_factory.mktemp("engines")
    rows = [*documents(200, 150, 1), *documents(10, 150, 2, spec())]
    for part in range(6):
        write_jsonl(folder / f"{part}.jsonl", rows[part * 35 : (part + 1) * 35], first=part * 35)
    key = tmp_path_factory.mktemp("key") / "owner.key"
    write_key_file(key, SECRET)
    return ScanJob(paths=[str(folder)], specs=[spec()], key=f"file:{key}", settings=SETTINGS, null_corpus=())


@pytest.fixture(scope="module")
def expected(job: ScanJob, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    output = tmp_path_factory.mktemp("expected")
    scan(job, output, InlineEngine())
    return report(output)


class Killing(Engine):
    """Another engine, one of whose workers is killed at the first outcome of every stage."""

    def __init__(self, engine: Engine, workers: Any) -> None:
        self.name = engine.name
        self._engine, self._workers = engine, workers
        self.killed = 0

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        for number, outcome in enumerate(self._engine.run(tasks)):
            yield outcome
            victims = self._workers()
            if number == 0 and victims:
                os.kill(victims[0], signal.SIGKILL)
                self.killed += 1

    def close(self) -> None:
        self._engine.close()


def children(word: str) -> list[int]:
    """Processes below this one whose command line holds the word."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if word in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_killed_local_worker_is_replaced(job: ScanJob, expected: list[bytes], tmp_path: Path) -> None:
    local = LocalEngine(2)
    engine = Killing(local, lambda: [] if local._pool is None else list(local._pool._processes))
    scan(job, tmp_path, engine)
    assert engine.killed >= 3
    assert report(tmp_path) == expected


def test_a_task_whose_workers_always_die_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detect.corpus.engines.local.run", die)
    engine = LocalEngine(2)
    with pytest.raises(DyetraceError, match="died again and again"):
        list(engine.run([Task("gather", str(tmp_path), 0)]))
    engine.close()


def die(_: Task) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_an_error_in_a_worker_reaches_the_caller(job: ScanJob, tmp_path: Path) -> None:
    folder = Path(job.paths[0])
    (tmp_path / "x.jsonl").write_bytes((folder / "0.jsonl").read_bytes() + b"{broken\n")
    broken = ScanJob(**{**job.__dict__, "paths": [str(tmp_path / "x.jsonl"), str(folder)]})
    with pytest.raises(DyetraceError, match="line 36"):
        scan(broken, tmp_path / "out", LocalEngine(2))


@pytest.mark.parametrize("moment", ["plan.json", "gathered", "settled"])
def test_workers_end_with_the_scan_that_was_killed(moment: str, tmp_path: Path) -> None:
    write_key_file(tmp_path / "owner.key", SECRET)
    write_spec(tmp_path / "spec.json", spec())
    for part in range(8):
        write_jsonl(tmp_path / f"{part}.jsonl", documents(40, 150, part))
    command = [
        sys.executable, "-m", "detect.cli", "scan", *(str(tmp_path / f"{part}.jsonl") for part in range(8)),
        "--spec", str(tmp_path / "spec.json"), "--key", f"file:{tmp_path / 'owner.key'}", "-o", str(tmp_path / "out"),
        "--workers", "2", "--no-pdf", "--keep-work",
    ]  # fmt: skip
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started: set[psutil.Process] = set()
    while not (tmp_path / "out" / WORK / moment).exists() or len(started) < 4:  # server, tracker, two workers
        started |= set(process.children(recursive=True))
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


def test_ray_tasks_give_the_same_report_though_a_worker_is_killed(
    job: ScanJob, expected: list[bytes], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    engine = Killing(make_engine("ray", 2, None), lambda: children("ray::run_single"))
    scan(job, tmp_path, engine)
    assert engine.killed >= 1
    assert report(tmp_path) == expected


def test_datatrove_ranks_give_the_same_report(job: ScanJob, expected: list[bytes], tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    scan(job, tmp_path, make_engine("datatrove", 2, None))
    assert report(tmp_path) == expected


def test_an_unknown_engine_and_a_missing_cluster_are_refused() -> None:
    with pytest.raises(DyetraceError, match="must be one of local, ray, datatrove"):
        make_engine("spark", None, None)
    with pytest.raises(DyetraceError, match="--engine ray"):
        make_engine("local", None, "auto")


def test_shards_are_named_by_content(job: ScanJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a file elsewhere is the same work."""
    scan(job, tmp_path, InlineEngine(), keep_work=True)
    done = sorted(path.name for path in (tmp_path / WORK / "gathered").iterdir())
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in Path(job.paths[0]).glob("*.jsonl"):
        (copies / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(scan_module, "_hashes", scan_module._hashes)
    scan(ScanJob(**{**job.__dict__, "paths": [str(copies)]}), tmp_path, InlineEngine(), keep_work=True)
    assert sorted(path.name for path in (tmp_path / WORK / "gathered").iterdir()) == done


PROGRAM = """
from pathlib import Path

from detect.corpus.engines.local import LocalEngine
from detect.corpus.scan import ScanJob, scan
from tests.detect.corpus.marked import spec


def work():
    job = ScanJob([{folder!r}], [spec()], {key!r}, null_corpus=())
    found = scan(job, Path({out!r}), LocalEngine(2))
    print(found.documents)


"""


@pytest.mark.parametrize("end", ["work()", 'if __name__ == "__main__":\n    work()'])
def test_a_program_that_workers_would_run_anew_is_told_what_to_add(end: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "a.jsonl", documents(8, 60, 1))
    write_key_file(tmp_path / "owner.key", SECRET)
    names = {"folder": str(tmp_path / "data"), "key": f"file:{tmp_path / 'owner.key'}", "out": str(tmp_path / "out")}
    (tmp_path / "program.py").write_text(PROGRAM.format(**names) + end)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, env=environment)
    if "__main__" in end:
        assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
    else:
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and last.endswith('under a line if __name__ == "__main__":'), done.stderr
        assert "program.py" in last and "workers died" not in done.stderr
