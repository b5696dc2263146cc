"""Records whose token ids are another tokenizer's are read by their text, and this is said and stays on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.document.recompute import recompute
from detect.readers.suspects import read_suspects
from detect.records.detection import Record
from detect.records.reading import read_record, write_record
from detect.report.verification import verify_report
from tests.golden.make import HERE as GOLDEN
from tests.golden.make import KEY, SECRET
from watermark.keys import KeyRing, SecretKey
from watermark.models.tokenizer import load_tokenizer

OPTIONS = ["--spec", GOLDEN / "spec.json", "--tokenizer", GOLDEN / "tokenizer.json", "--key", KEY, "--decoys", "9"]
ACCOUNTS = ["--tenant", "acme", "--tenant", "zenith"]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY.partition(":")[2], SECRET.hex())


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def answers() -> list[dict[str, Any]]:
    lines = (GOLDEN / "answers.jsonl").read_text("utf-8").splitlines()[:6]
    return [json.loads(line) for line in lines]


def detected(folder: Path, lines: list[dict[str, Any]], *more: str) -> tuple[Record, str]:
    source = folder / "s.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("detect", source, *OPTIONS, *ACCOUNTS, "-o", folder / "out", "--force", *more)
    assert done.exit_code == 0, done.output
    return read_record(Record, folder / "out" / "report.json"), done.stderr


def other(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "token_ids": [(one * 7 + 3) % 95 for one in line["token_ids"]]}


def log10_ps(record: Record) -> list[float | None]:
    return [document.log10_pvalue for document in record.documents]


def test_ids_of_another_tokenizer_do_not_hide_a_mark(tmp_path: Path) -> None:
    lines = answers()
    by_ids, told = detected(tmp_path, lines)
    assert by_ids.unlike_text == 0 and "other text" not in told
    by_text, _ = detected(tmp_path, lines, "--from-text")
    assert by_text.unlike_text is None and min(log10_ps(by_text)) < -6  # type: ignore[type-var,operator]
    mixed, told = detected(tmp_path, [*map(other, lines[:4]), *lines[4:]])
    assert log10_ps(mixed) == [*log10_ps(by_text)[:4], *log10_ps(by_ids)[4:]]
    assert mixed.unlike_text == 4 and told.count("the token ids of 4 documents spell other text") == 1
    assert any("those of 4 documents spell other text" in one.how for one in mixed.assumptions)
    beyond, _ = detected(tmp_path, [{**lines[0], "token_ids": [4_000_000]}])
    assert beyond.unlike_text == 1 and log10_ps(beyond) == log10_ps(by_text)[:1]


def test_ids_without_a_text_are_read_as_they_stand(tmp_path: Path) -> None:
    lines = [{"token_ids": other(line)["token_ids"]} for line in answers()]
    found, _ = detected(tmp_path, lines)
    assert found.unlike_text is None and any("taken as they stand" in one.how for one in found.assumptions)
    emptied = [{**line, "text": ""} for line in answers()]
    assert log10_ps(detected(tmp_path, emptied)[0]) == log10_ps(detected(tmp_path, answers())[0])


def test_what_was_read_is_verified_and_recomputed(tmp_path: Path) -> None:
    record, _ = detected(tmp_path, [*map(other, answers()[:2]), *answers()[2:]])
    report = tmp_path / "out" / "report.json"
    assert verify_report(report).holds and run("recompute", report, "--key", KEY, *OPTIONS[2:4]).exit_code == 0
    for edited in (0, 3):
        write_record(report, msgspec.structs.replace(record, unlike_text=edited))
        assert not verify_report(report).holds


def test_a_report_of_an_earlier_release_took_ids_as_they_stand(tmp_path: Path) -> None:
    """Its ids are read as then, so that it can be recomputed."""
    from detect.document.detection import Settings, detect

    lines = [other(line) for line in answers()]
    record, _ = detected(tmp_path, lines)
    source, ring = tmp_path / "s.jsonl", KeyRing.from_master(SecretKey(SECRET), record.spec.epoch, ("acme", "zenith"))
    suspects, read = read_suspects(str(source))
    tokenizer = load_tokenizer(GOLDEN / "tokenizer.json")
    settings = Settings(decoy_count=9)
    before = detect(suspects, [read], record.spec, ring, tokenizer, settings, held=False, arguments=record.arguments)
    assert before.unlike_text is None and log10_ps(before) != log10_ps(record)
    assert recompute(before, ring, tokenizer, tmp_path / "report.json") == []
    assert recompute(record, ring, tokenizer, tmp_path / "report.json") == []


def test_ids_beyond_the_vocabulary_without_a_text_stay_an_error(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"token_ids": [4000000]}\n')
    done = run("detect", tmp_path / "s.jsonl", *OPTIONS)
    assert done.exit_code == 2 and "its ids come from another tokenizer" in done.output
