"""What a report says in words, held against what this code says of such numbers: for reports of the same code alone."""

from __future__ import annotations

from collections.abc import Iterable

from detect.records.assumptions import Assumption
from detect.records.code_hash import code_sha256
from detect.records.report import Report
from detect.records.results import Check
from detect.report.verify.checks import check, refuse


def by_this_code(record: Report) -> bool:
    """Whether the code that wrote a report is the one that runs here."""
    return record.made is not None and record.made.code_sha256 == code_sha256()


def assumptions(
    record: Report, ways: Iterable[list[Assumption]], calibration: tuple[str | None, str | None] = (None, None)
) -> list[Check]:
    """What an answer assumes, what of it was checked, and how p-values came about, is what this code says of it.

    Parameters
    ----------
    record
        The report; nothing is looked at where other code wrote it.
    ways
        All that this code may say: whether a commitment was opened, and how documents were read, is not known here.
    calibration
        What is said of how p-values came about, and what this code says of it.
    """
    if not by_this_code(record):
        return []

    def look() -> str:
        if not any(way == record.assumptions for way in ways):
            refuse("what report.json says that its answers assume is not what this code writes: it was changed")
        if calibration[0] != calibration[1]:
            refuse("what report.json says of its p-values is not what this code writes: it was changed")
        return "what the answers assume is written as this code writes it"

    return [check("assumptions", look)]
