"""Partial files: the same command goes on, another is refused, and nothing that was written is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from watermark.errors import DyetraceError
from watermark.files.partial import PartialFile, partial_paths

SETTINGS = {"prompts": "a", "seed": "1"}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def started(target: Path, *groups: bytes, group: int = 2) -> bytes:
    """Write groups and stop; return the run's random bytes."""
    with PartialFile(target, SETTINGS, group) as partial:
        for lines in groups:
            partial.append(lines)
        return partial.run


def test_the_lines_become_the_target_when_they_are_whole(target: Path) -> None:
    with PartialFile(target, SETTINGS, 2) as partial:
        partial.append(b"a\nb\n")
        assert not target.exists()
        partial.append(b"c\n")
        partial.finish()
    assert target.read_bytes() == b"a\nb\nc\n"
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("torn", [b"", b"c", b"c\n", b"c\nd"])
def test_the_same_command_goes_on_behind_the_last_whole_group(target: Path, torn: bytes) -> None:
    run = started(target, b"a\nb\n")
    with partial_paths(target)[0].open("ab") as file:
        file.write(torn)
    with PartialFile(target, SETTINGS, 2) as partial:
        assert (partial.groups, partial.run) == (1, run)
        partial.append(b"C\nD\n")
        partial.finish()
    assert target.read_bytes() == b"a\nb\nC\nD\n"


def test_each_new_output_draws_its_own_random_bytes(target: Path) -> None:
    runs = {started(target.with_name(f"{number}")) for number in range(3)}
    assert len(runs) == 3 and all(len(run) == 32 for run in runs)


def test_another_command_is_refused_and_told_what_differs(target: Path) -> None:
    started(target, b"a\nb\n")
    before = [path.read_bytes() for path in partial_paths(target)]
    with pytest.raises(DyetraceError, match=r"out\.jsonl\.partial holds the beginning .*\(seed differ\)"):
        PartialFile(target, SETTINGS | {"seed": "2"}, 2)
    assert [path.read_bytes() for path in partial_paths(target)] == before


def test_two_at_once_do_not_mix(target: Path) -> None:
    with PartialFile(target, SETTINGS, 1) as partial:
        partial.append(b"a\n")
        with pytest.raises(DyetraceError, match=r"another dyetrace is writing .*out\.jsonl\.partial"):
            PartialFile(target, SETTINGS, 1)
        partial.append(b"b\n")
        partial.finish()
    assert target.read_bytes() == b"a\nb\n"


def test_a_lock_ends_with_its_process(target: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from watermark.files.partial import PartialFile\n"
        f"p = PartialFile(Path({str(target)!r}), {SETTINGS!r}, 1); p.append(b'a\\n'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    with PartialFile(target, SETTINGS, 1) as partial:
        assert partial.groups == 1


@pytest.mark.parametrize(("which", "data"), [(0, b""), (0, b"precious"), (1, b"precious"), (1, b'{"format": "x"}')])
def test_a_foreign_file_in_the_way_is_left_alone(target: Path, which: int, data: bytes) -> None:
    path = partial_paths(target)[which]
    path.write_bytes(data)
    with pytest.raises(DyetraceError, match="is in the way"):
        PartialFile(target, SETTINGS, 1)
    assert path.read_bytes() == data and os.listdir(target.parent) == [path.name]


def test_a_link_in_the_way_is_not_followed(target: Path) -> None:
    elsewhere = target.with_name("elsewhere")
    elsewhere.write_text("precious")
    for path in partial_paths(target):
        path.symlink_to(elsewhere)
    with pytest.raises(DyetraceError):
        PartialFile(target, SETTINGS, 1)
    assert elsewhere.read_text() == "precious"


def test_settings_without_lines_are_what_a_crash_leaves_and_are_replaced(target: Path) -> None:
    started(target)
    partial_paths(target)[0].unlink()
    with PartialFile(target, SETTINGS | {"seed": "2"}, 1) as partial:
        assert partial.groups == 0


def test_a_full_disk_keeps_every_whole_group(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PartialFile(target, SETTINGS, 1) as partial:
        partial.append(b"first\n")
        write = os.write

        def full(descriptor: int, data: bytes) -> int:
            if len(data) > 3:
                return write(descriptor, data[:3])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(DyetraceError, match=r"No space left on device; what was written is kept"):
            partial.append(b"sec\n")
        assert partial.path.read_bytes() == b"first\n"


def test_a_target_that_came_meanwhile_stays_and_so_do_the_lines(target: Path) -> None:
    with PartialFile(target, SETTINGS, 1) as partial:
        partial.append(b"a\n")
        target.write_text("precious")
        with pytest.raises(DyetraceError, match=r"exists already.*its lines are whole in .*\.partial"):
            partial.finish()
    assert target.read_text() == "precious" and partial.path.read_bytes() == b"a\n"


def test_an_earlier_target_is_there_until_the_new_one_is_whole(target: Path) -> None:
    target.write_text("old")
    with PartialFile(target, SETTINGS, 1, replace=True) as partial:
        partial.append(b"new\n")
        assert target.read_text() == "old"
        partial.finish()
    assert target.read_text() == "new\n"
