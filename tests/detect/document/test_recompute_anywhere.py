"""Reports are recomputed from any folder, by one rule for where inputs are; by an account as far as its key goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.corpus.engines import make_engine
from detect.corpus.scan import ScanJob, scan
from detect.document.detection import Settings, detect
from detect.readers.suspects import read_suspects
from detect.records.reading import write_record
from detect.records.recorded_inputs import recorded_path
from tests.detect.corpus.marked import SECRET, documents, spec, write_jsonl
from tests.golden import make as golden
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, TenantKey, write_key_file
from watermark.models.tokenizer import load_tokenizer
from watermark.spec import WatermarkSpec, write_spec

ACCOUNTS = ["--tenant", "acme", "--tenant", "zenith"]


def run(*arguments: object) -> Result:
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
    from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size

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
def test_a_renamed_file_is_known_by_its_hash_to_recompute_and_to_verify(
    kind: str, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(case)
    key = ["--spec", "spec.json", "--key", "file:owner.key", "--decoys", "5", *ACCOUNTS]
    report = case / "out" / kind / "report.json"
    if kind == "scan":
        done = run("scan", "data/x.jsonl", *key, "-o", tmp_path / "one", "--no-pdf", "--workers", "1")
        assert done.exit_code == 0, done.output
        report = tmp_path / "one" / "report.json"
    moved = tmp_path / "moved"
    (moved / "deep").mkdir(parents=True)
    shutil.copy(case / "data" / "x.jsonl", moved / "deep" / "renamed.jsonl")
    write_jsonl(moved / "x.jsonl", documents(2, 100, 9))  # another file has its name by now
    for done in (
        recompute(case, kind, "owner.key", "--inputs", moved, report=report),
        run("report", "verify", report, "--inputs", moved),
    ):
        assert done.exit_code == 0, done.output
    (moved / "deep" / "renamed.jsonl").unlink()
    assert recompute(case, kind, "owner.key", "--inputs", moved, report=report).exit_code == 3
    assert run("report", "verify", report, "--inputs", moved).exit_code == 3


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


def _with(part: Any, place: tuple[Any, ...], value: Any) -> Any:
    holder = part
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    return part


@pytest.mark.parametrize(
    ("kind", "place", "value", "says"),
    [
        ("detection", ("documents", 0, "view", "texts", 3), " kill", "what is quoted of it is not its text"),
        ("detection", ("documents", 0, "view", "pvalues", 9), 0.001, "other p-values of its tokens"),
        ("detection", ("documents", 0, "view", "subkey"), 9, "its tokens are shown under another key"),
        ("detection", ("documents", 0, "name"), "line 1 (by N. N.)", "line 1 (by N. N.): the file calls it line 1"),
        ("scan", ("hits", 0, "excerpt"), "What nobody wrote.", "report.hits[0].excerpt is"),
    ],
)
def test_quotes_that_are_not_in_the_files_are_seen(
    kind: str, place: tuple[Any, ...], value: Any, says: str, tmp_path: Path
) -> None:
    write_key_file(tmp_path / "golden.key", SecretKey(golden.SECRET))
    whole = json.loads((golden.HERE / kind / "report.json").read_bytes())
    report = tmp_path / "report.json"
    how = [
        "--key",
        f"file:{tmp_path / 'golden.key'}",
        "--inputs",
        golden.HERE,
        "--tokenizer",
        golden.HERE / "tokenizer.json",
    ]
    report.write_text(json.dumps(whole))
    assert run("recompute", report, *how).exit_code == 0
    report.write_text(json.dumps(_with(whole, place, value)))
    again = run("recompute", report, *how)
    assert again.exit_code == 3 and says in again.stderr, again.output


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


@pytest.mark.parametrize("kind", KINDS)
def test_reports_that_a_program_made_by_its_own_calls_are_recomputed_or_say_what_they_lack(
    kind: str, case: Path, tmp_path: Path, smollm2_dir: Path, demo_spec: WatermarkSpec
) -> None:
    data, ring = case / "data" / "x.jsonl", KeyRing.from_master(SECRET)
    if kind == "scan":
        job = ScanJob([str(data)], [spec(global_share=0.5)], f"file:{case / 'owner.key'}", null_corpus=())
        scan(job, tmp_path, make_engine("local", 1, None))
    else:
        suspects, source = read_suspects(str(data))
        tokenizer = load_tokenizer(smollm2_dir)
        record = detect(suspects, [source], demo_spec, ring, tokenizer, Settings(decoy_count=5))
        write_record(tmp_path / "report.json", record)
    report = tmp_path / "report.json"
    more = () if kind == "scan" else ("--tokenizer", smollm2_dir)
    done = recompute(case, kind, "owner.key", *more, report=report)
    assert done.exit_code == 0 and "every number the same" in done.output, done.output
    plain = json.loads(report.read_text())
    for lacking in ({"paths": 7, "format": 7}, {"roles": "x", "limit": -1, "paths": []}):
        report.write_text(json.dumps(plain | {"arguments": lacking}))
        refused = recompute(case, kind, "owner.key", *more, report=report)
        assert refused.exit_code == 2 and "the arguments on record don't say how" in refused.stderr, refused.output


def test_a_named_folder_is_never_left(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in").mkdir()
    with pytest.raises(DyetraceError, match="is not in"):
        recorded_path("../secret", tmp_path / "in", tmp_path / "report.json")
    with pytest.raises(DyetraceError, match="--inputs"):
        recorded_path("nowhere/x.jsonl", None, tmp_path / "report.json")


@pytest.fixture(scope="module")
def own_case(case: Path, smollm2_dir: Path) -> Path:
    """Reports of the same data that an account made with its own key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(case)
        key = ["--key", "file:acme.key", "--decoys", "5"]
        done = run("scan", "data", "--spec", "spec.json", *key, "-o", "own/scan", "--no-pdf", "--workers", "1")
        assert done.exit_code == 0, done.output
        done = run(
            "detect", "data/x.jsonl", "--spec", "demo.json", "--tokenizer", smollm2_dir, *key, "-o", "own/detection"
        )
        assert done.exit_code == 0, done.output
    return case


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["owner.key", "acme.key"])
def test_a_report_of_an_account_holds_for_the_account_and_for_the_owner(kind: str, key: str, own_case: Path) -> None:
    """The owner's key gives more keys than were tested: those on record are tested, and no others."""
    report = own_case / "own" / kind / "report.json"
    done = recompute(own_case, kind, key, report=report)
    assert done.exit_code == 0 and "every number the same" in done.output, done.output
    assert recompute(own_case, kind, "nadir.key", report=report).exit_code == 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_account_cannot_check_is_named(kind: str, case: Path) -> None:
    done = recompute(case, kind, "acme.key")
    assert "(global, tenant:zenith)" in done.output, done.output
    told = json.loads(recompute(case, kind, "acme.key", "--json").stdout)
    assert (told["holds"], told["account"], told["keys_unchecked"]) == (True, "acme", 2)


