"""A scan finds marked documents, gives the same bytes whatever runs it and after any kill, and says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from detect.corpus import gather
from detect.corpus import scan as scan_module
from detect.corpus.scan import ScanJob, scan
from detect.corpus.settings import ScanSettings
from detect.corpus.work import WORK, locked
from detect.keyed.scoring import totals
from detect.readers import ReadOptions
from detect.records.scan import Hit, ScanRecord
from detect.text.distinct import distinct_tuples
from tests import stopping
from tests.detect.corpus.marked import SECRET, SETTINGS, InlineEngine, documents, spec, write_jsonl
from tests.detect.undated import undated
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, write_key_file
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec, write_spec

REPORT = ("report.json", "documents.parquet", "hits.jsonl", "skipped.jsonl")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three files: unmarked documents, 12 marked ones among others, and copies of marked ones."""
    folder = tmp_path_factory.mktemp("corpus")
    marked, clean = documents(12, 200, 1, spec()), documents(120, 200, 2)
    write_jsonl(folder / "a.jsonl", clean[:60])
    write_jsonl(folder / "b.jsonl", [*clean[60:90], *marked, *clean[90:]], first=60)
    write_jsonl(folder / "c.jsonl", marked[:4], first=132)
    (folder / "data").mkdir()
    for name in "abc":
        (folder / f"{name}.jsonl").rename(folder / "data" / f"{name}.jsonl")
    write_key_file(folder / "owner.key", SECRET)
    write_spec(folder / "spec.json", spec())
    return folder


def job(corpus: Path, *paths: str, **changes: Any) -> ScanJob:
    fields: dict[str, Any] = {
        "paths": paths or [str(corpus / "data")],
        "specs": [spec()],
        "key": f"file:{corpus / 'owner.key'}",
        "settings": SETTINGS,
        "null_corpus": (),
    }
    return ScanJob(**(fields | changes))


def report(folder: Path) -> list[bytes]:
    """What two runs of a scan have in common: all bytes of a report but for its date."""
    data = {name: (folder / name).read_bytes() for name in REPORT}
    return [undated(data["report.json"]), *(data[name] for name in REPORT if name != "report.json")]


@pytest.fixture(scope="module")
def scanned(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScanRecord]:
    output = tmp_path_factory.mktemp("scanned")
    return output, scan(job(corpus), output, InlineEngine())


# --------------------------------------------------------------------------------------------- what it finds


def test_the_marked_documents_are_the_hits(scanned: tuple[Path, ScanRecord]) -> None:
    output, record = scanned
    hits = [msgspec.json.decode(line, type=Hit) for line in (output / "hits.jsonl").read_bytes().splitlines()]
    truth = {f"doc-{60 + 30 + i}" for i in range(12)}
    assert truth <= {hit.id for hit in hits}
    assert len(hits) <= len(truth) + 2  # a false discovery rate of 5%
    assert record.found and record.log10_pvalue is not None and record.log10_pvalue < -30
    assert record.discoveries.benjamini_hochberg == len(hits)
    one = next(hit for hit in hits if hit.id == "doc-90")
    assert (record.inputs[one.input].name.endswith("b.jsonl"), one.record) == (True, 31)
    assert one.score > 1.3 > one.expected == 1.0
    assert any(segment.end - segment.start > 100 for segment in one.segments)


def test_copies_own_nothing_and_are_counted_once(scanned: tuple[Path, ScanRecord]) -> None:
    from pyarrow import parquet

    output, record = scanned
    table = parquet.read_table(output / "documents.parquet").to_pydict()
    copies = [i for i, name in enumerate(table["id"]) if name in {"doc-132", "doc-133", "doc-134", "doc-135"}]
    assert [table["tuples"][i] for i in copies] == [0] * 4
    assert [table["log10_pvalue_adjusted"][i] for i in copies] == [None] * 4
    assert sum(table["tuples"]) == record.distinct_tuples < record.tuples


def test_totals_are_those_of_the_distinct_tuples_of_all_documents_joined(
    corpus: Path, scanned: tuple[Path, ScanRecord]
) -> None:
    """Against the document test's own code: one key, every tuple of the corpus once."""
    _, record = scanned
    rows = []
    for name in "abc":
        lines = (corpus / "data" / f"{name}.jsonl").read_bytes().splitlines()
        rows += [np.array(json.loads(line)["token_ids"], np.uint32) for line in lines]
    seen: set[tuple[int, ...]] = set()
    expected = np.zeros(4, np.int64)
    ring = KeyRing.from_master(SECRET, 0)
    assert ring.global_key is not None
    keys = [subkey(ring.global_key, i) for i in range(4)]
    scheme = spec().build_scheme()
    for ids in rows:
        tuples = distinct_tuples(ids, 2)
        own = [tuple(ids[i - 2 : i + 1].tolist()) for i in tuples.index]
        fresh = np.array([one not in seen for one in own])
        seen |= set(own)
        expected += totals(scheme, keys, tuples.take(fresh))
    assert [s.total for s in record.hypotheses[0].subkeys] == expected.tolist()
    assert record.distinct_tuples == len(seen)


