"""A second line of evidence: a trace of the watermark in the same suspect, under another secret.

Given the coins, the watermark's key is uniform; given the key, the coins are fair. So the two e-values may be
multiplied, unless the trace read or counted served answers, about which the coins decided: then their mean is taken,
which is an e-value whatever two of them have in common (V. Vovk and R. Wang, "E-values: calibration, combination and
applications", Ann. Statist. 49, 2021).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from detect.laws.multiplicity import mean_log10_e
from detect.records.reading import parse_record, read_bytes
from detect.records.trace import ModelSeen, TraceRecord
from detect.records.twins import WatermarkLine
from watermark.errors import DyetraceError


@dataclass(frozen=True, slots=True)
class OtherLine:
    """A trace's e-value, and whether it may be multiplied.

    Attributes
    ----------
    report_sha256
        Of its report.json.
    log10_evalue
        Its own.
    apart
        Whether it read and counted no served answer.
    """

    report_sha256: str
    log10_evalue: float
    apart: bool


def read_line(report: Path, suspect: ModelSeen) -> OtherLine:
    """Read the report of a trace.

    Parameters
    ----------
    report
        Its report.json.
    suspect
        Whom the test by twins is of.

    Raises
    ------
    DyetraceError
        It is no such report, is of another suspect, or gives no answer.
    """
    data = read_bytes(report)
    record = parse_record(TraceRecord, data, report)
    traced = record.student
    same = traced.sha256 == suspect.sha256 if suspect.sha256 else traced.name == suspect.name
    if not same:
        raise DyetraceError(
            f"{report} is the trace of another suspect, {traced.name}, and this test is of {suspect.name}; give a "
            "trace of the same one, or none"
        )
    if record.refused is not None:
        raise DyetraceError(f"{report} gives no answer, so that there is nothing to combine; leave it out")
    apart = record.served is None and not any(reading.marked for reading in record.readings)
    return OtherLine(hashlib.sha256(data).hexdigest(), record.log10_evalue, apart)


def together(log10_evalue: float, other: OtherLine) -> WatermarkLine:
    """Both lines as the record has them.

    Examples
    --------
    >>> together(6.0, OtherLine("ab" * 32, 3.0, apart=True)).log10_evalue_together
    9.0
    """
    both = [log10_evalue, other.log10_evalue]
    return WatermarkLine(
        report_sha256=other.report_sha256,
        log10_evalue=other.log10_evalue,
        log10_evalue_together=sum(both) if other.apart else mean_log10_e(both),
        rule="product" if other.apart else "mean",
    )
