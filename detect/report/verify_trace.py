"""Numbers of a trace's record that follow from others without any key; each check says what was looked at."""

from __future__ import annotations

import math

import numpy as np

from detect.decoys import LOG10_CONTRADICTION, log10_agreement
from detect.multiplicity import holm_log10, mean_log10_e
from detect.report.trace_schema import tenant_name
from detect.report.verify_numbers import close, refuse
from detect.student.record import TraceHypothesis, TraceRecord

_LOG10_2 = math.log10(2)
_BOTH_TAILS = 1e-6  # by which the tails of one total may fall short of 1 together, being rounded


def spec(record: TraceRecord) -> str:
    """The spec has the id on record and is of the key on record."""
    if record.spec.spec_id != record.spec_id:
        refuse(f"the spec has id {record.spec.spec_id}, but the record says {record.spec_id}")
    if record.spec.key_fingerprint != record.key_fingerprint:
        refuse(f"the spec is of key {record.spec.key_fingerprint}, but the record of {record.key_fingerprint}")
    commitment = record.commitment
    if commitment is None:
        return "the spec has the id on record"
    if commitment.spec_id != record.spec_id or commitment.key_fingerprint != record.key_fingerprint:
        refuse("the commitment on record is of another spec or key")
    return "the spec has the id on record, and the commitment is of it"


def keys(record: TraceRecord) -> str:
    """Each key's tested p-value follows from its tails or its e-value; its tails are of one total."""
    for h in record.hypotheses:
        if 10.0**h.log10_pvalue + 10.0**h.log10_pvalue_lower < 1 - _BOTH_TAILS:
            refuse(f"both tails of {h.key!r} are small, which no total gives")
        close(f"tested p-value of {h.key!r}", [h.log10_pvalue_tested], [tested(record, h)])
    adjusted = holm_log10([h.log10_pvalue_tested for h in record.hypotheses])
    close("adjusted p-values of the keys", [h.log10_pvalue_adjusted for h in record.hypotheses], adjusted)
    return f"the tested and adjusted p-values of {len(record.hypotheses):,} keys follow from their tails and e-values"


def tested(record: TraceRecord, h: TraceHypothesis) -> float:
    """Log10 of the p-value that the verdict uses of a key."""
    if record.basis == "e-value":
        return min(0.0, -h.log10_evalue)
    if record.sided == "two-sided":
        return min(0.0, _LOG10_2 + min(h.log10_pvalue, h.log10_pvalue_lower))
    return h.log10_pvalue


def answer(record: TraceRecord) -> str:
    """The answer is that of the strongest key, and the e-value the mean of the keys'."""
    if record.arguments.get("alpha", record.alpha) != record.alpha:
        refuse(f"argument alpha was {record.arguments['alpha']!r}, but the record goes by {record.alpha!r}")
    close("e-value of the trace", [record.log10_evalue], [mean_log10_e([h.log10_evalue for h in record.hypotheses])])
    if record.log10_pvalue is None:
        return "no answer is given"
    smallest = min(h.log10_pvalue_adjusted for h in record.hypotheses)
    close("p-value of the trace", [record.log10_pvalue], [smallest])
    if record.found != (record.log10_pvalue <= math.log10(record.alpha)):
        refuse(f"found is {record.found}, which does not fit the p-value and alpha")
    return "the p-value of the trace and the answer follow from those of the keys"


def identification(record: TraceRecord) -> str:
    """Who is named is who passes the level, and no group is named whose choice was not paid for."""
    limit = math.log10(record.alpha)
    passing = {
        tenant_name(h.key)
        for h in record.hypotheses
        if h.key.startswith("tenant:") and h.log10_pvalue_adjusted <= limit and record.refused is None
    }
    said = {tenant_name(name) for name in record.identified}
    if said != passing:
        odd = sorted(said ^ passing)[0]
        verb = "is named, but its p-value is above" if odd in said else "is not named, but its p-value is at or below"
        refuse(f"tenant {odd!r} {verb} the level")
    for coalition in record.coalitions:
        who = ", ".join(coalition.tenants)
        if coalition.log10_pvalue_adjusted < coalition.log10_pvalue:
            refuse(f"the group {who}: its adjusted p-value is smaller than its own")
    return f"those named are the tenants whose adjusted p-value is at or below the level ({len(said):,})"


def controls(record: TraceRecord) -> str:
    """The decoys' agreement follows from their p-values, and a contradiction was not passed over."""
    found = record.controls
    agreement = log10_agreement(np.array(found.decoy_log10_pvalues))
    close("agreement of the decoys", [found.decoy_log10_agreement], [agreement])
    if agreement < LOG10_CONTRADICTION and record.refused is None:
        refuse("the decoys contradict the test, and yet an answer is given")
    stated = record.arguments.get("decoy_seed", found.decoy_seed)
    if stated != found.decoy_seed:
        refuse(f"argument decoy_seed was {stated!r}, but the record goes by {found.decoy_seed!r}")
    return f"the {len(found.decoy_log10_pvalues):,} decoys' agreement with chance follows from their p-values"
