"""The hash of dyetrace's code: what a shell prints, the same for the same files and for nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import detect
from detect.records.code_hash import SHELL, code_sha256, hash_of


def in_shell(folder: Path) -> str:
    done = subprocess.run(["sh", "-c", SHELL], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def some_code(folder: Path) -> Path:
    for name in ("detect/a.py", "detect/sub/b.py", "detect/sub-c.py", "watermark/z.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")
    return folder


def test_a_shell_gives_the_hash_of_the_code_that_runs() -> None:
    folder = Path(detect.__file__).parents[1]
    assert in_shell(folder) == hash_of(folder) == code_sha256()
    assert re.fullmatch("[0-9a-f]{64}", code_sha256())


def test_the_hash_is_that_of_all_code_and_of_nothing_else(tmp_path: Path) -> None:
    folder = some_code(tmp_path)
    before = hash_of(folder)
    assert before == in_shell(folder)
    (folder / "detect" / "__pycache__").mkdir()
    (folder / "detect" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"anything")
    (folder / "detect" / "page.html").write_text("a template")
    (folder / "tests").mkdir()
    (folder / "tests" / "t.py").write_text("a test")
    (folder / "detect" / "link.py").symlink_to(folder / "tests" / "t.py")
    assert hash_of(folder) == before == in_shell(folder)
    (folder / "detect" / "sub" / "b.py").rename(folder / "detect" / "sub" / "c.py")
    assert hash_of(folder) not in (before, "") and hash_of(folder) == in_shell(folder)
