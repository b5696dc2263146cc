"""No command overwrites what is not its own to replace: foreign files at every output, and their bytes afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from tests.detect.marking_job import MarkingJob, marking_job
from watermark.keys import KeyRing, load_master
from watermark.ledger import Ledger
from watermark.spec import load_spec


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MarkingJob:
    """A folder that holds one of each artefact; no model is loaded."""
    job = marking_job(tmp_path)
    spec, ring = load_spec(job.spec), KeyRing.from_master(load_master(job.key))
    for name in ("one.ledger", "two.ledger"):
        Ledger.create(tmp_path / name, spec, ring, megabytes=1).close()
    (tmp_path / "foreign.json").write_text('{"scheme": "gumbel", "key": 12345}')
    commit(job, tmp_path / "commitment.json")
    (tmp_path / "answers.jsonl").write_text(
        '{"id":"0","prompt":"3","text":"4","prompt_token_ids":[3],"token_ids":[4]}\n'
    )
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")

    def load(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("watermark.models.folder.load_model", load)
    return job


def commit(job: MarkingJob, output: Path, *more: str) -> Result:
    return run("commit", "--spec", job.spec, "--key", job.key, "-o", output, *more)


def imported(job: MarkingJob, output: Path, key: Path, *more: str) -> Result:
    source = job.folder / "foreign.json"
    return run(
        "spec", "import", "--format", "vllm-gumbel", "--from", source, "--model", job.model, "-o", output,
        "--key-out", key, *more,
    )  # fmt: skip


Write = Callable[..., Result]
OUTPUTS: dict[str, Write] = {
    "keygen": lambda job, path, *_: run("keygen", path),
    "keygen --tenant": lambda job, path, *_: run("keygen", path, "--tenant", "acme", "--key", job.key),
    "spec": lambda job, path, *more: run("spec", path, "--key", job.key, "--model", job.model, *more),
    "commit -o": lambda job, path, *_: commit(job, path),
    "spec import -o": lambda job, path, *more: imported(job, path, job.folder / "new.key", *more),
    "spec import --key-out": lambda job, path, *more: imported(job, job.folder / "new.json", path, *more),
    "generate -o": lambda job, path, *more: run(*job.generate("-o", path, *more)),
    "ledger merge -o": lambda job, path, *_: run(
        "ledger", "merge", job.folder / "one.ledger", job.folder / "two.ledger", "-o", path
    ),
    "plan --html": lambda job, path, *_: run("plan", "--spec", job.spec, "--html", path),
    "report keygen": lambda job, path, *_: run("report", "keygen", path),
}
OWN = {"spec": "spec.json", "spec import -o": "spec.json", "generate -o": "answers.jsonl"}
FILES = (
    "owner.key", "spec.json", "commitment.json", "commitment.json.opening", "prompts.txt", "one.ledger", "two.ledger",
    "foreign.json", "answers.jsonl", "report.json", "notes.txt", "model",
)  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("command", OUTPUTS)
def test_nothing_that_is_there_is_overwritten(command: str, job: MarkingJob) -> None:
    before = contents(job.folder)
    for name in FILES:
        for force in ((), ("--force",)):
            if force and OWN.get(command) == name:
                continue
            refused = OUTPUTS[command](job, job.folder / name, *force)
            assert refused.exit_code == 2 and refused.stderr.count("\n") == 1, (name, refused.output)
            assert contents(job.folder) == before, name


@pytest.mark.parametrize("command", OUTPUTS)
def test_nothing_is_overwritten_through_links(command: str, job: MarkingJob) -> None:
    links = []
    for name in ("owner.key", "prompts.txt", "spec.json", "gone"):
        symbolic, hard = job.folder / f"to-{name}", job.folder / f"as-{name}"
        symbolic.symlink_to(job.folder / name)
        links.append(symbolic)
        if name != "gone":
            os.link(job.folder / name, hard)
            links.append(hard)
    before = contents(job.folder)
    for link in links:
        for force in ((), ("--force",)):
            if force and command in ("spec", "spec import -o") and link.name == "as-spec.json":
                continue  # a second name of an earlier spec is given to the new one; the first keeps the old
            refused = OUTPUTS[command](job, link, *force)
            assert refused.exit_code == 2, (link, refused.output)
            assert contents(job.folder) == before, link
            assert link.is_symlink() == link.name.startswith("to-")


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("place", ["gone/file", "notes.txt/file", "/dev/null", "/dev/full"])
def test_where_nothing_can_be_written_is_found_at_once(command: str, place: str, job: MarkingJob) -> None:
    before = contents(job.folder)
    refused = OUTPUTS[command](job, job.folder / place, *(["--force"] if command in OWN else []))
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    assert contents(job.folder) == before
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("command", ["spec", "spec import -o"])
def test_an_earlier_spec_is_replaced_when_asked(command: str, job: MarkingJob) -> None:
    before = load_spec(job.spec)
    refused = OUTPUTS[command](job, job.spec)
    assert refused.exit_code == 2 and "add --force to replace it" in refused.stderr
    done = OUTPUTS[command](job, job.spec, "--force", *(["--epoch", "3"] if command == "spec" else []))
    assert done.exit_code == 0, done.output
    assert load_spec(job.spec) != before


@pytest.mark.parametrize("suffix", [".partial", ".partial.json"])
def test_foreign_files_beside_an_output_stay(suffix: str, job: MarkingJob) -> None:
    (job.folder / f"new.jsonl{suffix}").write_text("mine")
    before = contents(job.folder)
    refused = run(*job.generate("-o", job.folder / "new.jsonl"))
    assert refused.exit_code == 2 and "is in the way" in refused.stderr
    assert contents(job.folder) == before
    prompts = job.folder / f"new.jsonl{suffix}"
    refused = run(*job.generate("-o", job.folder / "new.jsonl", "--prompts", prompts))
    assert refused.exit_code == 2 and "choose another output" in refused.stderr
    assert contents(job.folder) == before


def test_foreign_files_beside_a_commitment_and_a_signing_key_stay(job: MarkingJob) -> None:
    for name in ("new.opening", "new.pub"):
        (job.folder / name).write_text("mine")
    before = contents(job.folder)
    for write in ("commit -o", "report keygen"):
        refused = OUTPUTS[write](job, job.folder / "new")
        assert refused.exit_code == 2 and "never overwritten" in refused.stderr
        assert contents(job.folder) == before


def test_one_path_for_spec_and_key_is_refused(job: MarkingJob) -> None:
    before = contents(job.folder)
    same = imported(job, job.folder / "new", job.folder / "." / "new")
    assert same.exit_code == 2 and "give the key a path of its own" in same.stderr
    assert contents(job.folder) == before


def test_a_prompts_file_of_answers_is_not_replaced_by_its_answers(job: MarkingJob) -> None:
    answers = job.folder / "answers.jsonl"
    refused = run(*job.generate("--prompts", answers, "-o", answers, "--force"))
    assert refused.exit_code == 2 and "is read by this command" in refused.stderr


def test_every_output_of_these_commands_is_tried() -> None:
    tried = {command.split(" -")[0] for command in OUTPUTS}
    names = {"-o", "--output", "--key-out"}

    def writes(command: click.Command) -> bool:
        return any(names.intersection(parameter.opts) for parameter in command.params)

    for name in ("commit", "generate"):
        assert writes(main.commands[name]) and name in tried
    ledger = main.commands["ledger"]
    assert isinstance(ledger, click.Group)
    assert {f"ledger {name}" for name, command in ledger.commands.items() if writes(command)} <= tried


def test_a_date_that_was_edited_is_not_called_what_the_commitment_shows(job: MarkingJob) -> None:
    path = job.folder / "commitment.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"created": "2019-01-01T00:00:00+00:00"}))
    done = run("verify-commitment", path, "--spec", job.spec, "--key", job.key)
    assert done.exit_code == 0 and "commitment holds" in done.stdout and found["sha256"] in done.stdout
    assert "The file is dated 2019-01-01 00:00:00 UTC, which nothing covers and anybody can edit" in done.stderr