def test_an_unmarked_corpus_is_not_found(corpus: Path, tmp_path: Path) -> None:
    record = scan(job(corpus, str(corpus / "data" / "a.jsonl")), tmp_path, InlineEngine())
    assert not record.found
    assert record.log10_pvalue is not None and record.log10_pvalue > -4
    assert record.controls.decoy_log10_agreement > -4
    assert record.shares.documents.low == 0


def test_tenants_are_tested_in_one_pass_and_documents_point_to_theirs(corpus: Path, tmp_path: Path) -> None:
    shared = spec(global_share=0.5)
    acme, zenith = documents(6, 400, 3, shared, "acme"), documents(3, 400, 4, shared, "zenith")
    write_jsonl(tmp_path / "x.jsonl", [*acme, *documents(20, 400, 5), *zenith])
    names = ("acme", "zenith", *(f"other{i}" for i in range(8)))
    asked = job(
        corpus,
        str(tmp_path / "x.jsonl"),
        specs=[shared],
        settings=ScanSettings(decoys=5, tenants=names, alpha=1e-4),
    )
    record = scan(asked, tmp_path / "out", InlineEngine())
    by_name = {h.key: h for h in record.hypotheses}
    assert by_name["tenant:acme"].log10_pvalue_adjusted < -10
    assert by_name["tenant:zenith"].log10_pvalue_adjusted < -5
    assert all(by_name[f"tenant:other{i}"].log10_pvalue_adjusted > -4 for i in range(8))
    assert by_name["tenant:acme"].pointed >= 4
    assert sum(by_name[f"tenant:other{i}"].pointed for i in range(8)) == 0
    hits = [msgspec.json.decode(x, type=Hit) for x in (tmp_path / "out" / "hits.jsonl").read_bytes().splitlines()]
    for hit in hits:
        owner = {"tenant:acme"} if hit.record <= 6 else {"tenant:zenith"} if hit.record > 26 else set()
        assert {name for name in hit.points_to if name.startswith("tenant")} <= owner


def test_epochs_are_tested_in_one_pass(corpus: Path, tmp_path: Path) -> None:
    first, second = spec(), spec(epoch=7)
    write_jsonl(tmp_path / "x.jsonl", [*documents(5, 200, 6, second), *documents(20, 200, 7)])
    record = scan(job(corpus, str(tmp_path / "x.jsonl"), specs=[first, second]), tmp_path / "out", InlineEngine())
    by_name = {h.key: h.log10_pvalue_adjusted for h in record.hypotheses}
    assert by_name["epoch 7 global"] < -10 < -4 < by_name["epoch 0 global"]


def test_a_few_marked_documents_in_many_are_found_where_the_pooled_test_is_blind(corpus: Path, tmp_path: Path) -> None:
    rows = [*documents(400, 200, 8), *documents(2, 200, 9, spec())]
    record = scan(job(corpus, str(write_jsonl(tmp_path / "x.jsonl", rows))), tmp_path / "out", InlineEngine())
    (one,) = record.hypotheses
    assert one.log10_pvalue_rare < -10 < one.log10_pvalue_pooled


# ------------------------------------------------------------------------------------------ the same every time


