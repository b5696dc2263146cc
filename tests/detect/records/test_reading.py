"""One reader for every kind of report: what is none, or of a newer release, gets one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detect.records.detection import Record
from detect.records.reading import encode_record, read_record, read_report, written
from detect.records.scan import ScanRecord
from tests.golden.other_python import HERE
from watermark.errors import DyetraceError

GOLDEN = sorted(path.parent.name for path in HERE.glob("*/report.json"))


@pytest.mark.parametrize("name", GOLDEN)
def test_a_report_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    data, record = read_report(HERE / name / "report.json")
    (tmp_path / "report.json").write_bytes(encode_record(record))
    again, same = read_report(tmp_path / "report.json")
    assert same == record and read_record(type(record), tmp_path / "report.json") == record
    assert is_within(json.loads(data), json.loads(again))


def is_within(older: Any, newer: Any) -> bool:
    """Whether the newer JSON holds all of the older one, which lacks fields."""
    if isinstance(older, dict):
        return all(name in newer and is_within(value, newer[name]) for name, value in older.items())
    if isinstance(older, list):
        return len(older) == len(newer) and all(map(is_within, older, newer))
    return bool(older == newer)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "dyetrace-dowsing"}, "is not a report that this dyetrace reads: its format is 'dyetrace-dowsing'"),
        ({"version": 2}, "has version 2, but this dyetrace reads version 1; use the release that wrote it"),
        ({"aura": 1}, "Object contains unknown field `aura`"),
        ({"alpha": 7.0}, "alpha must lie in"),
    ],
)
def test_what_is_no_report_of_this_release_gets_a_line_that_names_the_one_that_wrote_it(
    name: str, changes: dict[str, object], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    plain = json.loads((HERE / name / "report.json").read_bytes())
    path.write_bytes(written(plain | {"versions": {"dyetrace": "9.1"}} | changes))
    with pytest.raises(DyetraceError) as caught:
        read_report(path)
    said = str(caught.value)
    assert says in said and "\n" not in said
    assert "alpha" in changes or "dyetrace 9.1 wrote it" in said


def test_a_report_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(DyetraceError, match="is not the report of a scan: its format is 'dyetrace-detection'"):
        read_record(ScanRecord, HERE / "detection" / "report.json")
    assert isinstance(read_record(Record, HERE / "detection" / "report.json"), Record)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff\xfe", b"null", b'{"format": 1}', b"[" * 100_000])
def test_what_is_no_json_or_no_record_gets_a_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(data)
    with pytest.raises(DyetraceError, match=r"not whole JSON|is not a report") as caught:
        read_report(tmp_path / "report.json")
    assert "\n" not in str(caught.value)
