"""The version that reports name: that of the tag or the commit, and of a tree without git one that says neither."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from click.testing import CliRunner

from detect.cli.main import main
from detect.records.report import versions

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; print(build_meta.prepare_metadata_for_build_wheel('built'))"


def tree(folder: Path) -> Path:
    """A copy of what the metadata are made from, and no more."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for package in ("detect", "watermark"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    return folder


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def built(folder: Path) -> str:
    """The version of the distribution that is built there."""
    shutil.rmtree(folder / "built", ignore_errors=True)
    (folder / "built").mkdir()
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"dyetrace-(.+)\.dist-info", done.stdout.split()[-1])
    assert found is not None
    return found.group(1)


def test_a_clone_names_its_commit_and_a_release_its_tag(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    (folder / ".gitignore").write_text("*.egg-info/\nbuilt/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    assert re.fullmatch(rf"[\d.]+\.dev1\+g{git(folder, 'rev-parse', 'HEAD')[:7]}[0-9a-f]*", built(folder))
    git(folder, "tag", "v7.5.3")
    assert built(folder) == "7.5.3"
    (folder / "detect" / "__init__.py").write_text("changed = True\n")
    assert built(folder) not in ("7.5.3", "7.5.4")


def test_a_copy_without_git_names_no_commit(tmp_path: Path) -> None:
    assert built(tree(tmp_path)) == "0.1.0.dev0"


def test_the_command_and_its_reports_name_the_version_that_is_installed() -> None:
    assert CliRunner().invoke(main, ["--version"]).output.split()[-1] == version("dyetrace") == versions()["dyetrace"]
