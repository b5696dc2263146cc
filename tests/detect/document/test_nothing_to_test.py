"""Documents that hold nothing to test are counted, and said aloud with the reason; they are no lack of a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from tests.detect.corpus.marked import SECRET, documents, spec
from watermark.keys import TenantKey, write_key_file
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import write_spec


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Path:
    made = tmp_path_factory.mktemp("nothing")
    tokenizer = load_tokenizer(smollm2_dir)
    of_demo = {"vocabulary_size": vocabulary_size(tokenizer), "tokenizer": tokenizer_fingerprint(tokenizer)}
    write_key_file(made / "owner.key", SECRET)
    write_key_file(made / "acme.key", TenantKey.from_master(SECRET, "acme"))
    write_spec(made / "spec.json", spec(**of_demo))
    write_spec(made / "shared.json", spec(**of_demo, global_share=0.999999))
    rows = [[], [5], [5, 6], *documents(2, 80, 1).tolist()]
    (made / "some.jsonl").write_text("".join(json.dumps({"token_ids": row}) + "\n" for row in rows))
    (made / "none.jsonl").write_text("".join(json.dumps({"token_ids": row}) + "\n" for row in rows[:3]))
    (made / "short.jsonl").write_text(json.dumps({"token_ids": [5, 6, 7]}) + "\n")
    return made


def detect(
    folder: Path, name: str, tokenizer: Path, *more: str | Path, key: str = "owner", made: str = "spec"
) -> Result:
    keys = ["--spec", folder / f"{made}.json", "--key", f"file:{folder / f'{key}.key'}"]
    return run("detect", folder / name, *keys, "--tokenizer", tokenizer, "--decoys", "5", *more)


def test_each_has_its_reason_and_all_are_counted(folder: Path, smollm2_dir: Path) -> None:
    done = detect(folder, "some.jsonl", smollm2_dir)
    assert done.exit_code == 0, done.output
    assert (
        "3 with nothing to test" in done.stdout and "refused" not in done.stdout.split("with nothing to test")[0][-60:]
    )
    assert "3 of 5 documents hold nothing to test" in done.stderr
    record = json.loads(detect(folder, "some.jsonl", smollm2_dir, "--json").stdout)
    reasons = [document["refused"] for document in record["documents"]]
    assert reasons[0] == "nothing to test: the document is empty"
    assert "no longer than the context (2; tokens: 1)" in reasons[1] and "(2; tokens: 2)" in reasons[2]
    assert reasons[3:] == [None, None]


def test_they_leave_the_answer_about_the_others(folder: Path, smollm2_dir: Path) -> None:
    """Where some documents have something to test that was answered; where none has, nothing was."""
    assert detect(folder, "some.jsonl", smollm2_dir, "--fail").exit_code == 0
    assert detect(folder, "none.jsonl", smollm2_dir, "--fail").exit_code == 4
    assert detect(folder, "none.jsonl", smollm2_dir).exit_code == 0


def test_a_text_of_contexts_of_other_keys_alone_is_named_so_and_its_report_holds(
    folder: Path, smollm2_dir: Path, tmp_path: Path
) -> None:
    done = detect(folder, "short.jsonl", smollm2_dir, "-o", tmp_path / "out", key="acme", made="shared")
    assert done.exit_code == 0, done.output
    assert "belong to keys that were not tested" in " ".join(done.stdout.split()), done.output
    checked = run("report", "verify", tmp_path / "out" / "report.json")
    assert checked.exit_code == 0, checked.output
    again = run(
        "recompute", tmp_path / "out" / "report.json", "--key", f"file:{folder / 'owner.key'}",
        "--tokenizer", smollm2_dir,
    )  # fmt: skip
    assert again.exit_code == 0 and "every number the same" in again.stdout, again.output


def test_a_scan_counts_them(folder: Path, tmp_path: Path) -> None:
    write_spec(tmp_path / "spec.json", spec())
    done = run(
        "scan", folder / "some.jsonl", "--spec", tmp_path / "spec.json", "--key", f"file:{folder / 'owner.key'}",
        "-o", tmp_path / "out", "--no-pdf", "--workers", "1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "3 documents have nothing to test (empty, no longer than the context" in " ".join(done.stdout.split())
