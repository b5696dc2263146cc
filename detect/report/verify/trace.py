"""Numbers of a trace's record that follow from others without any key; each check says what was looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from detect.keyed.calibration import explanation
from detect.laws.multiplicity import holm_log10, mean_log10_e
from detect.records.results import Check
from detect.records.scan import Interval
from detect.records.trace import (
    Control,
    TraceHypothesis,
    TraceRecord,
    contexts_needed,
    log10_naming_level,
    tenant_name,
)
from detect.records.trace_assumptions import assumptions as of_trace
from detect.records.written import format_time
from detect.report.verify import files
from detect.report.verify.checks import check, close, each, found_fits, refuse, same, sound_decoys
from detect.report.verify.dates import after
from detect.report.verify.evidence import evidence
from detect.report.verify.ledger import ledger
from detect.report.verify.specs import spec_before_it, stated
from detect.report.verify.words import assumptions, by_this_code
from detect.student.verdict.conclude import identification as identification_of
from detect.student.verdict.conclude import one_of_them, power_of, tested_log10, trace_log10_pvalue
from detect.student.verdict.evidence import EVIDENCE_FILE
from detect.student.verdict.recording import failed_control
from detect.student.verdict.share import estimated

PLACEBO = "placebo key"
_BOTH_TAILS = 1e-6  # by which the tails of one total may fall short of 1 together, being rounded
_ONE_OF_THEM = "No single account is identified."
_NEEDED = 1e-3  # relative; contexts that are needed are a forecast, rounded up


_FILES = frozenset([EVIDENCE_FILE])


def checks(record: TraceRecord, report: Path, folder: Path | None) -> Iterator[Check]:
    """All checks of a trace's report."""
    yield check("inputs", lambda: files.inputs(_read(record), folder))
    whole = check("files", lambda: files.beside(report.parent, record.files, _FILES))
    yield whole
    looks = {
        "spec": spec_before_it,
        "keys": keys,
        "answer": answer,
        "identification": identification,
        "controls": controls,
        "forecasts": forecasts,
        "share": share,
        "readings": seen,
        "plan": plan,
    }
    yield from each(looks, record)
    said = record.calibration, explanation(record.spec.build_scheme(), by_rank=True)
    yield from assumptions(record, [of_trace(record)], said)
    if whole.outcome == "ok":
        yield check("evidence", lambda: evidence(record, report.parent))
    else:
        yield Check("evidence", "not done", "the file is not that of the report")
    yield check("ledger", lambda: ledger(record, report.parent))
    totals = f"whether the totals are those of {EVIDENCE_FILE} takes the key: `dyetrace recompute`"
    yield Check("totals", "not done", totals)


def _read(record: TraceRecord) -> list[files.Read]:
    """What was read, but for models: it isn't said how long texts are, and a plan's prompts are no file."""
    plan = None if record.plan is None else record.plan.sha256
    texts = [files.Read(r.name, r.sha256, None) for r in record.readings if r.sha256 != plan]
    served = record.served
    return texts if served is None else [*texts, files.Read(served.name, served.sha256, served.bytes)]


def keys(record: TraceRecord) -> str:
    """Each key's tested p-value follows from its tails or its e-value; its tails can be those of one such total."""
    for h in record.hypotheses:
        exact = record.calibration is None  # each side's rank has decoys of its own
        if exact and 10.0**h.log10_pvalue + 10.0**h.log10_pvalue_lower < 1 - _BOTH_TAILS:
            refuse(f"both tails of {h.key!r} are small, which no total gives")
        _within_bounds(record, h)
        used = tested_log10(record.basis, record.sided, h.log10_pvalue, h.log10_pvalue_lower, h.log10_evalue)
        close(f"tested p-value of {h.key!r}", [h.log10_pvalue_tested], [used])
    adjusted = holm_log10([h.log10_pvalue_tested for h in record.hypotheses])
    close("adjusted p-values of the keys", [h.log10_pvalue_adjusted for h in record.hypotheses], adjusted)
    return f"the tested and adjusted p-values of {len(record.hypotheses):,} keys follow from their tails and e-values"


