"""Recompute a trace: the evidence beside the report, the spec and the keys again, and every number compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detect.keyed.held import own_part
from detect.laws.agreement import agree, all_agree
from detect.records.arrays import evidence_of
from detect.records.trace import TraceRecord
from detect.student.verdict.conclude import Conclusion, conclude
from detect.student.verdict.evidence import EVIDENCE_FILE, TraceSettings, read_evidence
from detect.student.verdict.recording import failed_control, leans_away
from watermark.keys import KeyRing
from watermark.spec import check_key


def recompute_trace(record: TraceRecord, ring: KeyRing, folder: Path) -> list[str]:
    """Test the evidence of ``record`` again and list every difference; an empty list means that it holds.

    A ring that lacks some of the report's keys, as an account's own does, tests those that it has.

    The suspect is not asked again: that its predictions or answers gave this evidence is shown by tracing it anew, or
    by the ledger of an endpoint's answers.

    Parameters
    ----------
    record
        The report.
    ring
        The keys, which the report names but does not hold.
    folder
        Where the evidence is.

    Raises
    ------
    DyetraceError
        The key is not the report's, or the evidence is missing, damaged, or not that of the report.
    """
    check_key(record.spec, ring.master_fingerprint)
    path = evidence_of(record.files, EVIDENCE_FILE, folder)
    settings = TraceSettings(
        record.alpha, record.sided, len(record.controls.decoy_log10_pvalues), record.controls.decoy_seed
    )
    evidence, objection = read_evidence(path), record.refused or failed_control(record.controls.models)
    again = conclude(evidence, record.spec, ring, record.basis, settings, objection)
    if again.found and record.assumptions and leans_away(again, record.readout, record.alpha) is not None:
        return ["the suspect leans away from its reference, and yet an answer is given"]
    mine = own_part([h.key for h in record.hypotheses], [h.key for h in again.hypotheses])
    return list(_differences(record, again) if mine is None else _own_differences(record, again, mine))


def _own_differences(before: TraceRecord, after: Conclusion, mine: set[str]) -> Iterator[str]:
    """Of the keys that were tested again alone: what follows from all keys together can't be seen from them."""
    parts = [[h for h in part.hypotheses if h.key in mine] for part in (before, after)]
    totals = [[(h.key, h.contexts, h.tuples, h.total) for h in part] for part in parts]
    if totals[0] != totals[1]:
        yield "other totals"
    old = before.basis == "e-value" and not before.assumptions
    tails = [[v for h in part for v in (h.log10_pvalue, h.log10_pvalue_lower)] for part in parts]
    evalues = [[h.log10_evalue for h in part] for part in parts]
    for what, pair in {"e-values": evalues, **({} if old else {"tails": tails})}.items():
        if not all_agree(*pair):
            yield f"other {what}"


def _differences(before: TraceRecord, after: Conclusion) -> Iterator[str]:
    totals = [[(h.key, h.contexts, h.tuples, h.total) for h in part.hypotheses] for part in (before, after)]
    if totals[0] != totals[1]:
        yield "other totals"
    if (before.identified, before.found) != (after.identified, after.found):
        yield "other conclusions"
    if before.together is not None and not agree(before.together, after.together):  # older reports have none
        yield "other p-value of all accounts together"
    # Reports from before assumptions stood in them give exact tails beside e-values, and no more than that differs.
    old = before.basis == "e-value" and not before.assumptions
    for what, pair in _numbers(before, after, tails=not old).items():
        if not all_agree(*pair):
            yield f"other {what}"


def _numbers(*parts: Any, tails: bool) -> dict[str, list[list[float | None]]]:
    exact: dict[str, list[list[float | None]]] = {
        "tails": [[v for h in part.hypotheses for v in (h.log10_pvalue, h.log10_pvalue_lower)] for part in parts],
        "curve's p-values": [[point.log10_pvalue for point in part.curve] for part in parts],
    }
    return {
        "p-values": [[h.log10_pvalue_adjusted for h in part.hypotheses] for part in parts],
        **(exact if tails else {}),
        "e-values": [[h.log10_evalue for h in part.hypotheses] for part in parts],
        "verdict": [[part.log10_pvalue] for part in parts],
        "decoys": [part.controls.decoy_log10_pvalues for part in parts],
        "curve": [[point.log10_evalue for point in part.curve] for part in parts],
    }
