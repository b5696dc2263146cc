"""The record of a trace as a file: it survives, its schema describes it, and what no trace writes is refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.cli.schemas import json_schema
from detect.records.reading import encode_record, parse_record, read_record, read_report, write_record
from detect.records.scan import Interval
from detect.records.trace import Coalition, CurvePoint, Reference, TraceRecord
from tests.detect.report import trace_examples as examples
from tests.detect.report.scan.test_story import HOSTILE
from watermark.errors import DyetraceError

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> TraceRecord:
    return examples.found_trace(tmp_path_factory.mktemp("trace"))


@pytest.mark.parametrize("make", examples.KINDS.values(), ids=examples.KINDS)
def test_record_survives_its_file(make: examples.Maker, tmp_path: Path) -> None:
    record = make(tmp_path)
    path = tmp_path / "report.json"
    assert read_record(TraceRecord, path) == record
    assert path.read_bytes() == encode_record(read_record(TraceRecord, path)) and path.read_bytes().endswith(b"}\n")
    assert read_report(path) == (path.read_bytes(), record)
    decoded = msgspec.json.decode(path.read_bytes())
    assert list(decoded) == sorted(decoded)


def test_record_of_an_older_version_is_read(tmp_path: Path) -> None:
    """It had groups of accounts in every record, and no p-value of all of them together."""
    written = json.loads(encode_record(examples.clean_trace(tmp_path)))
    del written["together"]
    old = parse_record(TraceRecord, json.dumps(written | {"coalitions": []}).encode(), tmp_path / "report.json")
    assert old.coalitions == [] and old.together is None
    group = examples.old_group_trace(tmp_path)
    assert read_record(TraceRecord, tmp_path / "report.json").coalitions == group.coalitions


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_record_survives_its_file(text: str, tmp_path: Path) -> None:
    record = examples.hostile_trace(text, tmp_path / "made")
    write_record(tmp_path / "r.json", record)
    assert read_record(TraceRecord, tmp_path / "r.json") == record


def test_written_record_fits_the_schema_which_describes_every_field(record: TraceRecord) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema("trace")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(encode_record(record)))
    broken = json.loads(encode_record(record)) | {"contexts": "many"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(broken)
    assert schema["$id"] == "urn:dyetrace:trace:1"
    assert set(schema["$defs"]["TraceRecord"]["properties"]) == set(msgspec.to_builtins(record))
    assert schema["$defs"]["TraceHypothesis"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2, but this dyetrace reads version 1"),
        ({"format": "dyetrace-scan"}, "its format is 'dyetrace-scan'"),
        ({"surprise": 1}, "surprise"),
        ({"alpha": 0.0}, "alpha must lie in (0, 1)"),
        ({"contexts": "x"}, "Expected `int`"),
        ({"log10_pvalue": 0.5}, "must be 0 or less"),
        ({"log10_pvalue": None}, "either a p-value or a reason"),
        ({"log10_pvalue": None, "refused": "decoys"}, "no answer is given, and yet"),
        ({"mode": "api"}, "an endpoint's trace must say what was asked"),
        ({"identified": ["nobody"]}, "identified names tenant 'nobody', which was not tested"),
        ({"hypotheses": []}, "it tests no key"),
    ],
)
def test_bad_records_are_one_clear_line(
    change: dict[str, Any], message: str, record: TraceRecord, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    data = msgspec.json.encode(msgspec.to_builtins(record) | change)
    with pytest.raises(DyetraceError, match=re.escape(message)) as caught:
        parse_record(TraceRecord, data, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def contradictions(record: TraceRecord) -> dict[str, TraceRecord]:
    first = record.hypotheses[0]
    point = CurvePoint(count=3, log10_pvalue=-1.0, log10_evalue=0.1)
    upside_down = Interval(low=0.5, estimate=0.2, high=0.9, confidence=0.95, method="")
    return {
        "is tested twice": replace(record, hypotheses=[first, first]),
        "neither 'global' nor 'tenant:NAME'": replace(record, hypotheses=[replace(first, key="acme")]),
        "contexts of 4096": replace(record, hypotheses=[replace(first, contexts=9999), *record.hypotheses[1:]]),
        "standard deviation below 0": replace(record, hypotheses=[replace(first, sd=-1.0), *record.hypotheses[1:]]),
        "two tenants or more": replace(
            record, coalitions=[Coalition(tenants=["acme"], log10_pvalue=-1.0, log10_pvalue_adjusted=-1.0)]
        ),
        "of two accounts or more": replace(record, hypotheses=record.hypotheses[:2], together=-1.0),
        "must add up to 1": replace(record, references=[Reference(model=examples.BASE, share=0.4)]),
        "counts must ascend": replace(record, curve=[point, point]),
        "share.interval": replace(record, share=replace(record.share, interval=upside_down)),
        "share.doses[0]": replace(
            record, share=replace(record.share, doses=[replace(record.share.doses[0], standard_error=-1.0)])
        ),
        "verdict must rest on the e-value": replace(record, readings=[replace(record.readings[0], marked=True)]),
        "below 0": replace(record, contexts=4096, readings=[replace(record.readings[0], tokens=-1)]),
    }


def test_records_that_contradict_themselves_are_refused(record: TraceRecord, tmp_path: Path) -> None:
    for message, broken in contradictions(record).items():
        with pytest.raises(DyetraceError, match=re.escape(message)):
            parse_record(TraceRecord, encode_record(broken), tmp_path / "r.json")


@pytest.mark.parametrize("bad", [-math.inf, math.nan])
def test_numbers_that_json_lacks_are_refused(bad: float, record: TraceRecord, tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match=r"log10_pvalue must be a finite number"):
        write_record(tmp_path / "r.json", replace(record, log10_pvalue=bad))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"a": 1', b"[1e999]", b"null", b"[" * 100000])
def test_broken_files_are_one_clear_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(DyetraceError, match=r"not whole JSON|is not the report of a trace") as caught:
        read_record(TraceRecord, path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DyetraceError, match="cannot read record"):
        read_record(TraceRecord, tmp_path / "absent.json")