def _within_bounds(record: TraceRecord, h: TraceHypothesis) -> None:
    """Refuse tails that no such total has, whatever the weights are, and e-values that don't go with them."""
    if record.calibration is not None:
        return  # ranks among decoys
    z, upper, lower = h.z, h.log10_pvalue, h.log10_pvalue_lower
    tail, other = (upper, lower) if z > 0 else (lower, upper)
    if record.basis == "p-value":
        if tail > -math.log10(1 + z**2) + _BOTH_TAILS:  # Cantelli's bound
            refuse(f"{h.key!r} lies {z:+.1f} standard deviations from its mean, and its tail is too large for that")
        if record.sided == "upper" and h.log10_pvalue > -h.log10_evalue + _BOTH_TAILS:
            refuse(f"the e-value of {h.key!r} is larger than the inverse of its p-value, which no total gives")
    elif record.assumptions:  # else an older report, with exact tails beside e-values
        if z != 0 and other < -_BOTH_TAILS:
            refuse(f"{h.key!r} lies {z:+.1f} standard deviations from its mean, and its other tail is below 1")
        if record.sided == "upper":
            close(f"bound by the e-value of {h.key!r}", [h.log10_pvalue], [min(0.0, -h.log10_evalue)])


def answer(record: TraceRecord) -> str:
    """The answer is that of the strongest key, and the e-value the mean of the keys'."""
    stated(record, alpha=record.alpha)
    close("e-value of the trace", [record.log10_evalue], [mean_log10_e([h.log10_evalue for h in record.hypotheses])])
    if record.log10_pvalue is None:
        return "no answer is given"
    follows = trace_log10_pvalue([h.log10_pvalue_adjusted for h in record.hypotheses], record.together)
    close("p-value of the trace", [record.log10_pvalue], [follows])
    found_fits(record)
    return "the p-value of the trace and the answer follow from those of the keys"


def identification(record: TraceRecord) -> str:
    """Who is named is who passes the level, and "one of them at least" is said only where that passes it."""
    tested = len(record.accounts)
    limit = log10_naming_level(record.alpha, tested)
    named = [h for h in record.accounts if h.log10_pvalue_adjusted <= limit and record.refused is None]
    passing = {tenant_name(h.key) for h in named}
    said = {tenant_name(name) for name in record.identified}
    if said != passing:
        odd = sorted(said ^ passing)[0]
        verb = "is named, but its p-value is above" if odd in said else "is not named, but its p-value is at or below"
        refuse(f"tenant {odd!r} {verb} the level")
    for group in record.coalitions:  # of older reports
        if group.log10_pvalue_adjusted < group.log10_pvalue or group.log10_pvalue_adjusted > math.log10(record.alpha):
            refuse("accounts are said to have left a mark together, but the p-value of that is above the level")
    says = identification_of(
        tested,
        record.identified,
        record.together,
        limit,
        refused=record.refused is not None,
        found=record.found,
        bound=record.basis == "e-value",
    )
    one = record.together is not None and says == one_of_them(tested, record.together, bound=record.basis == "e-value")
    if (one or by_this_code(record)) and record.identification != says:
        refuse(f"the identification does not fit the p-values of accounts: {record.identification!r}")
    if record.together is not None and not one and record.identification.startswith(_ONE_OF_THEM):
        refuse(f"the identification does not fit the p-value of all accounts together: {record.identification!r}")
    return f"those named are the tenants whose adjusted p-value is at or below the level of names ({len(said):,})"


def controls(record: TraceRecord) -> str:
    """The decoys' agreement follows from their p-values, and a contradiction was not passed over."""
    found = record.controls
    sound_decoys(record)
    failed = failed_control(found.models)
    if failed is not None and record.refused is None:
        refuse(f"an answer is given, and yet {failed}")
    for control in found.models:
        _control(record, control)
    if found.decoy_log10_pvalues or record.contexts:
        stated(record, decoy_seed=found.decoy_seed, decoys=len(found.decoy_log10_pvalues))
    return f"the {len(found.decoy_log10_pvalues):,} decoys' agreement with chance follows from their p-values"


def _control(record: TraceRecord, control: Control) -> None:
    """A control's p-value is that of its e-value, as the verdict's is; it pays for all keys that were tested there."""
    what, p, e = f"control {control.model.name} ({control.what})", control.log10_pvalue, control.log10_evalue
    if not control.readout or record.sided != "upper":  # an older report, or a p-value of both sides
        return
    if control.what == PLACEBO:  # of its own keys, whose number is not on record
        paid = 10.0 ** (p + e)
        if p < 0 and (round(paid) < 1 or abs(paid - round(paid)) > _BOTH_TAILS * paid):
            refuse(f"{what}: its e-value gives another p-value, however many keys there are")
    elif record.basis == "e-value":
        close(f"{what}: p-value", [p], [min(0.0, math.log10(len(record.hypotheses)) - e)])
    elif p < 0 and p - math.log10(len(record.hypotheses)) > -e + _BOTH_TAILS:
        refuse(f"{what}: its e-value is larger than the inverse of its p-value, which no total gives")


