"""What can't be used in a run is refused in one line, before any work: nothing is dropped, and no file is misread."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.records.reading import write_record
from detect.report.signature import sign, write_signing_key
from detect.student.asking.plan import write_plan
from detect.text.artefacts import artefact
from tests.detect.corpus.marked import SECRET, documents, spec, write_jsonl
from tests.detect.report.detection.examples import make_document, make_record
from tests.detect.student.asking.planned import plan as make_plan
from watermark.commitment import commit, write_commitment
from watermark.keys import KeyRing, TenantKey, write_key_file
from watermark.ledger import Ledger
from watermark.spec import write_spec


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, *says: str) -> None:
    assert result.exit_code == 2, result.output
    last = result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output and all(word in last for word in says), result.stderr
    assert SECRET.reveal_hex() not in result.output


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind that dyetrace writes, and a corpus."""
    folder = tmp_path_factory.mktemp("own")
    write_key_file(folder / "owner.key", SECRET)
    (folder / "bare.key").write_text(SECRET.reveal_hex() + "\n")
    write_spec(folder / "spec.json", spec())
    write_spec(folder / "accounts.json", spec(global_share=0.5))
    write_commitment(folder / "commitment.json", *commit(spec(), SECRET))
    write_plan(folder / "plan.json", make_plan())
    write_record(folder / "report.json", make_record(make_document()))
    write_signing_key(folder / "signer.pem")
    sign(folder / "report.json", f"file:{folder / 'signer.pem'}")
    Ledger.create(folder / "served.ledger", spec(), KeyRing.from_master(SECRET, 0)).close()
    write_jsonl(folder / "x.jsonl", documents(4, 60, 1))
    return folder


ARTEFACTS = {
    "owner.key": "a key",
    "bare.key": "a key",
    "signer.pem": "a key",
    "spec.json": "a watermark spec",
    "commitment.json": "a commitment",
    "plan.json": "a plan",
    "report.json": "the report of a detection",
    "report.json.sig": "a report's signature",
    "served.ledger": "a ledger",
}


@pytest.mark.parametrize("name", ARTEFACTS)
def test_files_of_dyetrace_are_known(name: str, own: Path) -> None:
    assert artefact(own / name) == ARTEFACTS[name]


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"text": "a", "spec_id": "b"}', "[1]", "a" * 63, "{" * 5000, '{"format": "dyetrace-x"}', "\x00"],
)
def test_other_files_are_not_taken_for_them(content: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(content)
    assert artefact(tmp_path / "x") is None
    assert artefact(tmp_path) is None and artefact(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", ARTEFACTS)
def test_no_command_reads_them_as_text(name: str, own: Path, tmp_path: Path) -> None:
    key = ["--spec", own / "spec.json", "--key", f"file:{own / 'owner.key'}"]
    trace = ["trace", "weights", tmp_path, "-o", tmp_path / "out", *key]
    scan = ["scan", *key, "-o", tmp_path / "out", "--no-pdf", "--workers", "1"]
    refused(run("detect", own / name, *key), name, ARTEFACTS[name])
    refused(run(*scan, own / "x.jsonl", "--reference", own / name), "--reference", ARTEFACTS[name])
    refused(run(*trace, "--read", own / name), "--read", ARTEFACTS[name])
    refused(run(*trace, "--read", own / "x.jsonl", "--placebo", own / name), "--placebo", ARTEFACTS[name])
    plan = ["trace", "plan", "http://127.0.0.1:9", "--model", "m", "-o", tmp_path / "p.json", *key]
    refused(run(*plan, "--prompts", own / name), "--prompts", ARTEFACTS[name])
    if name != "served.ledger":
        refused(run(*trace, "--read", own / "x.jsonl", "--served", own / name), "--served", ARTEFACTS[name])
    assert not (tmp_path / "out").exists()


def test_folders_of_models_are_looked_at_first(own: Path, tmp_path: Path) -> None:
    for option in ("--calibrate", "--reference", "--control"):
        given = tmp_path / "missing"
        found = run(
            "trace", "weights", own, "--read", own / "x.jsonl", "--spec", own / "spec.json",
            "--key", f"file:{own / 'owner.key'}", "-o", tmp_path / "out",
            option, f"{given}=0.1" if option == "--calibrate" else given,
        )  # fmt: skip
        refused(found, "model folder")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["detect", "scan", "trace"])
@pytest.mark.parametrize("who", ["named", "named in a file", "own key"])
def test_accounts_of_a_spec_without_accounts_are_refused(command: str, who: str, own: Path, tmp_path: Path) -> None:
    key, more = own / "owner.key", ["--tenant", "acme"]
    if who == "named in a file":
        (tmp_path / "names").write_text("acme\n")
        more = ["--tenants-file", str(tmp_path / "names")]
    elif who == "own key":
        key, more = tmp_path / "acme.key", []
        write_key_file(key, TenantKey.from_master(SECRET, "acme"))
    what = ["trace", "weights", own, "--read"] if command == "trace" else [command]
    found = run(
        *what, own / "x.jsonl", "--spec", own / "spec.json", "--key", f"file:{key}", "-o", tmp_path / "out", *more
    )
    refused(found, "no accounts", "acme")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["detect", "scan"])
@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_of_no_documents_is_refused(command: str, limit: str, own: Path, tmp_path: Path) -> None:
    found = run(
        command, own / "x.jsonl", "--spec", own / "spec.json", "--key", f"file:{own / 'owner.key'}",
        "-o", tmp_path / "out", "--limit", limit,
    )  # fmt: skip
    refused(found, "--limit")


@pytest.mark.parametrize(
    "words",
    [
        ("detect", "suspect.txt", "{}", "--spec", "spec.json", "--key", "env:X"),
        ("keygen", "a.key", "--epoch", "{}"),
        ("keygen", "a.key", "--epoch={}"),
        ("detect", "suspect.txt", "--format", "{}"),
        ("detect", "suspect.txt", "--aware={}"),
        ("detect", "suspect.txt", "--{}"),
        ("detect", "suspect.txt", "--keys={}"),
        ("{}",),
        ("report", "{}"),
    ],
)
def test_a_key_that_was_typed_where_it_does_not_belong_is_never_shown(words: tuple[str, ...]) -> None:
    secret = "ab12" * 16
    done = CliRunner().invoke(main, [word.format(secret) for word in words])
    assert done.exit_code == 2 and done.stderr.splitlines()[-1].startswith("Error: ")
    assert secret not in done.output


def test_other_words_that_are_wrong_are_repeated() -> None:
    done = CliRunner().invoke(main, ["detect", "suspect.txt", "--no-such-long-option"])
    assert "--no-such-long-option" in done.stderr
