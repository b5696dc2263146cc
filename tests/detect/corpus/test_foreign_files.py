"""Nothing that a scan did not make is ever removed or changed: not by --work, a failure, a kill or what comes after."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from detect.corpus.scan import scan
from detect.corpus.work import WORK
from tests.detect.corpus.marked import InlineEngine, documents, write_jsonl
from tests.detect.corpus.test_scan import command, corpus, job, report, stopped  # noqa: F401 (a fixture)
from watermark.errors import DyetraceError

FOREIGN = (
    "notes.txt", ".hidden", ".git/config", ".git/objects/ab/cdef", "project/main.py", "project/.venv/.lock",
    "gathered/x.npz", "settled/.part", "reference/plan.json", "plan.json", "lock", ".work/thesis.doc",
    ".dyetrace-mine/.secret", "dyetrace-scan/data.bin",
)  # fmt: skip
INSIDE = ("mine.txt", ".git/config", "gathered/mine.npz", "gathered/.mine/a", "scored/mine.json", "null/.cache/x")


def plant(folder: Path, names: tuple[str, ...] = FOREIGN) -> dict[Path, bytes]:
    """Foreign files below a folder, each with a content of its own; a link out of it among them."""
    made = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{path} is somebody's own".encode())
        made[path] = path.read_bytes()
    return made


def assert_untouched(planted: dict[Path, bytes]) -> None:
    lost = [str(path) for path, data in planted.items() if not path.is_file() or path.read_bytes() != data]
    assert not lost


@pytest.fixture
def places(corpus: Path, tmp_path: Path) -> tuple[Path, Path, Path, dict[Path, bytes]]:  # noqa: F811
    """Inputs, output and work folders full of foreign files; the inputs are among what must stay."""
    data, output, work = tmp_path / "data", tmp_path / "out", tmp_path / "work"
    shutil.copytree(corpus, data)
    planted = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    for folder in (data, output, work):
        planted |= plant(folder)
    return data, output, work, planted


@pytest.mark.parametrize("own_work", [True, False])
@pytest.mark.parametrize("keep_work", [True, False])
def test_a_scan_removes_its_own_files_and_no_other(
    places: tuple[Path, Path, Path, dict[Path, bytes]], own_work: bool, keep_work: bool
) -> None:
    data, output, work, planted = places
    where = work if own_work else output
    for _ in range(2):  # the second scan finds what the first has left
        scan(job(data), output, InlineEngine(), work=work if own_work else None, keep_work=keep_work)
        assert_untouched(planted)
        assert (where / WORK).exists() == keep_work
    scan(job(data), output, InlineEngine(), work=work if own_work else None)
    assert not (where / WORK).exists()
    assert_untouched(planted)


def test_files_that_were_put_into_the_work_folder_stay(places: tuple[Path, Path, Path, dict[Path, bytes]]) -> None:
    data, output, work, planted = places
    scan(job(data), output, InlineEngine(), work=work, keep_work=True)
    planted |= plant(work / WORK, INSIDE)
    (work / WORK / "gathered" / "elsewhere").symlink_to(data)
    scan(job(data), output, InlineEngine(), work=work)
    assert_untouched(planted)
    left = {path for path in (work / WORK).rglob("*") if path.is_file() and not path.is_symlink()}
    assert {path.relative_to(work / WORK).as_posix() for path in left} == {*INSIDE, "DYETRACE"}


def test_a_failing_scan_removes_nothing_that_is_not_its_own(
    places: tuple[Path, Path, Path, dict[Path, bytes]],
) -> None:
    data, output, work, planted = places
    broken = data / "broken.jsonl"
    broken.write_bytes((data / "data" / "a.jsonl").read_bytes() + b"{broken\n")
    for _ in range(2):
        with pytest.raises(DyetraceError, match="line 61"):
            scan(job(data, str(broken)), output, InlineEngine(), work=work)
    assert_untouched(planted)


@pytest.mark.parametrize("what", ["folder", "link", "file"])
def test_what_has_the_work_folders_name_and_is_not_dyetraces_is_refused(
    places: tuple[Path, Path, Path, dict[Path, bytes]], what: str
) -> None:
    data, output, work, planted = places
    if what == "folder":
        planted |= plant(work / WORK)
    elif what == "link":
        (work / WORK).symlink_to(data)
    else:
        planted |= plant(work, (WORK,))
    with pytest.raises(DyetraceError, match=f"{WORK}.*(not made by dyetrace|File exists)"):
        scan(job(data), output, InlineEngine(), work=work)
    assert_untouched(planted)


def test_a_killed_scan_goes_on_to_the_same_bytes_and_no_foreign_file_is_lost(
    places: tuple[Path, Path, Path, dict[Path, bytes]], tmp_path: Path
) -> None:
    data, output, work, planted = places
    scan(job(data), tmp_path / "expected", InlineEngine())
    more = ("--work", str(work), "--workers", "2")
    process = stopped("distinct.json", 1, data, output, *more)  # half of it is done
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert_untouched(planted)
    planted |= plant(work / WORK, INSIDE)
    half = work / WORK / "gathered" / f".{'0' * 32}.1.00000000"  # as a killed task leaves it
    half.mkdir()
    (half / "0.ids16").touch()
    subprocess.run(command(data, output, *more), check=True, capture_output=True)
    assert_untouched(planted)
    assert not half.exists()
    assert report(output)[1:] == report(tmp_path / "expected")[1:]  # report.json has the command's own arguments


def test_a_work_folder_that_was_half_made_is_taken(corpus: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / ".dyetrace-ab_cd123").touch()
    scan(job(corpus, str(write_jsonl(tmp_path / "x.jsonl", documents(3, 50, 1)))), tmp_path / "out", InlineEngine(),
         work=tmp_path)  # fmt: skip
    assert not (tmp_path / WORK).exists()
