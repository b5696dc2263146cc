"""Whatever the machine or a file refuses is one line: no traceback, and no result is lost or half written."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detect.cli.statuses import BAD_INPUT, MACHINE, Status
from detect.corpus.work import WORK
from detect.report.verification import verify_report
from tests.detect.corpus.marked import SECRET, documents, spec, write_jsonl
from watermark.keys import write_key_file
from watermark.spec import write_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("failures")
    write_key_file(made / "owner.key", SECRET)
    write_spec(made / "spec.json", spec())
    write_jsonl(made / "ids.jsonl", [*documents(20, 160, 1), *documents(8, 160, 2, spec())])
    done = run("scan", "ids.jsonl", *keys(), "-o", "scan", "--no-pdf", "--workers", "1", within=made)
    assert done.returncode == 0, done.stderr
    return made


def keys() -> list[str]:
    return ["--spec", "spec.json", "--key", "file:owner.key"]


def run(*arguments: str, within: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "detect.cli", *arguments]
    options = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=within, check=False, timeout=120, **options)


def one_line(done: subprocess.CompletedProcess[str], *says: str, status: Status = MACHINE) -> None:
    assert done.returncode == status.number, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("dyetrace: ")]
    assert len(told) == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(word in told[0] for word in says), told[0]


def scan(folder: Path, output: Path, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run("scan", "ids.jsonl", *keys(), "-o", str(output), "--no-pdf", *more, within=folder, **options)


# ------------------------------------------------------------------------------------------------ standard output


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_report_is_whole_though_standard_output_takes_nothing(form: list[str], folder: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = scan(folder, tmp_path / "a", *form, "--workers", "1", stdout=full)
    one_line(done, "cannot write standard output: No space left on device", "the report is in")
    reader, writer = os.pipe()
    os.close(reader)
    done = scan(folder, tmp_path / "b", *form, "--workers", "1", stdout=writer)
    os.close(writer)
    one_line(done, "standard output was closed", "the report is in")
    for name in ("a", "b"):
        assert verify_report(tmp_path / name / "report.json", inputs=folder).holds


def test_a_closed_standard_input_holds_no_text(folder: Path) -> None:
    command = f'exec "{sys.executable}" -m detect.cli detect - --spec spec.json --key file:owner.key <&-'
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    one_line(done, "standard input is closed", status=BAD_INPUT)


# ----------------------------------------------------------------------------------------------------------- disks


def limited(size: int) -> Callable[[], None]:
    """No file may grow beyond so many bytes, as on a disk that is full then."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_disk_that_fills_up_under_the_work_is_one_line_and_the_scan_goes_on_later(
    workers: str, folder: Path, tmp_path: Path
) -> None:
    work = ["--work", str(tmp_path / "work"), "--workers", workers]
    one_line(scan(folder, tmp_path / "out", *work, preexec_fn=limited(12_000)), WORK, "is kept")
    assert not (tmp_path / "out" / "report.json").exists()
    assert scan(folder, tmp_path / "out", *work).returncode == 0
    assert (tmp_path / "out" / "documents.parquet").read_bytes() == (folder / "scan" / "documents.parquet").read_bytes()


def test_a_disk_that_fills_up_under_the_report_takes_no_result_with_it(folder: Path, tmp_path: Path) -> None:
    """Everything fits but report.html, which is the largest: report.json is whole, and the result is printed."""
    largest = (folder / "scan" / "report.html").stat().st_size
    others = [path.stat().st_size for path in (folder / "scan").iterdir() if path.name != "report.html"]
    assert max(others) < largest - 1000
    done = scan(folder, tmp_path, "--json", "--workers", "1", preexec_fn=limited(largest - 1000))
    one_line(done, "report.html", "File too large", "the result was printed")
    assert json.loads(done.stdout)["found"]
    assert run("report", "verify", str(tmp_path / "report.json"), within=folder).returncode == 0


# ----------------------------------------------------------------------------------------------------------- files


REPORTS: dict[str, list[str]] = {
    "recompute": ["recompute", "REPORT", "--key", "file:owner.key"],
    "render": ["report", "render", "REPORT", "-o", "OUT"],
    "sign": ["report", "sign", "REPORT", "--signing-key", "file:owner.key"],
    "verify": ["report", "verify", "REPORT"],
}


@pytest.mark.parametrize("command", REPORTS)
@pytest.mark.parametrize("kind", ["scan", "trace", "detection", "none"])
@pytest.mark.parametrize("damage", ["not UTF-8", "nested", "cut"])
def test_a_damaged_report_is_one_line_everywhere(
    command: str, kind: str, damage: str, folder: Path, tmp_path: Path
) -> None:
    from click.testing import CliRunner

    from detect.cli.main import main

    head = f'{{"format": "dyetrace-{kind}", "version": 1, "refused": '.encode()
    body = {"not UTF-8": b'"\xff"}', "nested": b"[" * 90_000 + b"]" * 90_000 + b"}", "cut": b'"abc'}[damage]
    report = tmp_path / "report.json"
    report.write_bytes(head + body)
    places = {"REPORT": str(report), "OUT": str(tmp_path / "out"), "file:owner.key": f"file:{folder / 'owner.key'}"}
    done = CliRunner().invoke(main, [places.get(word, word) for word in REPORTS[command]])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output
    assert "report.json" in done.stderr.splitlines()[-1] and not (tmp_path / "out").exists()
    assert report.read_bytes() == head + body


@pytest.mark.parametrize("command", ["detect", "scan"])
@pytest.mark.parametrize("what", ["document", "spec", "commitment"])
def test_deeply_nested_json_is_one_line(command: str, what: str, folder: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from detect.cli.main import main

    nested = tmp_path / "nested.jsonl"
    nested.write_bytes(b'{"text": ' + b"[" * 90_000 + b"]" * 90_000 + b"}\n")
    given = {"document": folder / "ids.jsonl", "spec": folder / "spec.json"} | {what: nested}
    more = ["--commitment", nested] if what == "commitment" else []
    done = CliRunner().invoke(
        main,
        [str(word) for word in (command, given["document"], "--spec", given["spec"], "--key",
                                f"file:{folder / 'owner.key'}", "-o", tmp_path / "out", *more)],
    )  # fmt: skip
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output
    assert "nested.jsonl" in done.stderr.splitlines()[-1] and not (tmp_path / "out").exists()