def test_order_of_tasks_and_size_of_parts_do_not_matter(
    corpus: Path, scanned: tuple[Path, ScanRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(gather, "BLOCK_TOKENS", 1_000)
    monkeypatch.setattr(scan_module, "_FEWEST_BUCKETS", 64)
    scan(job(corpus), tmp_path, InlineEngine(seed=3))
    assert report(tmp_path) == report(scanned[0])


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_give_the_same_report(
    corpus: Path, scanned: tuple[Path, ScanRecord], tmp_path: Path, workers: int
) -> None:
    from detect.corpus.engines.local import LocalEngine

    scan(job(corpus), tmp_path, LocalEngine(workers))
    assert report(tmp_path) == report(scanned[0])


def words(corpus: Path, output: Path, *more: str) -> list[str]:
    return [
        "scan", str(corpus / "data"), "--spec", str(corpus / "spec.json"),
        "--key", f"file:{corpus / 'owner.key'}", "-o", str(output), "--null-corpus", "none", "--no-pdf", *more,
    ]  # fmt: skip


def command(corpus: Path, output: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "detect.cli", *words(corpus, output, *more)]


def stopped(part: str, count: int, corpus: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    """A scan in a session of its own, which stands still at that moment (see `tests.stopping`)."""
    process = subprocess.Popen(
        stopping.command(part, count, *words(corpus, output, *more)), cwd=stopping.ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    stopping.wait_until_stopped(process)
    return process


def test_a_scan_killed_at_any_moment_goes_on_and_ends_the_same(corpus: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    subprocess.run(command(corpus, whole), check=True, capture_output=True)
    expected = report(whole)
    output = tmp_path / "killed"
    for moment in (1, 2, 3, 4, 5):  # files and folders that the command's own process has made
        process = stopped(WORK, moment, corpus, output, "--keep-work")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    subprocess.run(command(corpus, output), check=True, capture_output=True)
    assert report(output) == expected
    assert not (output / WORK).exists()


def test_an_interrupt_from_the_keyboard_is_one_line_and_the_scan_goes_on(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = stopped("plan.json", 1, corpus, output)  # the scan is under way
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("dyetrace: interrupted;")
    subprocess.run(command(corpus, output), check=True, capture_output=True)
    assert (output / "report.json").exists()


def test_finished_work_is_not_done_again(
    corpus: Path, scanned: tuple[Path, ScanRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(job(corpus), tmp_path, InlineEngine(), keep_work=True)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("done again")

    for name in ("gather_shard", "settle_bucket", "score_block"):
        monkeypatch.setattr(f"detect.corpus.tasks.{name}", never)
    scan(job(corpus), tmp_path, InlineEngine())
    assert report(tmp_path) == report(scanned[0])


def test_another_key_needs_no_new_reading(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan(job(corpus), tmp_path, InlineEngine(), keep_work=True)
    other = SecretKey(bytes(32))
    write_key_file(tmp_path / "other.key", other)
    monkeypatch.setattr("detect.corpus.tasks.gather_shard", None)
    asked = job(corpus, specs=[spec(key_fingerprint=other.fingerprint)], key=f"file:{tmp_path / 'other.key'}")
    assert not scan(asked, tmp_path, InlineEngine()).found


# ---------------------------------------------------------------------------------------------- secrets, traces


def test_work_files_are_private_and_hold_no_key(corpus: Path, tmp_path: Path) -> None:
    scan(job(corpus), tmp_path, InlineEngine(), keep_work=True)
    work = tmp_path / WORK
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    secret = SECRET.reveal_hex().encode()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes() and bytes.fromhex(SECRET.reveal_hex()) not in path.read_bytes()


def test_work_files_are_removed(scanned: tuple[Path, ScanRecord]) -> None:
    assert sorted(path.name for path in scanned[0].iterdir()) == sorted(REPORT)


# ------------------------------------------------------------------------------------------------- bad input


def test_broken_lines_are_skipped_counted_and_listed(corpus: Path, tmp_path: Path) -> None:
    lines = (corpus / "data" / "a.jsonl").read_bytes().splitlines()
    lines[4] = b'{"id": "x", "token_ids": [1, 2'
    lines[9] = b'{"id": "y", "token_ids": "no"}'
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    settings = msgspec.structs.replace(SETTINGS, read=ReadOptions(skip_errors=True))
    record = scan(job(corpus, str(tmp_path / "x.jsonl"), settings=settings), tmp_path / "out", InlineEngine())
    assert (record.inputs[0].records, record.inputs[0].documents, record.inputs[0].skipped) == (60, 58, 2)
    listed = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert [one["record"] for one in listed] == [5, 10]
    with pytest.raises(DyetraceError, match="line 5"):
        scan(job(corpus, str(tmp_path / "x.jsonl")), tmp_path / "stop", InlineEngine())


def test_ids_of_another_tokenizer_are_refused(corpus: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", [np.array([1, 2, 99_999, 3])])
    with pytest.raises(DyetraceError, match="99999, but the spec's vocabulary has 5000"):
        scan(job(corpus, str(tmp_path / "x.jsonl")), tmp_path / "out", InlineEngine())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"specs": [spec(), spec(context_width=3)]}, "context_width"),
        ({"specs": [spec(), spec()]}, "given twice"),
        ({"specs": [WatermarkSpec(scheme="green_list", context_width=0, vocabulary_size=9, tokenizer="t",
                                  key_fingerprint=SECRET.fingerprint)]}, "context width 0"),
        ({"specs": [spec(key_fingerprint="0" * 32)]}, "key"),
        ({"specs": [spec(global_share=0.0)]}, "--tenant"),
        ({"key": "file:/nowhere"}, "/nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_scanned_is_refused_in_one_line(
    corpus: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DyetraceError, match=message) as caught:
        scan(job(corpus, **changes), tmp_path, InlineEngine())
    assert "\n" not in str(caught.value)


def test_text_needs_a_tokenizer(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("Some text of a suspect.")
    with pytest.raises(DyetraceError, match="--tokenizer"):
        scan(job(corpus, str(tmp_path / "x.txt")), tmp_path / "out", InlineEngine())


def test_two_scans_do_not_share_a_work_folder(corpus: Path, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(DyetraceError, match="another scan"):
        scan(job(corpus), tmp_path, InlineEngine())