def forecasts(record: TraceRecord) -> str:
    """Power follows from the first key's total, and the contexts that readouts need from their deviations."""
    first, said = record.hypotheses[0], record.power
    again = power_of(first, math.log10(record.alpha))
    close("lean that could have been found", [said.detectable_z_per_context], [again.detectable_z_per_context])
    close("lean that was seen", [said.observed_z_per_context], [again.observed_z_per_context])
    _close_count("the first key", said.contexts_needed, again.contexts_needed)
    for result in record.comparisons:
        expected = contexts_needed(result.z, result.contexts)
        _close_count(f"readout {result.readout!r}", result.contexts_needed, expected)
        if record.mode == "weights" and result.readout == record.readout:
            same("contexts of the verdict's readout", result.contexts, first.contexts)
            close("lean by the verdict's readout", [result.z], [first.z])
            if result.log10_pvalue is not None and record.calibration is None:
                close("p-value by the verdict's readout", [result.log10_pvalue], [first.log10_pvalue])
    return f"power and the contexts needed follow from the totals ({len(record.comparisons):,} readouts compared)"


def share(record: TraceRecord) -> str:
    """The marked share follows from the effects of the suspect and of the calibration students."""
    said = record.share
    if not said.doses:
        if said.interval is not None:
            refuse("a share is given, and no calibration student is on record")
        return "no share is given"
    if said.effect is None or said.standard_error is None:
        refuse("calibration students are on record, and no effect of the suspect")
    again = estimated(said.effect, said.standard_error, said.doses).interval
    if said.interval is None or again is None:
        same("the share", said.interval, again)
    else:
        close("the share", _ends(said.interval), _ends(again))
    return f"the share follows from {len(said.doses):,} calibration students"


def _ends(share: Interval) -> list[float]:
    return [-1.0 if end is None else end for end in (share.low, share.estimate, share.high, share.confidence)]


def seen(record: TraceRecord) -> str:
    """What was read or asked allows a verdict of this basis, and answers are counted alike everywhere."""
    marked = [reading.marked for reading in record.readings]
    if record.served is None and record.served_marked:
        refuse("no served answers were counted, and yet they are said to be marked")
    for reading in record.readings:
        if reading.contexts > max(reading.tokens, record.contexts):
            refuse(f"{reading.name}: more contexts than tokens")
        if reading.marked != (reading.texts_log10_pvalue is None) and by_this_code(record) and record.mode == "weights":
            refuse(f"{reading.name}: a text is tested for the mark where it is said to be unmarked, and only there")
        if (reading.taken is not None or reading.complete is not None) and not reading.marked:
            refuse(f"{reading.name}: it is said how its answers were taken, and yet they are not marked")
    if record.mode == "weights":
        follows = "e-value" if any(marked) or record.served_marked else "p-value"
        same("what the verdict rests on", record.basis, follows)
        return f"{len(marked):,} texts allow a verdict by {follows}"
    asked, plan_seen = record.queries, record.plan
    if asked is None or len(record.readings) != 1:
        refuse("an endpoint's answers must be one reading")
    reading = record.readings[0]
    same("answers that were read", reading.documents, asked.answers)
    if by_this_code(record):
        same("tokens of the answers", reading.tokens, asked.completion_tokens)
    if plan_seen is not None:
        same("the plan that was asked", reading.sha256, plan_seen.sha256)
    if any(marked) or reading.barred:
        refuse("prompts of a plan are said to be marked")
    same("what the verdict rests on", record.basis, "e-value")
    return f"{asked.answers:,} answers give the contexts on record"


def _close_count(what: str, said: int | None, expected: float | None) -> None:
    if (said is None) != (expected is None):
        refuse(f"contexts needed by {what}: {said} on record, where its lean gives {expected}")
    if said is not None and expected is not None and abs(said - expected) > 1 + _NEEDED * expected:
        refuse(f"contexts needed by {what}: {said:,} on record, {math.ceil(expected):,} computed")


def plan(record: TraceRecord) -> str:
    """The plan is older than the first query, and nobody stopped for a p-value that forbids it."""
    asked = record.queries
    if asked is None:
        return "the suspect's weights were at hand: there is no plan of queries"
    if asked.stopped == "target reached" and record.basis == "p-value":
        refuse("asking stopped at its target, and yet the verdict rests on a p-value that forbids looking")
    if record.plan is None:
        return "no plan is on record"
    if asked.before_plan and record.refused is None:
        refuse(f"{asked.before_plan:,} answers were on record before the plan, and yet an answer is given")
    first = record.plan.first_query
    if first is None:
        return "the plan is on record; no query went out"
    if asked.before_plan:
        return "answers were on record before the plan, and no answer is given"
    if after(record.plan.created, first):
        refuse(f"the plan was made on {format_time(record.plan.created)}, after the first query")
    return "the plan is older than the first query, by the clocks on record"
