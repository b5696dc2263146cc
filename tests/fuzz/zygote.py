"""The process that fuzzed commands are forked from: all packages are loaded, so that a command starts in milliseconds.

A forked command has streams, environment, working folder, signals and children of its own, as one that a shell starts.
Talk to it through `tests.fuzz.running`; ``python -m tests.fuzz.zygote FD`` is what that starts.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import os
import pickle
import pkgutil
import resource
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from typing import Any, NoReturn

from tests.fuzz.tasks import Ended, Task

_SUBREAPER = 36  # prctl(2): orphans of what runs here come to this process
_MEMORY = 6 << 30  # bytes that a command may add to what is loaded here
_LAST = 64  # descriptors of a command that are closed at its start


def serve(connection: socket.socket) -> None:
    """Run tasks one after the other until the other side is gone."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    connection.send(b"ready")
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            return
        task: Task = pickle.loads(message)
        ended = _run(task, list(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(pickle.dumps(ended))


def _run(task: Task, descriptors: list[int]) -> Ended:
    begun, begins = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(begun)
        _become(task, descriptors, begins)
    os.close(begins)
    os.read(begun, 1)  # until the command itself starts
    os.close(begun)
    late = hung = False
    if task.signal and not _ends(pid, task.after):
        _send(pid, task.signal)
    if not _ends(pid, task.limit):
        late = True
        _send(pid, signal.SIGINT)
        if not _ends(pid, task.grace):
            hung = True
            os.killpg(pid, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    seconds = used.ru_utime + used.ru_stime
    return Ended(code if code >= 0 else 128 - code, code < 0, seconds, late, hung, _left())


def _send(pid: int, number: int) -> None:
    """Ctrl-C reaches all processes of a terminal's job, other signals the one that they are sent to."""
    if number == signal.SIGINT:
        os.killpg(pid, number)
    else:
        os.kill(pid, number)


def _ends(pid: int, seconds: float) -> bool:
    """Whether a child ends in so many seconds; it isn't reaped."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def _left(seconds: float = 10.0) -> tuple[str, ...]:
    """Who is still there of a command's processes some time after its end; they are killed."""
    until = time.monotonic() + seconds
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ()
        if pid == 0:
            if time.monotonic() > until:
                break
            time.sleep(0.005)
    found = []
    for pid in _children():
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            found.append(file.read().replace(b"\0", b" ").decode(errors="replace"))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return tuple(found)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


# ------------------------------------------------------------------------------------------------- in the new process


def _become(task: Task, descriptors: list[int], begins: int) -> NoReturn:
    """Be the command."""
    code = 70
    try:
        os.setsid()
        os.dup2(begins, _LAST)
        high = [os.dup2(d, _LAST + 1 + i) for i, d in enumerate(descriptors)]
        os.closerange(0, _LAST)
        given = iter(high)
        for number, is_open in enumerate(task.streams):
            if is_open:
                os.dup2(next(given), number)
        os.closerange(_LAST + 1, _LAST + 5)
        os.chdir(task.folder)
        _limit(task)
        if task.process:
            _exec(task)
        code = _call(task)
    finally:
        os._exit(code)


def _limit(task: Task) -> None:
    if task.file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task.file_size, task.file_size))
    if not task.process:
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _exec(task: Task) -> NoReturn:
    os.set_inheritable(_LAST, False)  # its end says that the command has started
    os.execve(sys.executable, [sys.executable, "-m", "detect.cli", *task.words], task.environment)


def _call(task: Task) -> int:
    """What ``dyetrace`` does when a shell starts it, without the time to load it."""
    os.environ.clear()
    os.environ.update(task.environment)
    tempfile.tempdir = None
    encoding = task.environment.get("PYTHONIOENCODING", "utf-8")
    sys.stdin = _stream(0, "r", encoding, "strict", task)
    sys.stdout = _stream(1, "w", encoding, "strict", task)
    sys.stderr = _stream(2, "w", encoding, "backslashreplace", task)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    sys.argv = ["dyetrace", *task.words]
    import detect.cli.main as command
    from detect.cli.start import main

    if not task.workers:
        _run_tasks_here()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    run = command.main

    def begun() -> Any:
        os.write(_LAST, b".")  # from here on it may be interrupted
        os.close(_LAST)
        return run()

    command.main = begun  # type: ignore[assignment]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    with contextlib.suppress(KeyboardInterrupt):  # what comes from here on, comes to a process that has ended
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.flush()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        return 120  # as Python itself
    return code


def _run_tasks_here() -> None:
    """Scans take seconds to start workers, which is tried in some runs and saved in the others."""
    from detect.corpus.engines import forkserver, local
    from detect.corpus.tasks import run

    class Here(local.LocalEngine):
        def run(self, tasks: Any) -> Any:
            yield from map(run, tasks)

    local.LocalEngine = Here  # type: ignore[misc]
    forkserver.start_early = lambda: None  # type: ignore[assignment, return-value]


def _stream(number: int, mode: str, encoding: str, errors: str, task: Task) -> Any:
    if not task.streams[number]:
        return None
    raw = io.FileIO(number, mode, closefd=False)
    buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding, errors, line_buffering=number == 2)


# ----------------------------------------------------------------------------------------------------- before any task


def load(kind: str) -> None:
    """Import the packages' modules, and the machine code that earlier runs have kept, without starting threads.

    ``light`` leaves out all that needs torch, which makes forks three times as slow.
    """
    import detect
    import watermark

    finder = _WithoutTorch()
    if kind == "light":
        sys.meta_path.insert(0, finder)
    for package in (detect, watermark):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(part in module.name for part in (".engines.", "__main__", "triton", "ray")):
                with contextlib.suppress(ImportError):
                    importlib.import_module(module.name)
    others = ("typst", "httpx2", "pyarrow.parquet", "pandas", "tokenizers", "cryptography.x509", "email.policy")
    for name in ("detect.corpus.engines.local", *others):
        importlib.import_module(name)
    importlib.import_module("detect.records.code_hash").code_sha256()
    if kind == "light":
        sys.meta_path.remove(finder)
    else:
        importlib.import_module("transformers.models.llama.modeling_llama")
    _load_machine_code()
    gc.collect()
    gc.freeze()


class _WithoutTorch:
    """Refuses to find it."""

    def find_spec(self, name: str, *_: object) -> None:
        if name in ("torch", "transformers"):
            raise ImportError(name)


def _load_machine_code() -> None:
    from numba.core.caching import FunctionCache
    from numba.core.dispatcher import Dispatcher

    for found in gc.get_objects():
        cache = getattr(found, "_cache", None) if isinstance(found, Dispatcher) else None
        if isinstance(cache, FunctionCache) and not found.targetoptions.get("parallel"):
            for key in list(cache._cache_file._load_index()):
                found.compile(key[0])


if __name__ == "__main__":
    load(sys.argv[2])
    with socket.socket(fileno=int(sys.argv[1])) as served:
        serve(served)
