"""Every kind of report is drawn in every form by `dyetrace report render`, from its file alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from detect.cli.main import main
from detect.cli.options.reports import DRAWINGS
from detect.records.detection import Record
from detect.records.power_plan import PowerPlan
from detect.records.race import RaceRecord
from detect.records.reading import read_report, write_record
from detect.records.scan import ScanRecord
from detect.records.server_check import ServeCheck
from detect.records.trace import TraceRecord
from detect.records.twins import TwinRecord
from detect.report.kinds import KINDS, story_of
from detect.report.runs import plain
from tests.detect.report.paper.reading import Page
from tests.detect.report.plan.examples import a_plan
from tests.detect.report.race.examples import account_race
from tests.detect.report.server.examples import a_check
from tests.detect.report.twins.examples import account_twins

GOLDEN = Path(__file__).parents[2] / "golden"


def golden(name: str) -> Callable[[Path], object]:
    return lambda path: shutil.copy(GOLDEN / name / "report.json", path)


WRITE: dict[type[Any], Callable[[Path], object]] = {
    Record: golden("detection"),
    ScanRecord: golden("scan"),
    TraceRecord: golden("trace"),
    PowerPlan: lambda path: write_record(path, a_plan()),
    ServeCheck: lambda path: write_record(path, a_check()),
    TwinRecord: lambda path: account_twins(path.parent),
    RaceRecord: lambda path: account_race(path.parent),
}


def drawn(report: Path, folder: Path, *forms: str) -> dict[str, bytes]:
    """What the command draws, by form."""
    asked = [word for form in forms for word in ("--format", form)]
    result = CliRunner().invoke(main, ["report", "render", str(report), "-o", str(folder), *asked])
    assert result.exit_code == 0, result.output
    return {form: (folder / DRAWINGS[form]).read_bytes() for form in forms}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.record.__name__)
def test_every_kind_has_every_form_and_the_same_each_time(kind: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    WRITE[kind.record](report)
    found = drawn(report, tmp_path, *DRAWINGS)
    assert found == drawn(report, tmp_path, *DRAWINGS) == drawn(report, tmp_path / "elsewhere", *DRAWINGS)
    story = story_of(read_report(report)[1])
    assert found["pdf"].startswith(b"%PDF")
    for form in (Page(found["html"].decode()).text, found["text"].decode(), found["markdown"].decode()):
        said = " ".join(form.replace("\\", "").split())
        assert story.headline in said
        assert all(section.title in said for section in story.sections)
        assert all(fact.value.isascii() is False or fact.value in said for fact in story.facts)
    page = Page(found["html"].decode())
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "object"})
    first = " ".join(plain(line) for line in story.lead)
    assert first.split()[0] in page.text


def test_drawings_of_another_report_are_not_put_beside_this_one(tmp_path: Path) -> None:
    write_record(tmp_path / "report.json", a_plan())
    write_record(tmp_path / "other.json", a_check())
    result = CliRunner().invoke(main, ["report", "render", str(tmp_path / "other.json"), "-o", str(tmp_path)])
    assert result.exit_code == 2 and "holds another report" in result.stderr
