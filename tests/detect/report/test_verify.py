"""Verification of reports: what is whole holds; changed bytes of a signed report and changed numbers do not."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from detect.cli.main import main
from detect.records.how_to_check import in_words
from detect.records.made import made_by
from detect.records.reading import encode_record, parse_record, read_record, write_record
from detect.records.scan import ScanRecord
from detect.records.text_assumptions import of_scan
from detect.report.signature import public_key_path, sign, signature_path, write_signing_key
from detect.report.verification import Verification, verify_report
from tests.detect.report import examples
from tests.detect.report.detection.examples import make_document, make_record
from watermark.errors import DyetraceError

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a marked scan (four keys), one with a single key, and a signing key."""
    folder = tmp_path_factory.mktemp("made")
    examples.marked_scan(folder / "marked")
    examples.make_scan(folder / "single", examples.make_corpus(4, 70, 9, ("global",)))
    examples.clean_scan(folder / "clean")
    examples.refused_scan(folder / "refused")
    write_signing_key(folder / "owner.pem")
    return folder


@pytest.fixture
def scan(made: Path, tmp_path: Path) -> Path:
    """A copy of the marked scan to change; the path of its report."""
    shutil.copytree(made / "marked", tmp_path / "scan")
    return tmp_path / "scan" / "report.json"


def outcomes(found: Verification) -> dict[str, str]:
    return {check.name: check.outcome for check in found.checks}


@pytest.mark.parametrize("kind", ["marked", "single", "clean", "refused"])
def test_untouched_reports_hold(kind: str, made: Path) -> None:
    found = verify_report(made / kind / "report.json")
    assert found.holds, found.failed
    left = {name for name, outcome in outcomes(found).items() if outcome == "not done"}
    assert left == {"signature", "inputs", "code"}


def test_signed_report_holds_against_the_key_given(scan: Path, made: Path) -> None:
    sign(scan, f"file:{made / 'owner.pem'}")
    given = verify_report(scan, public_key=public_key_path(made / "owner.pem"))
    assert given.holds and "signed by the key given" in given.checks[1].line
    alone = verify_report(scan)
    assert alone.holds and "which the signature itself names" in alone.checks[1].line


def test_signature_of_another_key_or_none_fails_where_a_key_is_given(scan: Path, made: Path, tmp_path: Path) -> None:
    write_signing_key(tmp_path / "other.pem")
    public = public_key_path(made / "owner.pem")
    missing = verify_report(scan, public_key=public)
    assert outcomes(missing)["signature"] == "failed" and "no signature" in missing.failed[0].line
    sign(scan, f"file:{tmp_path / 'other.pem'}")
    other = verify_report(scan, public_key=public)
    assert [check.name for check in other.failed] == ["signature"]


def test_every_changed_byte_of_a_signed_report_is_found(scan: Path, made: Path) -> None:
    sign(scan, f"file:{made / 'owner.pem'}")
    public = public_key_path(made / "owner.pem")
    # Reading a whole report again for each byte takes long: a prime stride reaches every kind of place.
    for path, stride in ((scan, 1499), (signature_path(scan), 7)):
        whole = path.read_bytes()
        for i in [*range(0, len(whole), stride), len(whole) - 1]:
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
            assert outcomes(verify_report(scan, public_key=public))["signature"] == "failed"
        path.write_bytes(whole)
    assert verify_report(scan, public_key=public).holds


@pytest.mark.parametrize("name", ["documents.parquet", "hits.jsonl", "skipped.jsonl"])
def test_every_changed_byte_of_a_file_is_found(name: str, scan: Path) -> None:
    path = scan.parent / name
    whole = path.read_bytes()
    for i in [*range(0, len(whole), max(1, len(whole) // 23)), len(whole) - 1]:
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :])
        found = verify_report(scan)
        assert [check.name for check in found.failed] == ["files"] and name in found.failed[0].line
    path.write_bytes(whole + b"\n")
    assert not verify_report(scan).holds
    path.unlink()
    assert f"{name} is missing" in verify_report(scan).failed[0].line


# What only a signature protects: descriptions, hashes of files that are elsewhere, and numbers that none follows from.
# (Of long lists of numbers the extreme ones count; a total may differ by less than p-values are rounded by.)
FREE = {
    "arguments.on_error", "arguments.paths.[]", "arguments.roles.[]", "arguments.tenants.[]", "commitment.created",
    "commitment.sha256", "commitment.version", "controls.decoy_log10_pvalues.[]", "controls.decoy_seed",
    "controls.decoy_tuples", "controls.null_corpus", "controls.null_corpus_discoveries",
    "controls.null_corpus_log10_pvalue", "controls.null_key_discoveries", "created", "encoder", "made.case",
    "made.code_sha256", "made.examiner",
    "hypotheses.[].smallest_log10_pvalues.[]", "hypotheses.[].subkeys.[].total", "inputs.[].bytes", "inputs.[].column",
    "inputs.[].columns.[].characters", "inputs.[].columns.[].kind", "inputs.[].columns.[].name",
    "inputs.[].columns.[].records", "inputs.[].turns.[].characters", "inputs.[].turns.[].count",
    "inputs.[].turns.[].part", "inputs.[].turns.[].role", "inputs.[].form", "inputs.[].kind",
    "inputs.[].name", "inputs.[].records", "inputs.[].sha256",
    "shares.documents.confidence", "shares.documents.method", "shares.tokens.confidence", "shares.tokens.low",
    "shares.tokens.method", "tuples", "versions.dyetrace", "versions.numpy", "versions.python",
}  # fmt: skip


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every field of a record with its place; of a list the first and the last entry."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, (*path, name))
    elif isinstance(value, list):
        for i in sorted({0, len(value) - 1}) if value else []:
            yield from _leaves(value[i], (*path, i))
    else:
        yield path, value


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value[:-1] + ("1" if value.endswith("0") else "0")
    return value + 1 if isinstance(value, int) else value * 1.001 - 0.001


def test_changed_fields_of_an_unsigned_report_are_found_but_for_those_that_nothing_follows_from(scan: Path) -> None:
    fields = json.loads(scan.read_bytes())
    unnoticed, looked_at = set(), 0
    for path, value in _leaves(fields):
        if value is None:
            continue
        changed = copy.deepcopy(fields)
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = _other(value)
        looked_at += 1
        try:
            scan.write_bytes(encode_record(parse_record(ScanRecord, json.dumps(changed).encode(), scan)))
        except DyetraceError:
            continue
        if verify_report(scan).holds:
            unnoticed.add(".".join("[]" if isinstance(step, int) else step for step in path))
    assert looked_at > 150 and unnoticed <= FREE


def test_white_space_and_order_of_a_report_are_part_of_it(scan: Path) -> None:
    fields = json.loads(scan.read_bytes())
    scan.write_text(json.dumps(fields))
    found = verify_report(scan)
    assert [check.name for check in found.failed] == ["record"] and "not written as dyetrace" in found.failed[0].line


def test_what_a_signature_alone_protects_is_said(scan: Path) -> None:
    write_record(scan, replace(read_record(ScanRecord, scan), encoder="another"))
    found = verify_report(scan)
    assert found.holds and "names, dates, versions, arguments" in found.checks[1].line


def by_this_code(record: ScanRecord) -> ScanRecord:
    """The record as this code would say in words what it holds."""
    record = replace(record, made=made_by(), pairs_paid=record.discoveries.tested * len(record.hypotheses))
    return replace(record, assumptions=of_scan(record, record.unread, False), how_to_check=in_words(record))


@pytest.mark.parametrize("what", ["said", "checked", "left out", "of p-values"])
def test_changed_words_of_a_report_are_seen_by_the_code_that_wrote_them(what: str, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "clean", tmp_path / "scan")
    scan = tmp_path / "scan" / "report.json"
    record = by_this_code(read_record(ScanRecord, scan))
    write_record(scan, record)
    assert verify_report(scan).holds and outcomes(verify_report(scan))["assumptions"] == "ok"
    first, *others = record.assumptions
    words = {
        "said": replace(record, assumptions=[replace(first, how="The police held it."), *others]),
        "checked": replace(record, assumptions=[replace(first, checked=True), *others]),
        "left out": replace(record, assumptions=others),
        "of p-values": replace(record, calibration="They are exact."),
    }
    write_record(scan, words[what])
    assert [check.name for check in verify_report(scan).failed] == ["assumptions"]


def test_what_is_no_date_is_seen(scan: Path) -> None:
    write_record(scan, replace(read_record(ScanRecord, scan), created="long ago"))
    assert [check.name for check in verify_report(scan).failed] == ["record"]


def test_pairs_that_nobody_paid_for_are_seen_where_no_older_release_wrote_it(scan: Path) -> None:
    write_record(scan, replace(by_this_code(read_record(ScanRecord, scan)), pairs_paid=0))
    assert [check.name for check in verify_report(scan).failed] == ["hits"]


def _first_key(record: ScanRecord, **changes: Any) -> ScanRecord:
    return replace(record, hypotheses=[replace(record.hypotheses[0], **changes), *record.hypotheses[1:]])


def _first_total(record: ScanRecord) -> ScanRecord:
    tally = record.hypotheses[0].subkeys[0]
    changed = [replace(tally, total=tally.total + 2**24 * 50), *record.hypotheses[0].subkeys[1:]]
    return _first_key(record, subkeys=changed)


def _input(record: ScanRecord, **changes: Any) -> ScanRecord:
    return replace(record, inputs=[replace(record.inputs[0], **changes), *record.inputs[1:]])


CHANGES: list[tuple[str, str, Callable[[ScanRecord], ScanRecord]]] = [
    ("specs", "specs", lambda r: replace(r, spec_ids=["dt1-" + "0" * 32])),
    ("fingerprint", "specs", lambda r: replace(r, key_fingerprint="f" * 32)),
    ("tuples of a key", "keys", lambda r: _first_key(r, tuples=r.hypotheses[0].tuples - 1000)),
    ("total", "keys", _first_total),
    ("pooled", "keys", lambda r: _first_key(r, log10_pvalue_pooled=-400.0)),
    ("rare", "keys", lambda r: _first_key(r, log10_pvalue_rare=-400.0)),
    ("documents of a key", "keys", lambda r: _first_key(r, documents=100)),
    ("both", "keys", lambda r: _first_key(r, log10_pvalue=-400.0)),
    ("holm", "answer", lambda r: _first_key(r, log10_pvalue_adjusted=-300.0)),
    ("corpus p", "answer", lambda r: replace(r, log10_pvalue=-300.0)),
    ("found", "answer", lambda r: replace(r, found=False)),
    ("alpha", "answer", lambda r: replace(r, alpha=1e-300)),
    ("agreement", "controls", lambda r: replace(r, controls=replace(r.controls, decoy_log10_agreement=-0.5))),
    ("a decoy left out", "controls", lambda r: replace(
        r, controls=replace(r.controls, decoy_log10_pvalues=r.controls.decoy_log10_pvalues[:50]))),
    ("null key", "controls", lambda r: replace(r, controls=replace(r.controls, null_key_histogram=[0] * 20))),
    ("documents", "documents", lambda r: replace(r, documents=r.documents + 1)),
    ("tokens", "documents", lambda r: replace(r, tokens=r.tokens + 1)),
    ("distinct", "documents", lambda r: replace(r, distinct_tuples=r.distinct_tuples + 1)),
    ("skipped", "skipped", lambda r: _input(r, skipped=0, skipped_first=[])),
    ("files not read", "skipped", lambda r: replace(r, unread=0, unread_first=[])),
    ("a file not read", "skipped", lambda r: replace(r, unread_first=[replace(r.unread_first[0], name="other")])),
    ("field that was read", "documents", lambda r: _input(r, column="prompt")),
    ("fields chosen", "documents", lambda r: _input(
        r, columns=[replace(column, read=True) for column in r.inputs[0].columns])),
    ("turns wanted and not read", "documents", lambda r: replace(r, inputs=[*r.inputs[:2], replace(
        r.inputs[2], turns=[replace(turn, read=False) if turn.part == "reasoning" else turn
                            for turn in r.inputs[2].turns])])),
    ("turns of no chat", "documents", lambda r: _input(r, turns=r.inputs[2].turns)),
    ("argument", "answer", lambda r: replace(r, arguments=r.arguments | {"fdr": 0.01})),
    ("tokens of an input", "documents", lambda r: _input(r, tokens=1)),
    ("smallest", "keys and documents", lambda r: _first_key(
        r, smallest_log10_pvalues=[-0.001 for _ in r.hypotheses[0].smallest_log10_pvalues])),
    ("listed", "discoveries", lambda r: replace(r, discoveries=replace(r.discoveries, benjamini_hochberg=3))),
    ("by e-values", "discoveries", lambda r: replace(r, discoveries=replace(r.discoveries, e_benjamini_hochberg=3))),
    ("listed tokens", "discoveries", lambda r: replace(r, discoveries=replace(r.discoveries, tokens=3))),
    ("rate", "discoveries", lambda r: replace(r, discoveries=replace(r.discoveries, rate=0.9))),
    ("histogram", "histogram", lambda r: replace(r, histogram=[r.histogram[1], r.histogram[0], *r.histogram[2:]])),
    ("share", "shares", lambda r: replace(
        r, shares=replace(r.shares, documents=replace(r.shares.documents, low=0.001)))),
    ("hits", "hits", lambda r: replace(r, hits=r.hits[1:])),
    ("excerpt", "hits", lambda r: replace(r, hits=[replace(r.hits[0], excerpt="other"), *r.hits[1:]])),
    ("pointed", "hits", lambda r: _first_key(r, pointed=r.hypotheses[0].pointed + 1)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "check"), [(c, name) for _, name, c in CHANGES], ids=[c[0] for c in CHANGES])
def test_every_number_that_follows_from_others_is_checked(
    change: Callable[[ScanRecord], ScanRecord], check: str, scan: Path
) -> None:
    write_record(scan, change(read_record(ScanRecord, scan)))
    assert check in {failed.name for failed in verify_report(scan).failed}


def _rewrite(report: Path, column: str, row: int, value: Any) -> None:
    """Change a cell of documents.parquet and put the file's new hash on record, as one would who falsifies."""
    from pyarrow import parquet

    path = report.parent / "documents.parquet"
    columns = parquet.read_table(path).to_pydict()
    columns[column][row] = value
    record = read_record(ScanRecord, report)
    examples.write_documents(path, columns, [h.key for h in record.hypotheses])
    write_record(report, replace(record, files=examples.hashes(report.parent)))


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [
        ("tokens", 1, "documents"),
        ("tuples", 7, "documents"),
        ("record", 1000, "documents"),
        ("input", 2, "documents"),
        ("totals", [2**30] * 4, "document p-values"),
        ("log10_pvalue", -9.0, "document p-values"),
        ("key_tuples", 3, "document p-values"),
        ("log10_pvalue_adjusted", -9.0, "discoveries"),
        ("log10_evalue", 40.0, "discoveries"),
        ("found", True, "discoveries"),
        ("totals", [1, 2], "documents"),
        ("id", "another", None),
    ],
)
def test_every_column_of_the_table_is_checked(column: str, value: Any, check: str | None, scan: Path) -> None:
    record = read_record(ScanRecord, scan)
    row = next(i for i in range(5, record.documents) if i not in {hit.ordinal for hit in record.hits})
    _rewrite(scan, column, row, value)
    failed = {check.name for check in verify_report(scan).failed}
    assert failed == set() if check is None else check in failed


def test_ids_and_keys_of_hits_are_checked(scan: Path) -> None:
    row = read_record(ScanRecord, scan).hits[0].ordinal
    _rewrite(scan, "id", row, "another")
    assert "its id is not the table's" in verify_report(scan).failed[0].line
    _rewrite(scan, "key", row, "tenant:zenith")
    assert not verify_report(scan).holds


def test_log_of_hits_must_be_the_listed_documents(scan: Path) -> None:
    path = scan.parent / "hits.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    write_record(scan, replace(read_record(ScanRecord, scan), files=examples.hashes(scan.parent)))
    assert [check.name for check in verify_report(scan).failed] == ["hits"]


def test_inputs_are_compared_where_their_folder_is_given(scan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "crawl").mkdir(parents=True)
    record = read_record(ScanRecord, scan)
    inputs = []
    for number, source in enumerate(record.inputs):
        data = f"{number}\n".encode() * 100
        # The last one is found by the end of its name alone.
        (folder / (source.name if number < 2 else Path(source.name).name)).write_bytes(data)
        name = f"/elsewhere/{source.name}" if number == 2 else source.name
        inputs.append(replace(source, name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))
    write_record(scan, replace(record, inputs=inputs))
    found = verify_report(scan, inputs=folder)
    assert outcomes(found)["inputs"] == "ok", found.checks
    (folder / record.inputs[1].name).write_bytes(b"changed")
    assert "is not the file of the report" in verify_report(scan, inputs=folder).failed[0].line
    (folder / record.inputs[1].name).unlink()
    assert "is not in" in verify_report(scan, inputs=folder).failed[0].line


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/documents.parquet"])
def test_files_outside_the_folder_are_never_looked_at(name: str, scan: Path) -> None:
    record = read_record(ScanRecord, scan)
    write_record(scan, replace(record, files=[replace(record.files[0], name=name), *record.files[1:]]))
    assert "outside its folder" in verify_report(scan).failed[0].line


def test_inputs_outside_the_folder_are_never_looked_at(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "data").mkdir()
    record = read_record(ScanRecord, scan)
    write_record(scan, replace(record, inputs=[replace(i, name="../secret") for i in record.inputs]))
    assert "is not in" in verify_report(scan, inputs=tmp_path / "data").failed[0].line


def test_damaged_record_fails_and_a_missing_one_is_an_error(scan: Path) -> None:
    scan.write_bytes(scan.read_bytes()[:-200])
    assert [check.name for check in verify_report(scan).failed] == ["record"]
    with pytest.raises(DyetraceError, match="cannot read record"):
        verify_report(scan.parent / "absent.json")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["report", *(str(argument) for argument in arguments)])


def test_commands_make_keys_sign_verify_and_render(scan: Path, tmp_path: Path) -> None:
    key = tmp_path / "me.pem"
    assert run("keygen", key).exit_code == 0
    signed = run("sign", scan, "--signing-key", f"file:{key}")
    assert signed.exit_code == 0 and "report.json.sig" in signed.stderr
    checked = run("verify", scan, "--public-key", f"{key}.pub")
    assert checked.exit_code == 0 and "ok       signature: signed by the key given" in checked.stdout
    out = tmp_path / "out"
    forms = ("--format", "html", "--format", "pdf", "--format", "text")
    assert run("render", scan, "-o", out, *forms).exit_code == 0
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "The mark was found in this corpus.\n" in (out / "report.txt").read_text()


def test_verify_command_fails_with_what_does_not_hold(scan: Path) -> None:
    write_record(scan, replace(read_record(ScanRecord, scan), documents=1))
    result = run("verify", scan)
    assert isinstance(result.exception, DyetraceError) or result.exit_code == 3
    assert "failed   documents: " in result.stdout
    machine = run("verify", scan, "--json")
    assert json.loads(machine.stdout)["holds"] is False


def test_detections_are_rendered_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_record(path, make_record(make_document()))
    forms = ["--format", "html", "--format", "pdf", "--format", "text"]
    assert run("render", path, "-o", tmp_path / "out", *forms).exit_code == 0
    assert "Watermark detection report" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF-1.7")
    text = (tmp_path / "out" / "report.txt").read_text()
    assert "How to check this without us" in text and "ChaCha with 8 rounds" in text  # all of it, not the short form
