"""A control that fails withholds a scan's answer, with the reason, and no report passes over it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.cli.statuses import DOES_NOT_HOLD, UNDECIDED
from detect.corpus import score
from detect.corpus.conclude import marked_control, null_key_log10
from detect.corpus.scan import scan
from detect.corpus.settings import ScanSettings
from detect.keyed.decoys import log10_agreement
from detect.records.reading import read_record, write_record
from detect.records.scan import ScanRecord
from detect.report.scan.wording import control_items
from detect.report.verification import verify_report
from tests.detect.calibration import log10_excess
from tests.detect.corpus.marked import SECRET, InlineEngine, documents, spec, write_jsonl
from tests.detect.corpus.test_scan import job
from tests.detect.report import examples
from watermark.keys import write_key_file
from watermark.spec import write_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("controls")
    write_key_file(made / "owner.key", SECRET)
    write_spec(made / "spec.json", spec())
    write_jsonl(made / "ids.jsonl", [*documents(20, 160, 1), *documents(8, 160, 2, spec())])
    write_jsonl(made / "clean.jsonl", documents(20, 160, 3))
    write_jsonl(made / "not-clean.jsonl", [*documents(20, 160, 4), *documents(4, 160, 5, spec())])
    return made


def command(folder: Path, output: Path, *more: str | Path) -> Result:
    arguments = [
        "scan", folder / "ids.jsonl", "--spec", folder / "spec.json", "--key", f"file:{folder / 'owner.key'}",
        "--workers", "1", "--decoys", "20", "-o", output, *more,
    ]  # fmt: skip
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_marked_control_corpus_withholds_the_answer_and_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    result = command(folder, tmp_path, "--null-corpus", folder / "not-clean.jsonl", "--fail")
    assert result.exit_code == UNDECIDED.number, result.output
    record = read_record(ScanRecord, tmp_path / "report.json")
    assert record.log10_pvalue is None and not record.found
    assert record.refused is not None and "wrong control corpus" in record.refused and "--null-corpus" in record.refused
    assert "No answer is given." in result.stdout and "chosen by this text" in " ".join(result.stdout.split())
    page = (tmp_path / "report.html").read_text()
    assert "No answer is given." in page and "Take note: " in page
    assert verify_report(tmp_path / "report.json").holds


def test_a_clean_control_corpus_lets_the_answer_stand(folder: Path, tmp_path: Path) -> None:
    assert command(folder, tmp_path, "--null-corpus", folder / "clean.jsonl", "--no-pdf").exit_code == 0
    record = read_record(ScanRecord, tmp_path / "report.json")
    assert record.found and record.controls.null_corpus_documents == 20
    assert [item.standing for item in control_items(record)] == ["good", "good", "good"]
    assert any(a.checked and "control corpus of 20 documents" in a.how for a in record.assumptions)


def test_where_there_is_no_control_corpus_the_report_says_so(folder: Path, tmp_path: Path) -> None:
    result = command(folder, tmp_path, "--null-corpus", "none")
    assert "Not there: no control corpus was tested" in result.stdout
    page = (tmp_path / "report.html").read_text()
    assert "Not there: no control corpus was tested" in page
    assert "As it should be: </span>no control corpus" not in page
    assert "(not checked here: There was no control corpus." in page


def test_a_report_that_gives_an_answer_although_its_control_fails_is_refused(tmp_path: Path) -> None:
    record = examples.marked_scan(tmp_path)
    for changes in (
        {"null_corpus_log10_pvalue": -54.0},
        {"null_corpus_log10_pvalue": -4.0},
        {"null_key_log10_pvalue": -9.0},
    ):
        controls = msgspec.structs.replace(record.controls, **changes)
        write_record(tmp_path / "report.json", msgspec.structs.replace(record, controls=controls))
        failed = verify_report(tmp_path / "report.json").failed
        assert [check.name for check in failed] == ["controls"] and "yet an answer is given" in failed[0].line
        shown = CliRunner().invoke(main, ["report", "verify", str(tmp_path / "report.json")])
        assert shown.exit_code == DOES_NOT_HOLD.number
    controls = msgspec.structs.replace(record.controls, null_corpus_log10_pvalue=-3.9, null_key_log10_pvalue=-3.9)
    write_record(tmp_path / "report.json", msgspec.structs.replace(record, controls=controls))
    assert verify_report(tmp_path / "report.json").holds


def test_the_veto_begins_at_one_in_ten_thousand() -> None:
    controls = examples.make_controls()
    assert marked_control(msgspec.structs.replace(controls, null_corpus_log10_pvalue=-3.999)) is None
    assert marked_control(msgspec.structs.replace(controls, null_corpus_log10_pvalue=-4.0)) is not None
    assert marked_control(msgspec.structs.replace(controls, null_corpus=None, null_corpus_log10_pvalue=None)) is None


def test_documents_listed_too_often_under_a_decoy_key_are_seen_though_the_bulk_agrees() -> None:
    log10_ps = np.log10(np.random.default_rng(1).random(20_000))
    assert null_key_log10(log10_ps) > -3
    log10_ps[:12] = -5.5
    assert log10_agreement(log10_ps) > -4 > null_key_log10(log10_ps)


def test_the_check_under_a_decoy_key_is_calibrated() -> None:
    draw = np.random.default_rng(2)
    found = 10.0 ** np.array([null_key_log10(np.log10(draw.random(60))) for _ in range(4_000)])
    for level in (1e-2, 1e-3):
        assert log10_excess(found, level) > -5


def test_a_scan_with_such_documents_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = score._null_log10_pvalues

    def broken(*arguments: object) -> np.ndarray:
        found = np.array(real(*arguments))  # type: ignore[arg-type]
        found[:3] = -5
        return found

    monkeypatch.setattr(score, "_null_log10_pvalues", broken)
    asked = job(folder, str(folder / "ids.jsonl"), settings=ScanSettings(decoys=20))
    record = scan(asked, tmp_path, InlineEngine())
    assert record.refused is not None and "documents under a decoy key" in record.refused and not record.found
    assert verify_report(tmp_path / "report.json").holds
