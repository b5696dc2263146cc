"""Reports that leave the house: who made them, how they are checked, and what they quote of the suspect's texts."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.records.code_hash import code_sha256
from detect.records.detection import Record
from detect.records.reading import read_record, write_record
from detect.records.scan import ScanRecord
from detect.text.natural_text import PROSE_SHA256
from tests.detect.corpus.marked import SECRET, documents, spec, write_jsonl
from watermark.errors import DyetraceError
from watermark.keys import write_key_file
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import write_spec

CANARY = "xylographquixotic"
"""A word of the suspect's that must not be in any file of a report that quotes nothing."""
WHO = ["--examiner", "N. N., Institute of Dyes", "--case", "2026/7"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Path:
    """Marked token ids, and texts with a word that tells of them, in file names, ids and fields' names as well."""
    folder = tmp_path_factory.mktemp("case")
    tokenizer = load_tokenizer(smollm2_dir)
    made = spec(vocabulary_size=vocabulary_size(tokenizer), tokenizer=tokenizer_fingerprint(tokenizer))
    write_key_file(folder / "owner.key", SECRET)
    write_spec(folder / "spec.json", made)
    (folder / "data").mkdir()
    marked = documents(4, 220, 3, made)
    write_jsonl(folder / "data" / "answers.jsonl", marked)
    # A marked document with the word in it: its text begins with it, so that every excerpt would show it.
    word = tokenizer.encode(f"{CANARY} ", add_special_tokens=False).ids
    rows = [{"id": f"{CANARY}-{i}", "token_ids": [*word, *ids.tolist()]} for i, ids in enumerate(marked)]
    lines = [*map(msgspec.json.encode, rows), msgspec.json.encode({CANARY: "no document"})]
    (folder / "data" / f"{CANARY}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "one.jsonl").write_bytes(b"\n".join(lines[:-1]) + b"\n")
    return folder


def scan(case: Path, output: Path, smollm2_dir: Path, *more: str) -> Result:
    key = ["--spec", case / "spec.json", "--key", f"file:{case / 'owner.key'}", "--tokenizer", smollm2_dir]
    plain = ["--decoys", "5", "--workers", "1", "--on-error", "skip"]
    return run("scan", case / "data", *key, *plain, "-o", output, *more)


def detect(case: Path, output: Path, smollm2_dir: Path, *more: str) -> Result:
    key = ["--spec", case / "spec.json", "--key", f"file:{case / 'owner.key'}", "--tokenizer", smollm2_dir]
    return run("detect", case / "one.jsonl", *key, "--decoys", "5", "-o", output, *more)


def inputs(case: Path, kind: str) -> Path:
    return case / "data" if kind == "scan" else case


def recompute(case: Path, kind: str, output: Path, smollm2_dir: Path) -> Result:
    report = output / "report.json"
    where = ["--inputs", case]
    return run("recompute", report, "--key", f"file:{case / 'owner.key'}", "--tokenizer", smollm2_dir, *where)


KINDS = {"scan": scan, "detection": detect}


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, case: Path, smollm2_dir: Path) -> tuple[str, Path, Path, Result, Result]:
    """A report with quotes, by somebody for some case, and one without quotes, by nobody."""
    kind = request.param
    quoted, bare = case / "out" / kind / "quoted", case / "out" / kind / "bare"
    first = KINDS[kind](case, quoted, smollm2_dir, *WHO)
    second = KINDS[kind](case, bare, smollm2_dir, "--no-quotes")
    assert first.exit_code == 0 and second.exit_code == 0, first.output + second.output
    return kind, quoted, bare, first, second


def record_of(folder: Path) -> ScanRecord | Record:
    path = folder / "report.json"
    return read_record(ScanRecord, path) if b'"dyetrace-scan"' in path.read_bytes() else read_record(Record, path)


def test_every_form_says_when_by_whom_and_with_which_code(both: tuple[str, Path, Path, Result, Result]) -> None:
    _, quoted, bare, first, second = both
    record = record_of(quoted)
    assert record.made is not None and record.made.code_sha256 == code_sha256()
    assert (record.made.examiner, record.made.case) == ("N. N., Institute of Dyes", "2026/7")
    moment = datetime.fromisoformat(record.created)
    assert moment.tzinfo == UTC and abs((datetime.now(UTC) - moment).total_seconds()) < 3600
    page, printed = (quoted / "report.html").read_text(), " ".join(first.stdout.split())
    for form in (page, printed):
        assert "N. N., Institute of Dyes" in form and "2026/7" in form
        assert f"{moment:%Y-%m-%d %H:%M} UTC" in form and "How to check this without us" in form
    assert code_sha256() in page and f"code {code_sha256()[:12]}" in printed
    data = (quoted / "report.pdf").read_bytes()
    assert f"D:{moment:%Y%m%d%H%M%S}".encode() in data
    assert len(record.how_to_check) == 6 and any(code_sha256() in line for line in record.how_to_check)
    unsaid = record_of(bare)
    assert unsaid.made is not None and unsaid.made.examiner is None and unsaid.made.case is None
    assert "Examiner" not in (bare / "report.html").read_text() and "examiner" not in second.stdout


def test_who_made_it_changes_no_number(both: tuple[str, Path, Path, Result, Result]) -> None:
    _, quoted, bare, _, _ = both
    told = {"created", "made", "how_to_check", "quotes", "arguments", "files", "hits", "documents", "inputs"}
    one, other = (json.loads((folder / "report.json").read_bytes()) for folder in (quoted, bare))
    assert {n: v for n, v in one.items() if n not in told} == {n: v for n, v in other.items() if n not in told}


def test_quotes_are_announced_before_the_report_is_written(both: tuple[str, Path, Path, Result, Result]) -> None:
    _, _, _, first, second = both
    said = first.stderr
    assert said.index("will quote up to") < said.index("wrote report.json") and "--no-quotes" in said
    assert "quote" not in second.stderr


def test_nothing_of_the_texts_is_in_a_report_without_quotes(both: tuple[str, Path, Path, Result, Result]) -> None:
    kind, quoted, bare, _, second = both
    word = CANARY.encode()
    assert any(word in path.read_bytes() for path in quoted.iterdir())
    for path in bare.iterdir():
        assert word not in path.read_bytes(), path.name
    assert CANARY not in second.output
    if kind == "scan":
        from pyarrow import parquet

        table = parquet.read_table(bare / "documents.parquet")
        assert table.column("id").null_count == len(table)
        assert CANARY in parquet.read_table(quoted / "documents.parquet").column("id").to_pylist()[4]


def test_reports_verify_and_recompute_with_quotes_and_without(
    both: tuple[str, Path, Path, Result, Result], case: Path, smollm2_dir: Path
) -> None:
    kind, quoted, bare, _, _ = both
    for folder in (quoted, bare):
        verified = run("report", "verify", folder / "report.json", "--inputs", inputs(case, kind))
        assert verified.exit_code == 0, verified.output
        assert re.search(r"ok +inputs: all \d inputs have the SHA-256 on record", verified.output)
        again = recompute(case, kind, folder, smollm2_dir)
        assert again.exit_code == 0 and "every number the same" in again.output, again.output


def test_a_report_that_quotes_nothing_and_has_quotes_is_refused(
    both: tuple[str, Path, Path, Result, Result], tmp_path: Path
) -> None:
    _, quoted, _, _, _ = both
    changed = (quoted / "report.json").read_text().replace('"quotes": true', '"quotes": false')
    (tmp_path / "report.json").write_text(changed)
    with pytest.raises(DyetraceError, match="quotes nothing"):
        record_of(tmp_path)


def test_another_way_to_check_it_is_noticed_by_the_code_that_wrote_it(
    both: tuple[str, Path, Path, Result, Result], tmp_path: Path
) -> None:
    _, quoted, _, _, _ = both
    for path in quoted.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    report = (tmp_path / "report.json").read_text()
    (tmp_path / "report.json").write_text(
        report.replace("The key is secret, and never", "Send us your key: it is never")
    )
    verified = run("report", "verify", tmp_path / "report.json")
    assert verified.exit_code == 3 and "how to check it is not what this code writes" in verified.stderr


@pytest.mark.parametrize("option", ["--examiner", "--case"])
@pytest.mark.parametrize("text", ["", "   ", "a\nb", "a\x1b[2Jb", "\u202eabc", "x" * 201])
def test_names_that_nobody_could_read_are_one_line(option: str, text: str, case: Path, tmp_path: Path) -> None:
    refused = run("scan", case / "data", "--spec", "none.json", "--key", "env:NONE", "-o", tmp_path, option, text)
    assert refused.exit_code == 2 and refused.stderr.startswith(f"dyetrace: {option} ")
    assert len(refused.stderr.splitlines()) == 1 and refused.stderr[:-1].isprintable()


@pytest.mark.parametrize("command", [["detect"], ["scan"], ["trace", "weights"], ["trace", "api"], ["trace", "twins"]])
def test_every_command_that_makes_a_report_takes_who_makes_it(command: list[str]) -> None:
    text = " ".join(run(*command, "--help").stdout.split())
    assert "--examiner" in text and "--case" in text
    assert "--no-quotes" in text  # of traces for race readouts alone: others quote nothing


def test_a_detection_prints_its_record_with_a_word_about_quotes(case: Path, smollm2_dir: Path) -> None:
    key = ["--spec", case / "spec.json", "--key", f"file:{case / 'owner.key'}", "--tokenizer", smollm2_dir]
    printed = run("detect", case / "one.jsonl", *key, "--decoys", "0", "--json")
    assert "standard output will quote up to 4 passages" in printed.stderr and CANARY in printed.stdout
    bare = run("detect", case / "one.jsonl", *key, "--decoys", "0", "--json", "--no-quotes")
    assert "quote up to" not in bare.stderr and CANARY not in bare.stdout.replace("one.jsonl", "")
    refused = run("detect", case / "one.jsonl", *key, "--decoys", "0", "--pdf")
    assert refused.exit_code == 2 and "-o" in refused.stderr


@pytest.fixture(scope="module")
def controlled(case: Path, tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("controlled")
    done = scan(case, folder, smollm2_dir, "--no-pdf")
    assert done.exit_code == 0, done.output
    return folder


def test_the_control_corpus_is_on_record_by_its_hash(controlled: Path) -> None:
    record = read_record(ScanRecord, controlled / "report.json")
    assert [one.sha256 for one in record.controls.null_corpus_inputs] == [PROSE_SHA256]
    assert record.controls.null_corpus is not None and "Python 3.11.7" in record.controls.null_corpus
    assert PROSE_SHA256 in (controlled / "report.html").read_text()


def test_an_older_report_with_another_pythons_text_says_so_in_a_line(
    controlled: Path, case: Path, tmp_path: Path, smollm2_dir: Path
) -> None:
    """Its other numbers are compared all the same."""
    record = read_record(ScanRecord, controlled / "report.json")
    controls = msgspec.structs.replace(
        record.controls,
        null_corpus="the documentation of Python's own language and library",
        null_corpus_inputs=[],
        null_corpus_documents=record.controls.null_corpus_documents - 3,
        null_corpus_log10_pvalue=-0.25,
        null_corpus_histogram=[1] * 20,
    )
    older = msgspec.structs.replace(
        record,
        controls=controls,
        made=None,
        created="",
        how_to_check=[],
        versions=record.versions | {"python": "3.12.1"},
    )
    write_record(tmp_path / "report.json", older)
    again = recompute(case, "scan", tmp_path, smollm2_dir)
    assert again.exit_code == 0, again.output
    assert [line for line in again.stderr.splitlines() if "3.12.1" in line] == [
        "not compared: what this older report says of its control corpus, which was the documentation of the Python "
        "that made it (3.12.1) and gives other numbers than the text that comes with dyetrace now"
    ]
    wrong = msgspec.structs.replace(older, tokens=older.tokens + 1)
    write_record(tmp_path / "report.json", wrong)
    refused = recompute(case, "scan", tmp_path, smollm2_dir)
    assert refused.exit_code == 3 and "report.tokens" in refused.stderr
