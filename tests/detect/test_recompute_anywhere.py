"""Reports are recomputed from any folder, by one rule for where inputs are; by an account as far as its key goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from detect.cli import main
from detect.recorded_inputs import recorded_path
from tests.detect.corpus.marked import SECRET, documents, spec, write_jsonl
from watermark.errors import DyetraceError
from watermark.keys import TenantKey, write_key_file
from watermark.spec import WatermarkSpec, write_spec

ACCOUNTS = ["--tenant", "acme", "--tenant", "zenith"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, demo_spec: WatermarkSpec, smollm2_dir: Path) -> Path:
    """A folder with data, a scan's and a detection's report in it, all under relative names."""
    folder = tmp_path_factory.mktemp("case")
    shared = spec(global_share=0.5)
    write_key_file(folder / "owner.key", SECRET)
    write_key_file(folder / "acme.key", TenantKey.from_master(SECRET, "acme"))
    write_key_file(folder / "nadir.key", TenantKey.from_master(SECRET, "nadir"))
    write_spec(folder / "spec.json", shared)
    write_spec(folder / "demo.json", demo_spec)
    (folder / "data").mkdir()
    rows = [*documents(4, 300, 3, shared, "acme"), *documents(12, 300, 5)]
    write_jsonl(folder / "data" / "x.jsonl", rows[:8])
    write_jsonl(folder / "data" / "y.jsonl", rows[8:], first=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        key = ["--key", "file:owner.key", "--decoys", "5", *ACCOUNTS]
        done = run("scan", "data", "--spec", "spec.json", *key, "-o", "out/scan", "--no-pdf", "--workers", "1")
        assert done.exit_code == 0, done.output
        done = run(
            "detect", "data/x.jsonl", "--spec", "demo.json", "--tokenizer", smollm2_dir, *key, "-o", "out/detection"
        )
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def demo_spec(smollm2_dir: Path) -> WatermarkSpec:
    from watermark.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size

    tokenizer = load_tokenizer(smollm2_dir)
    return spec(
        vocabulary_size=vocabulary_size(tokenizer), tokenizer=tokenizer_fingerprint(tokenizer), global_share=0.5
    )


def recompute(case: Path, kind: str, key: str, *more: str | Path, report: Path | None = None) -> Result:
    report = report or case / "out" / kind / "report.json"
    return run("recompute", report, "--key", f"file:{case / key}", *more)


KINDS = ["scan", "detection"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["case", "report", "elsewhere", "root"])
def test_relative_reports_hold_from_any_folder(
    kind: str, where: str, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"case": case, "report": case / "out" / kind, "elsewhere": tmp_path, "root": Path("/")}
    monkeypatch.chdir(places[where])
    if where == "elsewhere":  # another file of that name is passed over
        (tmp_path / "data").mkdir()
        write_jsonl(tmp_path / "data" / "x.jsonl", documents(2, 100, 9))
        if kind == "scan":
            shutil.rmtree(tmp_path / "data")
    done = recompute(case, kind, "owner.key")
    assert done.exit_code == 0 and "every number the same" in done.output, done.output


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_means_the_same_folder_to_recompute_and_to_verify(kind: str, case: Path, tmp_path: Path) -> None:
    """The files may have moved: by whole name in the folder, or by its end."""
    shutil.copytree(case / "out" / kind, tmp_path / "report")
    shutil.copytree(case / "data", tmp_path / "moved" / "data")
    report = tmp_path / "report" / "report.json"
    moved = tmp_path / "moved"
    for folder, holds in ((moved, True), (moved / "data", True), (tmp_path / "report", False)):
        results = [
            recompute(case, kind, "owner.key", "--inputs", folder, report=report),
            run("report", "verify", report, "--inputs", folder),
        ]
        assert [done.exit_code == 0 for done in results] == [holds, holds], [done.output for done in results]
    assert recompute(case, kind, "owner.key", report=report).exit_code == 2  # nothing to be found from there


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_recomputes_its_part_and_is_told_what_is_left(kind: str, case: Path, tmp_path: Path) -> None:
    done = recompute(case, kind, "acme.key")
    assert done.exit_code == 0, done.output
    assert "the part of account 'acme' holds" in done.output and "the 2 other keys" in done.output
    stranger = recompute(case, kind, "nadir.key")
    assert stranger.exit_code == 2 and "does not concern this key" in stranger.stderr
    record = json.loads((case / "out" / kind / "report.json").read_text())
    tested = record["hypotheses"] if kind == "scan" else record["documents"][0]["hypotheses"]
    next(h for h in tested if h["key"] == "tenant:acme")["subkeys"][1]["total"] += 1
    changed = case / "out" / kind / "changed.json"
    changed.write_text(json.dumps(record))
    done = recompute(case, kind, "acme.key", report=changed)
    changed.unlink()
    assert done.exit_code == 3 and "does not hold" in done.stderr


def test_differences_stand_in_the_order_of_the_record(case: Path) -> None:
    record = json.loads((case / "out" / "scan" / "report.json").read_text())
    for name in ("tokens", "tuples", "distinct_tuples"):
        record[name] += 1
    changed = case / "out" / "scan" / "changed.json"
    changed.write_text(json.dumps(record))
    said = {recompute(case, "scan", "owner.key", report=changed).stderr.splitlines()[-1] for _ in range(2)}
    changed.unlink()
    assert len(said) == 1
    places = [next(iter(said)).index(f"report.{name} is") for name in ("tokens", "tuples", "distinct_tuples")]
    assert places == sorted(places)


def test_a_named_folder_is_never_left(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in").mkdir()
    with pytest.raises(DyetraceError, match="is not in"):
        recorded_path("../secret", tmp_path / "in", tmp_path / "report.json")
    with pytest.raises(DyetraceError, match="--inputs"):
        recorded_path("nowhere/x.jsonl", None, tmp_path / "report.json")
