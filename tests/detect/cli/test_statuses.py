"""Each way to end has its status, the same for every command, and the documentation has the same table."""

from __future__ import annotations

import ast
import errno
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner, Result

import detect.cli.start
from detect.cli.main import main
from detect.cli.publishing import end_by_verdict
from detect.cli.reading import read_names
from detect.cli.statuses import (
    BAD_INPUT,
    DOES_NOT_HOLD,
    FOUND,
    INTERNAL,
    INTERRUPTED,
    MACHINE,
    STATUSES,
    UNDECIDED,
    status_of,
    table,
)
from watermark.errors import DyetraceError, EvidenceError, MachineError, UndecidedError, refused_write
from watermark.keys import SecretKey, write_key_file

ROOT = Path(__file__).resolve().parents[3]


def test_the_documentation_has_the_table_that_the_commands_have() -> None:
    page = (ROOT / "docs" / "exit-statuses.md").read_text()
    assert f"\n{table()}\n" in page
    numbers = [status.number for status in STATUSES]
    assert numbers == sorted(set(numbers))
    assert (detect.cli.start.INTERNAL, detect.cli.start.MACHINE) == (INTERNAL.number, MACHINE.number)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException | int]]:
    """A command that ends as it is told to, among those of `dyetrace`."""
    how: list[BaseException | int] = []

    @click.command("end")
    @click.option("--number", type=int)
    def end(number: int | None) -> None:
        if isinstance(how[0], BaseException):
            raise how[0]

    monkeypatch.setitem(main.commands, "end", end)
    yield how


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


class PanicError(BaseException):
    """As packages that are written in Rust raise where they fail."""


SECRET = "a key that stood in a message"
ENDS: list[tuple[BaseException, int, str]] = [
    (DyetraceError("wrong"), BAD_INPUT.number, "dyetrace: wrong\n"),
    (EvidenceError("forged"), DOES_NOT_HOLD.number, "dyetrace: forged\n"),
    (UndecidedError("too little"), UNDECIDED.number, "dyetrace: too little\n"),
    (MachineError("no network"), MACHINE.number, "dyetrace: no network\n"),
    (OSError(errno.ENOSPC, "No space left", "a/b"), MACHINE.number, "dyetrace: a/b: No space left\n"),
    (MemoryError(), MACHINE.number, "dyetrace: there is not enough memory"),
    (RuntimeError("cpu: can't allocate memory"), MACHINE.number, "dyetrace: there is not enough memory"),
    (ImportError("a.so: failed to map segment"), MACHINE.number, "dyetrace: there is not enough memory"),
    (ImportError("no b.so", name="scipy.b"), MACHINE.number, "dyetrace: cannot load a package (no b.so); install"),
    (ImportError(SECRET, name="detect.b"), INTERNAL.number, "dyetrace: internal error: ImportError at "),
    (PanicError(SECRET), INTERNAL.number, "dyetrace: internal error: PanicError at "),
    (click.UsageError("no"), BAD_INPUT.number, "Usage: "),
    (click.FileError("x", "no"), BAD_INPUT.number, "Error: "),
    (KeyboardInterrupt(), INTERRUPTED.number, "dyetrace: interrupted; nothing was written; run the same command"),
    (TypeError(SECRET), INTERNAL.number, "dyetrace: internal error: TypeError at "),
    (ExceptionGroup("several", [KeyError(SECRET)]), INTERNAL.number, "dyetrace: internal error: KeyError at "),
]  # fmt: skip


@pytest.mark.parametrize(("how", "status", "said"), ENDS, ids=lambda value: type(value).__name__)
def test_each_way_to_end_has_its_status_and_its_line(
    how: BaseException, status: int, said: str, ends: list[BaseException | int]
) -> None:
    ends.append(how)
    result = run("end")
    assert result.exit_code == status and result.stderr.startswith(said), result.output
    assert SECRET not in result.output and "Traceback" not in result.output
    if not isinstance(how, click.ClickException):
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("how", ["2>&-", "", "2>/dev/full", "2>&- <&-"])
def test_a_reader_that_left_changes_no_status(how: str) -> None:
    """Python has a status of its own, 120, for what standard output doesn't take at the very end."""
    begun = f"({sys.executable} -m detect.cli recompute {how}; echo $? >&3) 3>&1 >/dev/full"
    ended = subprocess.run(["bash", "-c", begun], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "2\n", ended
    shown = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m detect.cli recompute 2>&-"], cwd=ROOT, capture_output=True, text=True
    )
    assert (shown.returncode, shown.stdout) == (2, "")


