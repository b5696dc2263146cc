"""What a report says in words, held against what this code says of such numbers: for reports of the same code alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from detect.keyed.calibration import explanation
from detect.records.assumptions import Assumption
from detect.records.detection import Record
from detect.records.scan import ScanRecord
from detect.records.text_assumptions import of_detection, of_scan
from detect.records.trace import TraceRecord
from detect.records.trace_assumptions import assumptions as of_trace
from detect.report.verify.numbers import refuse


def assumptions(record: ScanRecord | TraceRecord | Record, unreadable: int = 0) -> str:
    """What an answer assumes, what of it was checked, and how p-values came about, is what this code says of it.

    Parameters
    ----------
    record
        The report.
    unreadable
        How many files a scan could not read.
    """
    if not any(way == record.assumptions for way in _ways(record, unreadable)):
        refuse("what report.json says that its answers assume is not what this code writes: it was changed")
    spec = record.specs[0] if isinstance(record, ScanRecord) else record.spec
    if record.calibration != explanation(spec.build_scheme(), by_rank=not isinstance(record, Record)):
        refuse("what report.json says of its p-values is not what this code writes: it was changed")
    return "what the answers assume is written as this code writes it"


def _ways(record: ScanRecord | TraceRecord | Record, unreadable: int) -> Iterator[list[Assumption]]:
    """All that this code may say: whether a commitment was opened, and how documents were read, is not known here."""
    opened = (False, True)
    if isinstance(record, TraceRecord):
        yield of_trace(record)
    elif isinstance(record, ScanRecord):
        yield from (of_scan(record, unreadable, way) for way in opened)
    else:
        total = len(record.documents)  # mostly none of them, or all, came as ids
        ids = sorted(range(total + 1), key=lambda number: min(number, total - number))
        yield from (of_detection(record, way, number) for number, way in itertools.product(ids, opened))
