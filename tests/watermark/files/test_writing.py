"""Files are written whole or not at all."""

import errno
import os
import stat

import pytest

from watermark.errors import DyetraceError
from watermark.files.writing import make_folder, write_atomically


def mode_of(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """Sets the process's mask for one test."""
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("mask, expected", [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
def test_a_new_file_has_the_mode_that_the_user_asks_for(tmp_path, umask, mask, expected):
    umask(mask)
    write_atomically(tmp_path / "a", b"")
    assert mode_of(tmp_path / "a") == expected
    assert os.umask(mask) == mask  # as it was


def test_a_secret_file_is_its_owners_alone_whatever_the_mask(tmp_path, umask):
    umask(0)
    write_atomically(tmp_path / "a", b"", mode=0o600)
    assert mode_of(tmp_path / "a") == 0o600


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, step, full)
    with pytest.raises(DyetraceError, match=r"^cannot write .*/a: No space left on device$"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_an_interrupt_passes_and_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    path = tmp_path / "a"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_missing_folder_or_a_folder_in_the_way_is_one_line(tmp_path):
    with pytest.raises(DyetraceError, match=r"cannot write .*: No such file or directory"):
        write_atomically(tmp_path / "missing" / "a", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DyetraceError, match=r"cannot write .*folder: Is a directory"):
        write_atomically(tmp_path / "folder", b"")
    assert os.listdir(tmp_path) == ["folder"]


def test_make_folder(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(DyetraceError, match=r"cannot make folder .*file: "):
        make_folder(tmp_path / "file")
