"""The table of kinds holds every kind of report that can be read, each with all that is done with reports."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from detect.records.reading import FORMS, form_of, read_report
from detect.records.report import Report
from detect.report.kinds import KINDS, Kind, kind_of
from detect.report.story import Story
from tests.golden.other_python import HERE

GOLDEN = sorted(path.parent.name for path in HERE.glob("*/report.json"))


def kinds_of_records(base: type[Report] = Report) -> set[type[Report]]:
    """All types of records that there are."""
    found = set(base.__subclasses__())
    return found.union(*(kinds_of_records(kind) for kind in found))


def test_every_type_of_record_can_be_read_and_is_a_kind() -> None:
    assert {form.record for form in FORMS} == kinds_of_records() == {kind.record for kind in KINDS}
    assert len(KINDS) == len(FORMS) == len({form.format for form in FORMS})
    for form in FORMS:
        defaults = form.record.__struct_defaults__
        assert form.format in defaults and form.version in defaults  # what a record says of itself


def test_a_kind_without_a_verifier_cannot_be_added() -> None:
    assert {field.name for field in fields(Kind)} == {"record", "story", "checks", "recompute"}
    with pytest.raises(TypeError, match="checks"):
        Kind(record=Report, story=lambda record: None, recompute="no key is needed")  # type: ignore[call-arg, arg-type, return-value]
    for kind in KINDS:
        assert list(inspect.signature(kind.checks).parameters)[1:] == ["report", "folder"]


@pytest.mark.parametrize("name", GOLDEN)
def test_every_golden_report_has_a_story_and_checks(name: str) -> None:
    assert len(GOLDEN) == len(KINDS)  # one of each kind
    path = HERE / name / "report.json"
    _, record = read_report(path)
    kind = kind_of(record)
    assert form_of(kind.record).format == record.format
    assert isinstance(kind.story(record), Story)
    names = [check.name for check in kind.checks(record, Path(path), None)]
    assert names and len(set(names)) == len(names)
