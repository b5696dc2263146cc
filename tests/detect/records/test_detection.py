"""Records of detections and their files: what is written is read, and what no run writes is refused in one line."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.cli.schemas import json_schema
from detect.records.detection import (
    Document,
    Record,
    TokenView,
)
from detect.records.reading import encode_record, read_record, write_record
from tests.detect.report.detection.examples import (
    HOSTILE,
    hostile_record,
    make_document,
    make_record,
    shown_records,
)
from watermark.errors import DyetraceError


@pytest.mark.parametrize("kind", shown_records())
def test_record_survives_its_file(kind: str, tmp_path: Path) -> None:
    record = shown_records()[kind]
    path = tmp_path / "report.json"
    write_record(path, record)
    assert read_record(Record, path) == record
    assert path.read_bytes() == encode_record(read_record(Record, path)) and path.read_bytes().endswith(b"}\n")
    decoded = msgspec.json.decode(path.read_bytes())
    assert list(decoded) == sorted(decoded)


def test_hostile_record_survives_its_file(tmp_path: Path) -> None:
    for text in HOSTILE:
        write_record(tmp_path / "r.json", hostile_record(text))
        assert read_record(Record, tmp_path / "r.json") == hostile_record(text)


def test_lone_surrogates_of_file_names_are_written_as_escapes(tmp_path: Path) -> None:
    write_record(tmp_path / "r.json", make_record(make_document("caf\udce9")))
    assert read_record(Record, tmp_path / "r.json").documents[0].name == "caf\\udce9"


def _altered(**changes: Any) -> Document:
    return msgspec.structs.replace(make_document(texts=["a"]), **changes)


@pytest.mark.parametrize("bad", [-math.inf, math.nan])
def test_numbers_that_json_lacks_are_refused(bad: float, tmp_path: Path) -> None:
    record = msgspec.structs.replace(make_record(), documents=[_altered(log10_pvalue_corpus=bad)])
    with pytest.raises(DyetraceError, match=r"documents\[0\].*must be a finite number"):
        write_record(tmp_path / "r.json", record)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2, but this dyetrace reads version 1"),
        ({"format": "other"}, "its format is 'other'"),
        ({"surprise": 1}, "surprise"),
        ({"alpha": 0}, "alpha must lie in"),
        ({"alpha": "x"}, "Expected `float`"),
        ({"documents": 1}, "Expected `array`"),
        ({"spec": {"vocabulary_size": 1, "tokenizer": "", "key_fingerprint": ""}}, "vocabulary_size"),
    ],
)
def test_bad_records_are_one_clear_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(msgspec.json.encode(msgspec.to_builtins(make_record()) | change))
    with pytest.raises(DyetraceError, match=re.escape(message)) as caught:
        read_record(Record, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (_altered(log10_pvalue_corpus=0.5), "must be 0 or less"),
        (_altered(log10_pvalue=None), "is found, but has no p-value"),
        (_altered(view=TokenView(hypothesis="", subkey=0, texts=["a"], pvalues=[])), "1 texts but 0 pvalues"),
        (_altered(view=TokenView(hypothesis="", subkey=0, texts=["a"], pvalues=[2.0])), "must lie in 0 .. 1"),
    ],
)
def test_records_that_contradict_themselves_are_refused(document: Document, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(path, msgspec.structs.replace(make_record(), documents=[document]))
    with pytest.raises(DyetraceError, match=re.escape(message)):
        read_record(Record, path)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"a": 1', b"[1e999]", b"null"])
def test_broken_files_are_one_clear_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(data)
    with pytest.raises(DyetraceError, match=r"not whole JSON|is not the report of a detection") as caught:
        read_record(Record, path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DyetraceError, match="cannot read record"):
        read_record(Record, tmp_path / "absent.json")


def test_schema_describes_what_is_written() -> None:
    schema = json_schema("detection")
    assert schema["$id"] == "urn:dyetrace:detection:1" and schema["title"] == "dyetrace detection record"
    definitions = schema["$defs"]
    assert set(definitions["Record"]["properties"]) == set(msgspec.to_builtins(make_record()))
    assert set(definitions["Document"]["properties"]) == set(msgspec.to_builtins(make_document()))
    assert definitions["Document"]["additionalProperties"] is False
    assert schema["$ref"] == "#/$defs/Record"
