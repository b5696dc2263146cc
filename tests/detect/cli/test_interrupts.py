"""Ctrl-C and SIGTERM: one line that says what is kept, a status, nothing half done. No moment is left to chance here;
`benchmarks/interrupts.py` draws them at random."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from detect.cli.statuses import DONE, INTERRUPTED, MACHINE, TERMINATED

NOTHING = "nothing was written; run the same command again"
BEGIN = """
import os, signal, sys
from pathlib import Path
import click
from detect import interruption
from detect.cli.main import main
from detect.cli.start import main as start
from watermark.files.writing import write_atomically, write_private
from watermark.interruption import held, unwinding

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with Ctrl-C ignored

def command(function):
    main.add_command(click.Command("try", callback=function))
    sys.argv = ["dyetrace", "try"]
    start()
"""


def ended(code: str, folder: Path, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run a command that is made of ``code`` as `dyetrace` runs its own."""
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code], cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[3])])},
    )  # fmt: skip


def said(done: subprocess.CompletedProcess[str], left: str, status: int = INTERRUPTED.number) -> None:
    word = "terminated" if status == TERMINATED.number else "interrupted"
    assert done.returncode == status, done
    assert done.stderr == f"dyetrace: {word}; {left}\n"


@pytest.mark.parametrize(("number", "status"), [("SIGINT", INTERRUPTED), ("SIGTERM", TERMINATED)])
def test_a_signal_unwinds_the_command_and_is_one_line(number: str, status: object, tmp_path: Path) -> None:
    code = f"""
def run():
    try:
        signal.raise_signal(signal.{number})
    finally:
        print("cleaned")
command(run)
"""
    done = ended(code, tmp_path)
    assert done.stdout == "cleaned\n"
    said(done, NOTHING, getattr(status, "number"))  # noqa: B009


def test_while_packages_are_loaded_it_ends_at_once_whatever_they_do_with_exceptions(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    pass\n"
    )
    said(ended("def run():\n    import heavy\n    print('went on')\ncommand(run)\n", tmp_path), NOTHING)