def test_an_account_of_one_epoch_checks_its_part_of_a_scan_of_two(case: Path, tmp_path: Path) -> None:
    rows = [*documents(3, 300, 3, spec(global_share=0.5), "acme"), *documents(5, 300, 5)]
    write_jsonl(tmp_path / "x.jsonl", rows)
    for epoch in (0, 1):
        write_spec(tmp_path / f"{epoch}.json", spec(global_share=0.5, epoch=epoch))
    done = run(
        "scan", tmp_path / "x.jsonl", "--spec", tmp_path / "0.json", "--spec", tmp_path / "1.json", *ACCOUNTS,
        "--key", f"file:{case / 'owner.key'}", "--decoys", "5", "--no-pdf", "--workers", "1", "-o", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = tmp_path / "out" / "report.json"
    done = recompute(case, "scan", "acme.key", report=report)
    assert done.exit_code == 0 and "the 5 other keys (epoch 0 global, " in done.output, done.output
    record = json.loads(report.read_text())
    next(h for h in record["hypotheses"] if h["key"] == "epoch 0 tenant:acme")["subkeys"][0]["total"] += 1
    (tmp_path / "out" / "changed.json").write_text(json.dumps(record))
    assert recompute(case, "scan", "acme.key", report=tmp_path / "out" / "changed.json").exit_code == 3


def test_a_trace_of_an_account_holds_for_the_account_and_for_the_owner(tmp_path: Path) -> None:
    from detect.records.reading import encode_record
    from tests.detect.student.verdict.test_recompute import KEY, traced

    write_key_file(tmp_path / "owner.key", KEY)
    write_key_file(tmp_path / "acme.key", TenantKey.from_master(KEY, "acme"))
    for name, ring in (("own", TenantKey.from_master(KEY, "acme").ring()), ("all", None)):
        (tmp_path / name).mkdir()
        record = traced(tmp_path / name) if ring is None else traced(tmp_path / name, ring)
        (tmp_path / name / "report.json").write_bytes(encode_record(record))
    for key, name, says in (
        ("owner.key", "own", "every number the same"),
        ("acme.key", "own", "every number the same"),
        ("owner.key", "all", "every number the same"),
        ("acme.key", "all", "the 2 other keys (global, tenant:zenith)"),
    ):
        done = recompute(tmp_path, "trace", key, report=tmp_path / name / "report.json")
        assert done.exit_code == 0 and says in done.output, done.output