def test_a_key_is_not_taken_for_names_of_accounts(tmp_path: Path) -> None:
    write_key_file(tmp_path / "owner.key", SecretKey(bytes(range(32))))
    (tmp_path / "link").symlink_to(tmp_path / "owner.key")
    with pytest.raises(DyetraceError, match=r"--tenants-file .* is a key") as caught:
        read_names(tmp_path / "link")
    assert (tmp_path / "owner.key").read_text().strip() not in str(caught.value)


def test_options_that_are_no_options_are_bad_input() -> None:
    for arguments in (["--nope"], ["nope"], ["detect"], ["scan", "--alpha", "x"], ["keygen", "a", "--epoch", "-1"]):
        assert run(*arguments).exit_code == BAD_INPUT.number, arguments


def test_a_fault_of_dyetrace_shows_where_it_is_and_the_details_when_they_are_asked_for(
    ends: list[BaseException | int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.append(TypeError(SECRET))
    line = run("end").stderr
    assert "DYETRACE_TRACEBACK=1" in line and "this is a fault of dyetrace, not of your input" in line
    assert re.search(r"at detect/\S+\.py:\d+ in \w+; ", line), line
    monkeypatch.setenv("DYETRACE_TRACEBACK", "1")
    details = run("end").stderr
    assert "Traceback" in details and SECRET in details and details.splitlines()[-1] == line.strip()


def test_what_the_machine_refuses_is_told_apart_from_paths_that_can_be_no_output() -> None:
    assert isinstance(refused_write("cannot write a", OSError(errno.ENOSPC, "No space left on device")), MachineError)
    assert isinstance(refused_write("cannot write a", OSError(errno.EACCES, "Permission denied")), MachineError)
    for number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
        assert status_of(refused_write("cannot write a", OSError(number, "no"))) is BAD_INPUT


@pytest.mark.parametrize(
    ("found", "withheld", "status"),
    [(True, None, FOUND), (False, None, None), (False, "a control is marked", UNDECIDED), (True, "x", FOUND)],
)
def test_fail_tells_found_from_not_found_and_from_no_verdict(
    found: bool, withheld: str | None, status: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command("verdict")
    def verdict() -> None:
        end_by_verdict(found, withheld)

    monkeypatch.setitem(main.commands, "verdict", verdict)
    result = run("verdict")
    assert result.exit_code == (0 if status is None else getattr(status, "number"))  # noqa: B009
    assert result.stderr.count("\n") == (1 if status is UNDECIDED else 0)
    assert withheld is None or found or withheld in result.stderr


def test_packages_that_cannot_be_loaded_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "click.py").write_text("raise ImportError('No module named click')\n")
    code = "import sys; sys.path.insert(0, '.'); from detect.cli.start import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == MACHINE.number
    assert done.stderr.startswith("dyetrace: cannot load its packages (No module named click); ")
    assert done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------- what messages advise


def messages() -> Iterator[tuple[Path, int, str]]:
    """The texts of all errors that are made in the source, {...} for what is filled in."""
    for folder in ("detect", "watermark"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Error", "Unwritten", "say")):
                    for part in ast.walk(node):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            yield path, node.lineno, part.value


def all_commands(group: click.Group = main) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from all_commands(command)
        elif command.name == "spec":
            yield cast(Any, command).instead["import"]


# Of other programs: vLLM's and pip's own.
FOREIGN = {"--logits-processors", "--watermark-config", "--merge"}


def test_every_option_that_a_message_names_is_one() -> None:
    known = {name for command in all_commands() for p in command.params for name in (*p.opts, *p.secondary_opts)}
    named = [
        (f"{path.relative_to(ROOT)}:{line}", name)
        for path, line, text in messages()
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
    ]
    assert len(named) > 60
    assert [(where, name) for where, name in named if name not in known | FOREIGN] == []


def test_every_extra_and_command_that_a_message_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {command.name for command in all_commands()} | set(main.commands)
    for path, line, text in messages():
        where = f"{path.relative_to(ROOT)}:{line}: {text}"
        for extra in re.findall(r"dyetrace\[([\w-]+)\]", text):
            assert extra in extras, where
        for command in re.findall(r"`dyetrace ([a-z-]+)", text):
            assert command in names, where
