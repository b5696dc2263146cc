"""All kinds of reports, and what is done with each: one table that drawing, verifying and recomputing go by.

A kind is added here and in `detect.records.reading.FORMS`, which says how it is written; none is without a verifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from detect.records.detection import Record
from detect.records.power_plan import PowerPlan
from detect.records.race import RaceRecord
from detect.records.report import Report
from detect.records.results import Check
from detect.records.scan import ScanRecord
from detect.records.server_check import ServeCheck
from detect.records.trace import TraceRecord
from detect.records.twins import TwinRecord
from detect.report import recompute
from detect.report.detection.story import story as detection_story
from detect.report.plan.story import story as plan_story
from detect.report.race.story import story as race_story
from detect.report.scan.story import story as scan_story
from detect.report.server.story import story as server_story
from detect.report.story import Story
from detect.report.trace.story import story as trace_story
from detect.report.twins.story import story as twins_story
from detect.report.verify import detection, power_plan, race, scan, server_check, trace, twins

_R = TypeVar("_R", bound=Report)


@dataclass(frozen=True, slots=True)
class Kind(Generic[_R]):
    """A kind of report.

    Attributes
    ----------
    record
        The type of its record.
    story
        What a page, a PDF and a terminal say of a record.
    checks
        All checks that take no key, of a record, the path of its report.json, and the folder with what was read for it
        (None: it is not looked at).
    recompute
        Computes a record anew with a key; or why there is nothing that takes one, a whole sentence.
    """

    record: type[_R]
    story: Callable[[_R], Story]
    checks: Callable[[_R, Path, Path | None], Iterator[Check]]
    recompute: Callable[[_R, recompute.Request], recompute.Anew] | str


KINDS: tuple[Kind[Any], ...] = (
    Kind(Record, detection_story, detection.checks, recompute.detection),
    Kind(ScanRecord, scan_story, scan.checks, recompute.scan),
    Kind(TraceRecord, trace_story, trace.checks, recompute.trace),
    Kind(
        PowerPlan,
        plan_story,
        power_plan.checks,
        "a plan of power takes no key: `dyetrace report verify` makes it again and compares every number",
    ),
    Kind(
        ServeCheck,
        server_story,
        server_check.checks,
        "a check of a server keeps no answer, so that there is nothing to test again: check the server anew with "
        "`dyetrace serve-check`",
    ),
    Kind(TwinRecord, twins_story, twins.checks, recompute.twins),
    Kind(RaceRecord, race_story, race.checks, recompute.race),
)


def kind_of(record: _R) -> Kind[_R]:
    """The kind of a record."""
    return next(kind for kind in KINDS if kind.record is type(record))


def story_of(record: Report) -> Story:
    """What is said of a record, whatever its kind."""
    return kind_of(record).story(record)