def test_what_is_to_be_removed_is_removed_even_then(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    code = """
import tempfile
def run():
    with unwinding(), tempfile.TemporaryDirectory(dir=".", prefix="made-"):
        import heavy
command(run)
"""
    said(ended(code, tmp_path), NOTHING)
    assert not list(tmp_path.glob("made-*"))


@pytest.mark.parametrize("write", ["write_atomically", "write_private"])
def test_a_file_that_is_being_written_becomes_whole_first(write: str, tmp_path: Path) -> None:
    code = f"""
def run():
    sync = os.fsync
    os.fsync = lambda number: (signal.raise_signal(signal.SIGINT), sync(number))
    {write}(Path("a.json"), b"whole")
    print("went on")
command(run)
"""
    done = ended(code, tmp_path)
    said(done, "a.json is there and whole")
    assert done.stdout == "" and (tmp_path / "a.json").read_bytes() == b"whole"
    assert {path.name for path in tmp_path.iterdir()} == {"a.json"}


def test_of_several_outputs_those_are_named_that_are_whole(tmp_path: Path) -> None:
    code = """
def run():
    with held():
        write_private(Path("a.key"), b"1")
        signal.raise_signal(signal.SIGINT)
        write_atomically(Path("a.pub"), b"2")
    write_atomically(Path("b"), b"3")
command(run)
"""
    said(ended(code, tmp_path), "a.key, a.pub are there and whole")
    assert not (tmp_path / "b").exists()


def test_commands_say_what_they_keep(tmp_path: Path) -> None:
    code = """
def run():
    interruption.leaves(lambda: f"{6 * 7} answers are kept in\\n a.partial")
    signal.raise_signal(signal.SIGINT)
command(run)
"""
    said(ended(code, tmp_path), "42 answers are kept in a.partial")


def test_an_event_loop_is_ended_by_cancelling_what_runs_in_it(tmp_path: Path) -> None:
    code = """
import asyncio
async def wait():
    try:
        await asyncio.sleep(600)
    finally:
        print("closed", flush=True)
async def ask():
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(wait())
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
command(lambda: asyncio.run(ask()))
"""
    done = ended(code, tmp_path)
    assert done.stdout == "closed\n" * 3
    said(done, NOTHING)


def test_an_interrupt_that_got_lost_is_sent_again(tmp_path: Path) -> None:
    code = """
import time
class Lost:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
def run():
    lost = Lost()
    del lost
    time.sleep(600)
command(run)
"""
    said(ended(code, tmp_path), NOTHING)


def test_what_other_code_makes_of_an_interrupt_is_still_an_interrupt(tmp_path: Path) -> None:
    code = """
def run():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise SystemError("error return without exception set") from None
command(run)
"""
    said(ended(code, tmp_path), NOTHING)


@pytest.mark.parametrize(("patience", "printed"), [(600.0, "cleaned\n"), (-1.0, "")])
def test_another_interrupt_waits_for_the_cleaning_up_but_not_for_ever(
    patience: float, printed: str, tmp_path: Path
) -> None:
    code = f"""
interruption.PATIENCE = {patience}
def run():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)
        print("cleaned", flush=True)
command(run)
"""
    done = ended(code, tmp_path)
    assert done.stdout == printed
    said(done, NOTHING)


def test_signals_that_are_to_be_ignored_are_ignored(tmp_path: Path) -> None:
    """As of a job that a script starts in the background."""
    code = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
def run():
    signal.raise_signal(signal.SIGINT)
    print("went on")
command(run)
"""
    done = ended(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (DONE.number, "went on\n", "")


def test_after_the_end_nothing_changes_the_status(tmp_path: Path) -> None:
    code = """
import atexit
atexit.register(signal.raise_signal, signal.SIGINT)
command(lambda: print("done"))
"""
    done = ended(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (DONE.number, "done\n", "")


def test_what_a_command_starts_is_deaf_but_no_interrupt_is_lost(tmp_path: Path) -> None:
    code = """
from multiprocessing import forkserver
from detect.corpus.engines.forkserver import start_early
def run():
    ensure = forkserver.ensure_running
    forkserver.ensure_running = lambda: (ensure(), os.kill(os.getpid(), signal.SIGINT))
    start_early()
    print("went on")
command(run)
"""
    done = ended(code, tmp_path)
    assert done.stdout == ""
    said(done, NOTHING)


@pytest.mark.parametrize("where", ["import heavy", "signal.raise_signal(signal.SIGINT)"])
def test_the_process_that_workers_come_from_leaves_no_socket(where: str, tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    (tmp_path / "tmp").mkdir()
    code = f"""
import tempfile
tempfile.tempdir = "tmp"
from detect.corpus.engines.forkserver import start_early
def run():
    start_early()
    {where}
command(run)
"""
    said(ended(code, tmp_path), NOTHING)
    assert not any((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("where", ["import heavy", "signal.raise_signal(signal.SIGTERM)", "print('went on')"])
def test_what_a_command_has_started_is_ended_with_it(where: str, tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\n")
    code = f"""
def run():
    interruption.ends(lambda at_once: print("ended", flush=True))
    {where}
command(run)
"""
    done = ended(code, tmp_path)
    if "went on" in where:
        assert (done.returncode, done.stdout) == (DONE.number, "went on\n")
        return
    assert done.stdout == "ended\n"
    said(done, NOTHING, TERMINATED.number)


@pytest.mark.parametrize("stream", ["closed", "full"])
def test_tables_that_nobody_takes_are_one_line(stream: str, tmp_path: Path) -> None:
    code = """
from detect.cli.publishing import result_console
command(lambda: [result_console().print("row " * 50) for _ in range(9_000)])
"""
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") if stream == "full" else open(writer, "w") as output:
        done = ended(code, tmp_path, stdout=output.fileno())
    assert done.returncode == MACHINE.number
    says = "cannot write standard output: No space left on device" if stream == "full" else "standard output was closed"
    assert done.stderr.startswith(f"dyetrace: {says}") and done.stderr.count("\n") == 1
    if stream == "full":
        os.close(writer)


@pytest.mark.usefixtures("smollm2_dir")
@pytest.mark.filterwarnings("default")
def test_real_commands_lose_nothing_at_any_moment(tmp_path: Path) -> None:
    from benchmarks.interrupts import main

    figures = tmp_path / "figures.json"
    done = CliRunner().invoke(main, ["--quick", "--json", str(figures)])
    assert done.exit_code == 0, done.output
    rows = json.loads(figures.read_text())["rows"]
    assert {row["signal"] for row in rows} == {"kill", "ctrl-c", "sigterm"}
    assert not any(row["faults"] for row in rows), done.output


def test_the_handlers_are_not_there_for_who_uses_the_packages() -> None:
    code = "import signal, detect.cli\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n" and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ledgers_that_are_read_can_be_waited_for_no_longer(tmp_path: Path) -> None:
    """As where one of them is a pipe."""
    code = """
from watermark import ledger_file
ledger_file.open_file = lambda path, write: signal.raise_signal(signal.SIGINT) or print("went on")
sys.argv = ["dyetrace", "ledger", "merge", "a.ledger", "b.ledger", "-o", "c.ledger"]
start()
"""
    done = ended(code, tmp_path)
    said(done, NOTHING)
    assert done.stdout == "" and not list(tmp_path.glob("*c.ledger*"))


def test_a_signal_just_as_a_command_ends_is_no_traceback(tmp_path: Path) -> None:
    code = """
end = interruption.end
def interrupted():
    interruption.end = end
    signal.raise_signal(signal.SIGINT)
interruption.end = interrupted
command(lambda: None)
"""
    said(ended(code, tmp_path), NOTHING)


def test_a_scan_that_has_no_place_to_write_says_so_once(tmp_path: Path) -> None:
    """Its fork server loads machine code beside it, which writes some bytes, and keeps quiet."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import detect.corpus.engines.warm
"""
    done = ended(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
