"""Machine code is kept where it can be, and a machine where it can't be kept is slower and no worse."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from watermark.backends import machine_code

ROOT = Path(__file__).parents[3]
CODE = """
import numpy as np
from watermark.formats.parts.congruence import accumulate  # one that is soon compiled
states = np.zeros(3, dtype=np.int64)
accumulate(states, np.zeros((3, 2), dtype=np.int64), np.arange(3))
assert states[1] - states[0] == 6364136223846793005
print(accumulate._cache.cache_path)
"""


@pytest.fixture
def unwritable(tmp_path: Path) -> dict[str, str]:
    """A copy of the package beside which nothing can be written, without a home; root's permissions don't bind."""
    shutil.copytree(ROOT / "watermark", tmp_path / "copy" / "watermark", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [tmp_path / "copy" / "watermark", *(tmp_path / "copy" / "watermark").rglob("*")]:
        if folder.is_dir():
            (folder / "__pycache__").touch()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return kept | {
        "HOME": "/dev/null",
        "PYTHONPATH": str(tmp_path / "copy"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": "/dev/null/numba",
        "TMPDIR": str(tmp_path / "tmp"),
    }


def run(environment: dict[str, str], code: str = CODE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=False
    )


def test_without_a_home_it_is_kept_in_a_temporary_folder_of_this_user_alone(
    unwritable: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    done = run(unwritable)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    folder = tmp_path / "tmp" / f"dyetrace-{os.getuid()}"
    assert Path(done.stdout.strip()).is_relative_to(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and list(folder.rglob("*.nbc"))


@pytest.mark.parametrize("name", ["DYETRACE_CACHE", "XDG_CACHE_HOME"])
def test_a_folder_that_the_user_names_comes_first(unwritable: dict[str, str], tmp_path: Path, name: str) -> None:
    (tmp_path / "tmp").mkdir()
    done = run(unwritable | {name: str(tmp_path / "mine")})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "mine")
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.parametrize("place", ["open to all", "a link", "a file"])
def test_a_folder_that_others_can_write_is_not_used_and_is_warned_of_once(
    unwritable: dict[str, str], tmp_path: Path, place: str
) -> None:
    (tmp_path / "tmp").mkdir()
    folder = tmp_path / "tmp" / f"dyetrace-{os.getuid()}"
    if place == "open to all":
        folder.mkdir()
        folder.chmod(0o777)
    elif place == "a link":
        (tmp_path / "theirs").mkdir()
        folder.symlink_to(tmp_path / "theirs")
    else:
        folder.touch()
    done = run(unwritable, CODE.replace("accumulate._cache.cache_path", "accumulate._cache"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1 and "set DYETRACE_CACHE" in done.stderr
    assert not [path for path in tmp_path.rglob("*.nb?")]


def test_a_full_disk_costs_the_machine_code_alone() -> None:
    class Full:
        def save_overload(self, *_: object) -> None:
            raise OSError(28, "No space left on device")

    cache = Full()
    machine_code._forgive(cache)
    cache.save_overload("signature", "code")


def test_the_command_runs_without_a_home(unwritable: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    shutil.copytree(ROOT / "detect", tmp_path / "copy" / "detect", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"from detect.cli.main import main; main(['keygen', {str(tmp_path / 'a.key')!r}])"
    done = run(unwritable, f"import watermark.engines.hook.hook, detect.keyed.scoring; {code}")
    assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr
