"""The record of a scan as a file: it survives, its schema describes it, and what no scan writes is refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.cli.schemas import json_schema
from detect.records.reading import encode_record, read_record, write_record
from detect.records.scan import ScanRecord, Segment
from tests.detect.report import examples
from tests.detect.report.scan.test_story import HOSTILE
from watermark.errors import DyetraceError


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> ScanRecord:
    return examples.marked_scan(tmp_path_factory.mktemp("scan"))


def test_record_survives_its_file(record: ScanRecord, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_record(path, record)
    assert read_record(ScanRecord, path) == record
    assert path.read_bytes() == encode_record(read_record(ScanRecord, path)) and path.read_bytes().endswith(b"}\n")
    decoded = msgspec.json.decode(path.read_bytes())
    assert list(decoded) == sorted(decoded)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_record_survives_its_file(text: str, tmp_path: Path) -> None:
    record = examples.hostile_scan(text, tmp_path / "made")
    write_record(tmp_path / "r.json", record)
    assert read_record(ScanRecord, tmp_path / "r.json") == record


def test_written_record_fits_the_schema(record: ScanRecord) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema("scan")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(encode_record(record)))
    broken = json.loads(encode_record(record)) | {"documents": "many"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(broken)


def test_schema_describes_every_field(record: ScanRecord) -> None:
    schema = json_schema("scan")
    assert schema["$id"] == "urn:dyetrace:scan:1" and schema["$ref"] == "#/$defs/ScanRecord"
    assert set(schema["$defs"]["ScanRecord"]["properties"]) == set(msgspec.to_builtins(record))
    assert schema["$defs"]["Hit"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2, but this dyetrace reads version 1"),
        ({"format": "dyetrace-detection"}, "its format is 'dyetrace-detection'"),
        ({"surprise": 1}, "surprise"),
        ({"alpha": 1.0}, "alpha must lie in (0, 1)"),
        ({"documents": "x"}, "Expected `int`"),
        ({"log10_pvalue": 0.5}, "must be 0 or less"),
        ({"log10_pvalue": None}, "either a p-value or a reason"),
        ({"spec_ids": []}, "1 specs but 0 spec_ids"),
        ({"histogram": [1, 2]}, "histogram must have 20 counts or none"),
        ({"histogram": [-1] * 20}, "histogram must have 20 counts or none"),
    ],
)
def test_bad_records_are_one_clear_line(
    change: dict[str, Any], message: str, record: ScanRecord, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(msgspec.json.encode(msgspec.to_builtins(record) | change))
    with pytest.raises(DyetraceError, match=re.escape(message)) as caught:
        read_record(ScanRecord, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": 9}, "input is 9, but there are 3 inputs"),
        ({"record": 0}, "there is no document"),
        ({"segments": [Segment(start=5, end=5, log10_pvalue=-1.0)]}, "segments must follow each other"),
        ({"segments": [Segment(start=5, end=10**6, log10_pvalue=-1.0)]}, "segments must follow each other"),
        ({"scores": [1.0] * 61}, "at most 60 scores"),
        ({"log10_pvalue_adjusted": 0.1}, "must be 0 or less"),
    ],
)
def test_hits_that_contradict_themselves_are_refused(
    change: dict[str, Any], message: str, record: ScanRecord, tmp_path: Path
) -> None:
    hits = [msgspec.structs.replace(record.hits[0], **change), *record.hits[1:]]
    write_record(tmp_path / "r.json", msgspec.structs.replace(record, hits=hits))
    with pytest.raises(DyetraceError, match=re.escape(message)):
        read_record(ScanRecord, tmp_path / "r.json")


def test_keys_of_no_spec_are_refused(record: ScanRecord, tmp_path: Path) -> None:
    keys = [msgspec.structs.replace(record.hypotheses[0], spec=1), *record.hypotheses[1:]]
    write_record(tmp_path / "r.json", msgspec.structs.replace(record, hypotheses=keys))
    with pytest.raises(DyetraceError, match=r"hypotheses\[0\]\.spec is 1, but there are 1 specs"):
        read_record(ScanRecord, tmp_path / "r.json")


@pytest.mark.parametrize("bad", [-math.inf, math.nan])
def test_numbers_that_json_lacks_are_refused(bad: float, record: ScanRecord, tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match=r"log10_pvalue must be a finite number"):
        write_record(tmp_path / "r.json", msgspec.structs.replace(record, log10_pvalue=bad))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"a": 1', b"[1e999]", b"null", b"[" * 100000])
def test_broken_files_are_one_clear_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(DyetraceError, match=r"not whole JSON|is not the report of a scan") as caught:
        read_record(ScanRecord, path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DyetraceError, match="cannot read record"):
        read_record(ScanRecord, tmp_path / "absent.json")
