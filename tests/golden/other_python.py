"""What another Python, and other numpy, scipy and pyarrow, must give again: run by them, on the reports in this folder.

``python tests/golden/other_python.py FOLDER`` recomputes the golden reports, makes a detection and a scan of the same
files, and leaves what they say in FOLDER. Compare two such folders with ``--compare FOLDER FOLDER``. It needs dyetrace
alone, and neither pytest nor torch.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECRET = b"a key that everybody knows......"
TOLERANCE = 1e-9
"""Relative difference up to which floats are the same: their last bits are those of the machine's own exp and log."""
_OF_THE_RUN = ("versions", "created", "made", "how_to_check", "encoder", "files")
"""What names the versions, the code and the time; and hashes of files, as Parquet's bytes are pyarrow's."""
_LEFT = ("detection.json", "scan.json", "documents.json")


def run(*words: str, within: Path) -> str:
    """A command of the Python that runs this; its standard output."""
    command = [sys.executable, "-m", "detect.cli", *words]
    environment = os.environ | {"DYETRACE_GOLDEN_KEY": SECRET.hex(), "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=within, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{sys.version.split()[0]}: dyetrace {' '.join(words)}: status {done.returncode}\n{done.stderr}")
    return done.stdout


def leave(folder: Path) -> None:
    """Recompute the golden reports, and write two new ones."""
    work = folder / "work"
    import pyarrow.parquet

    shutil.copytree(HERE, work, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    how = ("--key", "env:DYETRACE_GOLDEN_KEY")
    for name in ("detection", "scan", "trace", "twins", "race"):
        files = () if name in ("trace", "twins", "race") else ("--tokenizer", "tokenizer.json", "--inputs", ".")
        said = run("recompute", f"{name}/report.json", *how, *files, within=work)
        if "every number the same" not in said:
            sys.exit(f"{name}: {said}")
        print(f"{sys.version.split()[0]}: {name}: {said.strip()}")
    options: tuple[str, ...] = (*how, "--spec", "spec.json", "--tenant", "acme", "--tenant", "zenith", "--decoys", "20")
    options = ("documents.jsonl", *options, "--tokenizer", "tokenizer.json", "--json")
    scan = ("--reference", "answers.jsonl", "--workers", "1", "--no-pdf", "-o", "new")
    (folder / "detection.json").write_text(run("detect", *options, within=work))
    (folder / "scan.json").write_text(run("scan", *options, *scan, within=work))
    rows = pyarrow.parquet.read_table(work / "new" / "documents.parquet").to_pylist()
    (folder / "documents.json").write_text(json.dumps(rows))


def compare(one: Path, other: Path) -> int:
    """Print where two folders differ; return the status: 0 where they say the same."""
    different: list[str] = []
    for name in _LEFT:
        a, b = (json.loads((folder / name).read_text()) for folder in (one, other))
        last_bits = 0
        for place, x, y in _differences(a, b, ()):
            if isinstance(x, float) and isinstance(y, float) and math.isclose(x, y, rel_tol=TOLERANCE):
                last_bits += 1
            else:
                different.append(f"{name}: {'.'.join(map(str, place))}: {x!r} and {y!r}")
        print(f"{name}: {last_bits} floats differ in their last bits, by less than {TOLERANCE:g} of themselves")
    for line in different[:20]:
        print(line)
    return bool(different)


def _differences(a: Any, b: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            if key not in _OF_THE_RUN:
                yield from _differences(a[key], b[key], (*place, key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _differences(x, y, (*place, number))
    elif a != b or type(a) is not type(b):
        yield place, a, b


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        sys.exit(compare(Path(sys.argv[2]), Path(sys.argv[3])))
    leave(Path(sys.argv[1]).absolute())
