"""Runs jobs in a workshop, and says what became of its files."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.endpoint import Endpoint
from tests.fuzz.grammar import URL
from tests.fuzz.jobs import Job
from tests.fuzz.tasks import Ended, Task
from tests.fuzz.workshop import FOLDERS, NOWHERE, OWNER

Snapshot = dict[str, tuple[int, ...]]
LIMIT, WAITING = 20.0, 1.0  # seconds until a job is interrupted; those that wait for nothing
GRACE = 60.0  # seconds that it then has
_INPUT = {
    "nothing": b"",
    "closed": b"",
    "prompts": b"10 20\n30 40\n",
    "text": b"10 20 30 40 50 60 70 80 90 100\n",
    "not UTF-8": b"\xff\xfe10 20\n",
    "NUL bytes": b"10\0 20\n\0",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job did.

    Attributes
    ----------
    ended
        Its status, and who was left behind.
    stdout, stderr
        What it wrote, as far as somebody kept it.
    changed
        Files that came, went or are others than before, with what happened: "new", "gone", "changed".
    written
        The bytes of those that came.
    """

    ended: Ended
    stdout: bytes
    stderr: bytes
    changed: dict[str, str]
    written: dict[str, bytes]


class Workshop:
    """A workshop of one's own, with two processes that commands are forked from.

    Parameters
    ----------
    folder
        One that `tests.fuzz.workshop` made; it is the template and stays as it is.
    own
        A folder that isn't there yet; jobs run in it.
    """

    def __init__(self, folder: Path, own: Path) -> None:
        self._template, self.folder = folder, own
        self._endpoint = Endpoint()
        own.mkdir()
        for part in FOLDERS:
            self._copy(part)
        self._forks: dict[str, _Zygote] = {}
        self._before = self._snapshot()

    def run(self, job: Job) -> Outcome:
        """Run a job; afterwards everything is as before."""
        words = tuple(word.replace(URL, self._endpoint.address) for word in job.words)
        with contextlib.closing(_Streams(job)) as streams:
            task = Task(
                words=words,
                environment=self._environment(job.setting),
                folder=str(self.folder / "here"),
                streams=(job.stdin != "closed", job.stdout != "closed", job.stderr != "closed"),
                signal=getattr(signal, f"SIG{job.signal}") if job.signal else 0,
                after=job.after / 1000,
                file_size=job.file_size,
                process=job.process,
                workers=job.workers,
                limit=WAITING if job.waits else LIMIT,
                grace=GRACE,
            )
            ended = self._fork("models" if job.loads_models else "light").run(task, streams)
            stdout, stderr = streams.content("stdout"), streams.content("stderr")
        changed, written = self._changes()
        if changed:
            self._restore(changed)
        return Outcome(ended, stdout, stderr, changed, written)

    def close(self) -> None:
        """End the processes; the folder stays."""
        for zygote in self._forks.values():
            zygote.close()
        self._endpoint.close()

    def _fork(self, kind: str) -> _Zygote:
        if kind not in self._forks:
            self._forks[kind] = _Zygote(kind, self._environment("usual"))
        return self._forks[kind]

    def _environment(self, setting: str) -> dict[str, str]:
        place = self.folder
        usual = {
            "PATH": os.environ["PATH"],
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            "DYETRACE_CACHE": str(place / "cache"),
            "LANG": "C.UTF-8",
            "FUZZ_KEY": OWNER.hex(),
            "OMP_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PIP_INDEX_URL": "http://127.0.0.1:9/",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        odd: dict[str, dict[str, str]] = {
            "no home": {"HOME": "", "DYETRACE_CACHE": ""},
            "ASCII": {"LANG": "C", "LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
            "Latin-1": {"PYTHONIOENCODING": "latin-1"},
            "no cache": {"DYETRACE_CACHE": "/proc/nope", "XDG_CACHE_HOME": "/proc/nope"},
            "no temporary folder": {"TMPDIR": str(place / "nope")},
            "temporary file": {"TMPDIR": str(place / "mine" / "spec.json")},
            "narrow": {"COLUMNS": "20"},
            "dumb": {"TERM": "dumb", "NO_COLOR": "1"},
        }
        return usual | odd.get(setting, {})

    def _snapshot(self) -> Snapshot:
        found: Snapshot = {}
        _look(str(self.folder), "", found)
        return found

    def _changes(self) -> tuple[dict[str, str], dict[str, bytes]]:
        after = self._snapshot()
        changed = {}
        written = {}
        for name in sorted(self._before.keys() | after.keys()):
            old, new = self._before.get(name), after.get(name)
            if old != new:
                changed[name] = "new" if old is None else "gone" if new is None else "changed"
                if new is not None and stat.S_ISREG(new[0]):
                    written[name] = (self.folder / name).read_bytes()
        return changed, written

    def _restore(self, changed: dict[str, str]) -> None:
        for part in {name.split("/")[0] for name in changed}:
            path = self.folder / part
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            if part in FOLDERS:
                self._copy(part)
        self._before = self._snapshot()

    def _copy(self, part: str) -> None:
        template, own = self._template / part, self.folder / part
        shutil.copytree(template, own, symlinks=True, ignore=shutil.ignore_patterns("pipe"))
        for pipe in template.rglob("pipe"):
            os.mkfifo(own / pipe.relative_to(template))
        for plan in (*own.glob("plan.json"), *own.glob("race.json")):
            plan.write_text(plan.read_text().replace(NOWHERE, self._endpoint.address))


class _Zygote:
    """The other side of `tests.fuzz.zygote`."""

    def __init__(self, kind: str, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.zygote", str(theirs.fileno()), kind],
                env=environment,
                cwd=Path(__file__).parents[2],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._connection = ours
        if ours.recv(10) != b"ready":
            raise RuntimeError("the process that commands are forked from did not start")

    def run(self, task: Task, streams: _Streams) -> Ended:
        socket.send_fds(self._connection, [pickle.dumps(task)], streams.descriptors)
        streams.given()
        waiting: set[Any] = {self._connection, *streams.reading}
        answer = b""
        while waiting:
            for ready in select.select(list(waiting), [], [])[0]:
                if ready is self._connection:
                    answer = self._connection.recv(1 << 16)
                    waiting.discard(ready)
                    if not answer:
                        raise RuntimeError(f"the process that commands are forked from died of {task.words}")
                elif not streams.read(ready):
                    waiting.discard(ready)
        ended: Ended = pickle.loads(answer)
        return ended

    def close(self) -> None:
        self._connection.close()
        self._process.wait(10)


class _Streams:
    """The streams of a job: the descriptors of those that are not closed, and what comes out of them.

    Output is read as it comes, from pipes: files would be subject to the job's own limits.
    """

    def __init__(self, job: Job) -> None:
        self.descriptors: list[int] = []
        self.reading: dict[int, bytearray] = {}
        self._names: dict[str, int] = {}
        if job.stdin != "closed":
            source = os.memfd_create("in")
            os.write(source, _INPUT[job.stdin])
            os.lseek(source, 0, os.SEEK_SET)
            self._give(source)
        for name, how in (("stdout", job.stdout), ("stderr", job.stderr)):
            if how == "full":
                self._give(os.open("/dev/full", os.O_WRONLY))
            elif how != "closed":
                reading, writing = os.pipe()
                self._give(writing)
                if how == "kept":
                    self.reading[reading] = bytearray()
                    self._names[name] = reading
                else:
                    os.close(reading)

    def _give(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)

    def given(self) -> None:
        """Close this side of what the job has."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def read(self, descriptor: int) -> bool:
        """Take what is there; return whether there may be more."""
        data = os.read(descriptor, 1 << 16)
        self.reading[descriptor] += data
        return bool(data)

    def content(self, name: str) -> bytes:
        """All that came out of a stream."""
        return bytes(self.reading[self._names[name]]) if name in self._names else b""

    def close(self) -> None:
        """Close this side of all."""
        self.given()
        for descriptor in self.reading:
            os.close(descriptor)


def _look(path: str, name: str, found: Snapshot) -> None:
    """Note everything in a folder by kind, owner, size, time and number: whatever is written anew differs in one."""
    with os.scandir(path) as entries:
        for entry in entries:
            state: Any = entry.stat(follow_symlinks=False)
            inside = f"{name}/{entry.name}" if name else entry.name
            if stat.S_ISDIR(state.st_mode):
                if name:  # the folders of the workshop itself are made anew
                    found[inside] = (state.st_mode, state.st_ino)
                _look(entry.path, inside, found)
            else:
                found[inside] = (state.st_mode, state.st_ino, state.st_size, state.st_mtime_ns)
