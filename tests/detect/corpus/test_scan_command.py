"""`dyetrace scan` and what follows it: reports that verify, recompute and say in one line what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.cli.statuses import BAD_INPUT, DOES_NOT_HOLD, FOUND
from detect.corpus import score
from detect.corpus.forecast import forecast
from detect.corpus.recompute import recompute_scan
from detect.corpus.scan import scan
from detect.corpus.settings import ScanSettings
from detect.laws.tails import log10_sf_pairs
from detect.records.reading import read_record
from detect.records.scan import ScanRecord
from detect.text.natural_text import natural_documents
from tests.detect.corpus.marked import SECRET, InlineEngine, documents, spec, write_jsonl
from tests.detect.corpus.test_scan import job
from watermark.keys import SecretKey, write_key_file
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, write_spec


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Path:
    """Keys, specs, a corpus of token ids with marked documents, and natural text."""
    made = tmp_path_factory.mktemp("command")
    write_key_file(made / "owner.key", SECRET)
    write_spec(made / "spec.json", spec())
    write_jsonl(made / "ids.jsonl", [*documents(40, 160, 1), *documents(8, 160, 2, spec())])
    tokenizer = load_tokenizer(smollm2_dir)
    real = WatermarkSpec(
        vocabulary_size=vocabulary_size(tokenizer),
        tokenizer=tokenizer_fingerprint(tokenizer),
        key_fingerprint=SECRET.fingerprint,
    )
    write_spec(made / "real.json", real)
    texts = [{"id": name, "text": text} for name, text in natural_documents("licences", 20)]
    (made / "text.jsonl").write_bytes(b"".join(msgspec.json.encode(text) + b"\n" for text in texts))
    return made


def scan_ids(folder: Path, output: Path, *more: str | Path) -> Result:
    return run(
        "scan", folder / "ids.jsonl", "--spec", folder / "spec.json", "--key", f"file:{folder / 'owner.key'}",
        "-o", output, "--workers", "2", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("found")
    return output, scan_ids(folder, output, "--fail", "--json")


def test_a_marked_corpus_is_found_and_the_report_is_whole(found: tuple[Path, Result]) -> None:
    output, result = found
    assert result.exit_code == FOUND.number, result.output
    record = json.loads(result.stdout)
    assert record["found"] and record["discoveries"]["benjamini_hochberg"] >= 8
    assert record["controls"]["null_corpus"] is None  # no tokenizer was needed, so there is none for text
    names = {path.name for path in output.iterdir()}
    assert names == {
        "report.json", "report.html", "report.pdf", "run.json", "documents.parquet", "hits.jsonl", "skipped.jsonl"
    }  # fmt: skip
    assert (output / "report.pdf").read_bytes().startswith(b"%PDF-")
    told = {"format", "version", "started", "seconds", "stages", "engine", "host"}
    assert set(json.loads((output / "run.json").read_text())) == told


def test_the_report_verifies_until_a_byte_changes(folder: Path, found: tuple[Path, Result], tmp_path: Path) -> None:
    output, _ = found
    assert run("report", "verify", output / "report.json").exit_code == 0
    for path in output.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table = bytearray((tmp_path / "documents.parquet").read_bytes())
    table[len(table) // 2] ^= 1
    (tmp_path / "documents.parquet").write_bytes(table)
    result = run("report", "verify", tmp_path / "report.json")
    assert result.exit_code == DOES_NOT_HOLD.number and "documents.parquet" in result.stderr


def test_the_report_recomputes_and_a_changed_number_is_named(folder: Path, found: tuple[Path, Result]) -> None:
    record = read_record(ScanRecord, found[0] / "report.json")
    key = f"file:{folder / 'owner.key'}"
    assert recompute_scan(record, key, None, Path("/"), None, InlineEngine()) == []
    first = record.hypotheses[0]
    changed = msgspec.structs.replace(
        record, hypotheses=[msgspec.structs.replace(first, tuples=first.tuples + 1)], tokens=record.tokens - 1
    )
    differences = recompute_scan(changed, key, None, Path("/"), None, InlineEngine())
    assert [line.split(" ")[0] for line in differences] == ["report.tokens", "report.hypotheses[0].tuples"]


def test_natural_text_is_not_found_and_the_null_corpus_is_tested_beside_it(
    folder: Path, smollm2_dir: Path, tmp_path: Path
) -> None:
    result = run(
        "scan", folder / "text.jsonl", "--spec", folder / "real.json", "--key", f"file:{folder / 'owner.key'}",
        "--tokenizer", smollm2_dir, "-o", tmp_path / "out", "--no-pdf", "--fail", "--decoys", "30",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = read_record(ScanRecord, tmp_path / "out" / "report.json")
    assert not record.found and record.inputs[0].kind == "text" and record.documents == 20
    assert record.controls.null_corpus_documents > 100
    assert record.controls.null_corpus_log10_pvalue is not None and record.controls.null_corpus_log10_pvalue > -4
    assert "encoded with" in record.encoder


def test_a_dry_run_says_cost_and_power_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    result = scan_ids(folder, tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "about 7,680 tokens in 48 documents, judged by a part of 1 file" in result.output
    assert "3 s to 3 min with 2 workers; the more where the machine is busy" in result.output
    assert "p <= 1e-06 with probability 95% needs one document of about 22 to 515 marked tokens" in result.output
    assert "scattered over all documents, 9.32% to 45.20% of the tokens marked" in result.output
    assert not (tmp_path / "out").exists()
    few = forecast(job(folder, str(folder / "ids.jsonl"), settings=ScanSettings(sample=0.5)), 4)
    assert few.tokens == 3840 and few.workers == 4


@pytest.mark.parametrize(("count", "length"), [(20, 900), (60, 600), (120, 600)])
def test_what_a_dry_run_says_could_be_found_holds_the_truth(
    count: int, length: int, folder: Path, tmp_path: Path
) -> None:
    """What is found of one marked document, and of marked tokens in all of them, lies in the ranges that are said."""
    plain, path = documents(count, length, 3), tmp_path / "ids.jsonl"

    def found(name: str, rows: list[np.ndarray]) -> bool:
        made = job(folder, str(write_jsonl(path, rows)), settings=ScanSettings(decoys=3))
        return scan(made, tmp_path / name, InlineEngine()).found

    (said,) = forecast(job(folder, str(write_jsonl(path, plain))), 2).power
    assert said.tokens_most < length and said.share_most < 1
    for name, tokens, wanted in (("few", said.tokens_least // 2, False), ("many", said.tokens_most, True)):
        assert found(name, [documents(1, tokens, 4, spec())[0], *plain[1:]]) == wanted
    for name, share, wanted in (("thin", said.share_least / 3, False), ("thick", said.share_most, True)):
        begin = documents(count, round(share * length), 5, spec())
        assert found(name, [np.concatenate([b, p[len(b) :]]) for b, p in zip(begin, plain, strict=True)]) == wanted


def test_limit_and_sample_take_fewer_documents_and_say_so(folder: Path, tmp_path: Path) -> None:
    limited = scan(
        job(folder, str(folder / "ids.jsonl"), settings=ScanSettings(limit=7, decoys=3)), tmp_path / "a", InlineEngine()
    )
    assert limited.documents == 7
    sampled = scan(
        job(folder, str(folder / "ids.jsonl"), settings=ScanSettings(sample=0.4, decoys=3)),
        tmp_path / "b",
        InlineEngine(),
    )
    assert 8 <= sampled.documents <= 32


def test_a_mark_in_a_part_of_a_long_document_is_found_and_located(folder: Path, tmp_path: Path) -> None:
    long = documents(3, 6000, 5)
    long[1, 2500:2680] = documents(1, 180, 6, spec())[0]
    record = scan(job(folder, str(write_jsonl(tmp_path / "x.jsonl", long))), tmp_path / "out", InlineEngine())
    [hit] = record.hits
    assert hit.record == 2 and hit.log10_pvalue < -10
    [segment] = hit.segments
    assert 2490 <= segment.start <= 2520 and 2660 <= segment.end <= 2690
    assert len(long[1]) > score.LONG


def test_a_reference_gives_the_marked_share_of_tokens_an_upper_limit(folder: Path, tmp_path: Path) -> None:
    reference = str(write_jsonl(tmp_path / "answers.jsonl", documents(60, 160, 7, spec())))
    rows = [*documents(70, 160, 8), *documents(30, 160, 9, spec())]
    asked = job(folder, str(write_jsonl(tmp_path / "x.jsonl", rows)), reference=[reference])
    share = scan(asked, tmp_path / "out", InlineEngine()).shares.tokens
    assert share.estimate is not None and share.high is not None
    assert share.low < 0.3 < share.high < 0.45
    assert share.estimate == pytest.approx(0.3, abs=0.06)


def bad(folder: Path, tmp_path: Path, smollm2_dir: Path, what: str) -> list[Any]:
    key, ids, made = f"file:{folder / 'owner.key'}", folder / "ids.jsonl", folder / "spec.json"
    if what == "missing file":
        ids = tmp_path / "nowhere.jsonl"
    elif what == "empty file":
        ids = tmp_path / "empty.jsonl"
        ids.touch()
    elif what == "other key":
        write_key_file(tmp_path / "other.key", SecretKey(bytes(32)))
        key = f"file:{tmp_path / 'other.key'}"
    elif what == "cut spec":
        made = tmp_path / "cut.json"
        made.write_bytes((folder / "spec.json").read_bytes()[:40])
    arguments = ["scan", ids, "--spec", made, "--key", key, "-o", tmp_path / "out"]
    more: dict[str, list[Any]] = {
        "unknown field": ["--field", "nothing"],
        "other tokenizer": ["--tokenizer", smollm2_dir],
        "impossible level": ["--alpha", "2"],
        "impossible share": ["--sample", "0"],
        "unknown reference": ["--reference", tmp_path / "none.jsonl"],
        "tenant of no spec": ["--tenant", "no such\nname"],
    }
    return arguments + more.get(what, [])


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing file", "nowhere.jsonl"),
        ("empty file", "empty"),
        ("other key", "key"),
        ("cut spec", "cut.json"),
        ("unknown field", "'nothing'"),
        ("other tokenizer", "tokenizer"),
        ("impossible level", "alpha"),
        ("impossible share", "sample"),
        ("unknown reference", "none.jsonl"),
        ("tenant of no spec", "tenant"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(
    folder: Path, tmp_path: Path, smollm2_dir: Path, what: str, says: str
) -> None:
    result = run(*bad(folder, tmp_path, smollm2_dir, what))
    assert result.exit_code == BAD_INPUT.number, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("dyetrace: ")]
    assert len(lines) == 1 and says in lines[0]
    assert SECRET.reveal_hex() not in result.output
    assert not (tmp_path / "out" / "report.json").exists()


def test_an_answer_that_the_decoys_contradict_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document test that is broken for this text shows under keys that nobody used, and then nothing is found."""
    real = log10_sf_pairs
    monkeypatch.setattr(score, "log10_sf_pairs", lambda law, ns, totals: np.minimum(real(law, ns, totals) * 3 - 1, 0))
    record = scan(job(folder, str(folder / "ids.jsonl")), tmp_path, InlineEngine())
    assert record.refused is not None and "contradict" in record.refused
    assert record.log10_pvalue is None and not record.found
