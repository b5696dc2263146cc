"""Odd values and odd files in every option of the commands that mark: one line and status 2, or they are taken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from detect.cli import main
from tests.detect.marking_job import MarkingJob, marking_job

VALUES = {
    "huge": str(10**30),
    "negative": "-1",
    "zero": "0",
    "nan": "nan",
    "infinite": "inf",
    "beyond floats": "1e400",
    "beyond 64 bits": "1e20",
    "not UTF-8": "\udcff",
    "unencodable": "\ud800",
    "nothing": "",
    "long": "x" * 300,
    "digits": "9" * 5000,
}
FILES = {
    "deep list": b"[" * 10**5,
    "deep object": b'{"a":' * 10**5,
    "not UTF-8": b"\xff\xfe",
    "empty object": b"{}",
    "list": b"[]",
    "number": b"1",
    "version alone": b'{"version":1}',
    "zeros": b"0" * 10**5,
    "nothing": b"",
}
FORMATS = ("vllm-gumbel", "sglang", "transformers-synthid", "transformers-kgw", "markllm", "nope")


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MarkingJob:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # values may be taken for names of files
    return marking_job(tmp_path)


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exception)
    assert result.exit_code in (0, 2), arguments
    return result


def imported(job: MarkingJob, source: Path, form: str, *more: str) -> Result:
    for name in ("new.json", "new.key"):
        (job.folder / name).unlink(missing_ok=True)
    return run(
        "spec", "import", "--format", form, "--from", source, "--model", job.model, "-o", job.folder / "new.json",
        "--key-out", job.folder / "new.key", *more,
    )  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_odd_values(case: str, job: MarkingJob) -> None:
    value, folder = VALUES[case], job.folder
    own = ("--key", job.key, "--model", job.model, "--force")
    for option in ("--width", "--subkeys", "--global-share", "--epoch", "--scheme", "--model"):
        run("spec", folder / "other.json", *own, option, value)
    for parameter in (f"gamma={value}", f"{value}=1", value):
        run("spec", folder / "other.json", *own, "--scheme", "green_list", "--param", parameter)
    for option in ("--tenant", "--epoch", "--key"):
        (folder / "acme.key").unlink(missing_ok=True)
        run("keygen", folder / "acme.key", "--tenant", "acme", "--key", job.key, option, value)
    for arguments in (
        ("keygen", value), ("spec", value, *own), ("report", "keygen", value),
        ("commit", "--spec", value, "--key", job.key, "-o", folder / "c"),
        ("commit", "--spec", job.spec, "--key", value, "-o", folder / "c"),
        ("commit", "--spec", job.spec, "--key", f"file:{value}", "-o", folder / "c"),
        ("commit", "--spec", job.spec, "--key", job.key, "-o", value),
        ("verify-commitment", value, "--spec", job.spec, "--key", job.key),
        ("ledger", "info", value), ("ledger", "hashes", value), ("ledger", "merge", value, value, "-o", folder / "l"),
    ):  # fmt: skip
        run(*arguments)
    (folder / "source").write_bytes(value.encode("utf-8", "surrogatepass"))
    for form in (*FORMATS, value):
        imported(job, folder / "source", form, "--param", f"context_width={value}")


@pytest.mark.parametrize("case", FILES)
def test_odd_files(case: str, job: MarkingJob) -> None:
    folder = job.folder
    for name in ("odd.json", "odd.json.opening", "odd.key"):
        (folder / name).write_bytes(FILES[case])
        (folder / name).chmod(0o600)
    odd = folder / "odd.json"
    for arguments in (
        ("verify-commitment", odd, "--spec", job.spec, "--key", job.key),
        ("commit", "--spec", odd, "--key", job.key, "-o", folder / "c"),
        ("commit", "--spec", job.spec, "--key", f"file:{folder / 'odd.key'}", "-o", folder / "c"),
        ("ledger", "info", odd),
        ("ledger", "merge", odd, folder / "odd.key", "-o", folder / "l"),
        ("spec", odd, "--key", job.key, "--model", job.model, "--force"),
    ):
        assert run(*arguments).exit_code == 2, arguments
    run("ledger", "hashes", odd)
    for form in FORMATS:
        imported(job, odd, form)


@pytest.mark.parametrize("case", FILES)
def test_odd_files_in_a_models_folder(case: str, job: MarkingJob) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        broken = job.folder / f"with-{name}"
        shutil.copytree(job.model, broken)
        (broken / name).write_bytes(FILES[case])
        run("generate", "--model", broken, "--prompts", job.prompts, "--limit", "1", "--max-new-tokens", "2")
        run("spec", job.folder / "other.json", "--key", job.key, "--model", broken, "--force")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("keygen", "new.key", "--epoch", "3"), "--epoch goes with --tenant"),
        (("keygen", "new.key", "--key", "env:X"), "--key goes with --tenant"),
        (("spec", "new.json", "--tenants", "--global-share", "1"), "drop one of the two"),
        (("spec", "new.json", "--param", "gamma=0.1", "--param", "gamma=0.2"), "--param gamma was given twice"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: tuple[str, ...], message: str, job: MarkingJob) -> None:
    own = ("--key", job.key, "--model", str(job.model)) if arguments[0] == "spec" else ()
    refused = run(*arguments, *own)
    assert refused.exit_code == 2 and message in refused.stderr
    assert os.listdir() == []
