"""The `dyetrace` command, end to end on the real demo model, and what it says to bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.cli.statuses import DOES_NOT_HOLD, FOUND
from detect.records.detection import Record
from detect.records.reading import read_record
from watermark.keys import SecretKey, write_key_file

SECRET = bytes(range(32))


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Path:
    """A folder with key, spec, commitment and marked answers, made by the command itself."""
    folder = tmp_path_factory.mktemp("job")
    write_key_file(folder / "owner.key", SecretKey(SECRET))
    key = f"file:{folder / 'owner.key'}"
    assert run("spec", folder / "spec.json", "--key", key, "--tenants", "--model", smollm2_dir).exit_code == 0
    made = run("commit", "--spec", folder / "spec.json", "--key", key, "-o", folder / "commitment.json")
    assert made.exit_code == 0, made.output
    answered = run(
        "generate", "--spec", folder / "spec.json", "--key", key, "--tenant", "acme", "--model", smollm2_dir,
        "--max-new-tokens", "100", "-o", folder / "answers.jsonl",
        stdin="Write a long story about an otter.\nDescribe every season in detail.\n",
    )  # fmt: skip
    assert answered.exit_code == 0, answered.output
    assert run("keygen", folder / "acme.key", "--tenant", "acme", "--key", key).exit_code == 0
    return folder


def detect(job: Path, source: str | Path, smollm2_dir: Path, *more: str | Path, stdin: str | None = None) -> Result:
    return run(
        "detect", source, "--spec", job / "spec.json", "--key", f"file:{job / 'owner.key'}",
        "--tokenizer", smollm2_dir, *more, stdin=stdin,
    )  # fmt: skip


def test_marked_answers_are_found_and_traced_to_their_tenant(job: Path, smollm2_dir: Path) -> None:
    result = detect(
        job, job / "answers.jsonl", smollm2_dir, "--tenant", "acme", "--tenant", "zenith", "--json", "--fail"
    )
    assert result.exit_code == FOUND.number
    record = json.loads(result.stdout)
    for document in record["documents"]:
        best = {h["key"]: h["log10_pvalue_adjusted"] for h in document["hypotheses"]}
        assert best["tenant:acme"] < -4 < best["tenant:zenith"]
        assert document["found"] and document["decoys"]["rank"] == 1
    assert SECRET.hex() not in result.output


def test_text_alone_from_stdin_is_enough_and_json_is_alone_on_stdout(job: Path, smollm2_dir: Path) -> None:
    text = json.loads((job / "answers.jsonl").read_text().splitlines()[0])["text"]
    result = detect(job, "-", smollm2_dir, "--tenant", "acme", "--json", stdin=text)
    assert result.exit_code == 0
    [document] = json.loads(result.stdout)["documents"]
    assert document["found"] and document["prompt_tokens"] is None


def test_natural_text_is_not_found(job: Path, smollm2_dir: Path, prose: list[str]) -> None:
    result = detect(job, "-", smollm2_dir, "--tenant", "acme", "--fail", stdin=prose[3])
    assert result.exit_code == 0
    assert "no mark found" in result.stdout


def test_a_tenant_key_alone_finds_that_tenant_and_nothing_else(job: Path, smollm2_dir: Path) -> None:
    def with_key(*more: str) -> Result:
        return run(
            "detect", job / "answers.jsonl", "--spec", job / "spec.json", "--tokenizer", smollm2_dir,
            "--key", f"file:{job / 'acme.key'}", "--json", *more,
        )  # fmt: skip

    [names] = {tuple(h["key"] for h in d["hypotheses"]) for d in json.loads(with_key().stdout)["documents"]}
    assert names == ("tenant:acme",)
    refused = with_key("--tenant", "zenith")
    assert refused.exit_code == 2 and "of tenant 'acme' alone" in refused.stderr


def test_reports_are_written_and_recomputed_and_a_changed_number_is_noticed(job: Path, smollm2_dir: Path) -> None:
    out = job / "evidence"
    options = ("--tenant", "acme", "--commitment", job / "commitment.json", "-o", out)
    assert detect(job, job / "answers.jsonl", smollm2_dir, *options).exit_code == 0
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    record = read_record(Record, out / "report.json")
    assert record.commitment is not None and record.commitment.spec_id == record.spec_id
    again = ("--key", f"file:{job / 'owner.key'}", "--tokenizer", smollm2_dir)
    assert "every number the same" in run("recompute", out / "report.json", *again).stdout
    changed = (out / "report.json").read_text()
    total = record.documents[0].hypotheses[0].subkeys[2].total
    (out / "changed.json").write_text(changed.replace(f'"total": {total}', f'"total": {total + 1}'))
    refused = run("recompute", out / "changed.json", *again)
    assert refused.exit_code == DOES_NOT_HOLD.number and "other sums" in refused.stderr


def test_the_model_aware_test_adds_evidence(job: Path, smollm2_dir: Path) -> None:
    options = ("--tenant", "acme", "--aware", "--model", smollm2_dir, "--decoys", "10", "--limit", "1", "--json")
    [document] = json.loads(detect(job, job / "answers.jsonl", smollm2_dir, *options).stdout)["documents"]
    best = max(h["log10_evalue"] for h in document["aware"]["hypotheses"])
    assert best > -document["log10_pvalue"] > 4
    assert max(document["aware"]["decoy_log10_evalues"]) < 3


def test_commitments_open_with_the_right_key_alone(job: Path, tmp_path: Path) -> None:
    write_key_file(tmp_path / "other.key", SecretKey(bytes(32)))
    arguments = ("verify-commitment", job / "commitment.json", "--spec", job / "spec.json", "--key")
    assert "commitment holds" in run(*arguments, f"file:{job / 'owner.key'}").stdout
    refused = run(*arguments, f"file:{tmp_path / 'other.key'}")
    assert refused.exit_code == DOES_NOT_HOLD.number and "the commitment is of key" in refused.stderr


def _bad(job: Path, tmp_path: Path, smollm2_dir: Path) -> dict[str, tuple[tuple[str | Path, ...], str]]:
    spec, key, answers = job / "spec.json", f"file:{job / 'owner.key'}", job / "answers.jsonl"
    (tmp_path / "cut.json").write_text(spec.read_text()[:60])
    (tmp_path / "field.json").write_text(spec.read_text().replace('"epoch"', '"epoque"'))
    (tmp_path / "version.json").write_text(spec.read_text().replace('"version": 1', '"version": 9'))
    (tmp_path / "vocabulary.json").write_text(spec.read_text().replace("49152", "32000"))
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text"\n')
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "open.key").write_text("00" * 32)
    (tmp_path / "open.key").chmod(0o644)
    (tmp_path / "short.key").write_text((job / "owner.key").read_text()[:60])
    (tmp_path / "short.key").chmod(0o600)
    write_key_file(tmp_path / "other.key", SecretKey(bytes(32)))
    tail: tuple[str | Path, ...] = ("--spec", spec, "--key", key, "--tokenizer", smollm2_dir)
    return {
        "missing file": (("detect", tmp_path / "none.txt", *tail), "cannot read"),
        "broken line": (("detect", tmp_path / "broken.jsonl", *tail), "line 2"),
        "empty text": (("detect", tmp_path / "empty.txt", *tail), "is empty"),
        "no spec": (("detect", answers, "--spec", tmp_path / "no.json", *tail[2:]), "cannot read spec"),
        "truncated spec": (("detect", answers, "--spec", tmp_path / "cut.json", *tail[2:]), "not whole JSON"),
        "unknown field": (("detect", answers, "--spec", tmp_path / "field.json", *tail[2:]), "epoque"),
        "foreign version": (("detect", answers, "--spec", tmp_path / "version.json", *tail[2:]), "version 9"),
        "wrong tokenizer": (("detect", answers, "--spec", tmp_path / "vocabulary.json", *tail[2:]), "wrong tokenizer"),
        "no tokenizer": (("detect", answers, *tail[:-1], tmp_path / "gone"), "does not exist"),
        "wrong key": (("detect", answers, "--spec", spec, "--key", f"file:{tmp_path / 'other.key'}"), "wrong key"),
        "open key": (("detect", answers, "--spec", spec, "--key", f"file:{tmp_path / 'open.key'}"), "chmod 600"),
        "short key": (("detect", answers, "--spec", spec, "--key", f"file:{tmp_path / 'short.key'}"), "damaged"),
        "pasted key": (("detect", answers, "--spec", spec, "--key", SECRET.hex()), "key source not understood"),
        "failing key command": (("detect", answers, "--spec", spec, "--key", "cmd:false"), "status 1"),
        "unset variable": (("detect", answers, "--spec", spec, "--key", "env:NO_SUCH_KEY"), "is not set"),
        "alpha of 0": (("detect", answers, *tail, "--alpha", "0"), "alpha must lie"),
        "no tenant": (("generate", "--spec", spec, "--key", key, "--model", smollm2_dir), "needs a tenant"),
        "temperature of 0": (("generate", "--temperature", "0"), "temperature must be above 0"),
        "no prompts": (("generate", "--prompts", tmp_path / "empty.txt"), "holds no prompt"),
        "no model": (("generate", "--model", tmp_path / "gone"), "gone"),
        "key file in the way": (("keygen", job / "owner.key"), "never overwritten"),
        "unknown scheme": (("spec", tmp_path / "s.json", "--key", key, "--scheme", "x", "--model", smollm2_dir), "'x'"),
        "unknown parameter": (
            ("spec", tmp_path / "s.json", "--key", key, "--param", "m=1", "--model", smollm2_dir), "no parameter 'm'"
        ),
        "demo in the way": (("demo", "-o", job), "not empty"),
        "no report": (("recompute", tmp_path / "r.json", "--key", key), "r.json"),
    }  # fmt: skip


CASES = [
    "missing file", "broken line", "empty text", "no spec", "truncated spec", "unknown field", "foreign version",
    "wrong tokenizer", "no tokenizer", "wrong key", "open key", "short key", "pasted key", "failing key command",
    "unset variable", "alpha of 0", "no tenant", "temperature of 0", "no prompts", "no model", "key file in the way",
    "unknown scheme", "unknown parameter", "demo in the way", "no report",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_one_clear_line_and_status_2(case: str, job: Path, tmp_path: Path, smollm2_dir: Path) -> None:
    arguments, message = _bad(job, tmp_path, smollm2_dir)[case]
    before = {path: path.read_bytes() for path in job.iterdir() if path.is_file()}
    result = run(*arguments, stdin="A prompt.\n")
    assert result.exit_code == 2
    last = [line for line in result.stderr.splitlines() if line.startswith("dyetrace: ")]
    assert len(last) == 1 and message in last[0]
    assert "Traceback" not in result.output and SECRET.hex()[:16] not in result.output
    assert {path: path.read_bytes() for path in job.iterdir() if path.is_file()} == before
    assert not (tmp_path / "s.json").exists()


def test_every_case_of_bad_input_is_run(job: Path, tmp_path: Path, smollm2_dir: Path) -> None:
    assert sorted(_bad(job, tmp_path, smollm2_dir)) == sorted(CASES)


def _commands() -> list[click.Command]:
    return [main, *main.commands.values()]


@pytest.mark.parametrize("command", _commands(), ids=lambda command: str(command.name))
def test_every_option_has_help_with_an_example(command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in ("help", "version"):
            assert parameter.help and "[e.g. -" in parameter.help, parameter.name
    assert command is main or "Example: " in (command.help or "")


def test_the_installed_command_prints_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "detect.cli", "detect", "x", "--spec", str(tmp_path / "no"), "--key", "env:X"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1
