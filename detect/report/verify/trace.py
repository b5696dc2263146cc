"""Numbers of a trace's record that follow from others without any key; each check says what was looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

from detect.keyed.calibration import explanation
from detect.keyed.decoys import LOG10_CONTRADICTION, log10_agreement
from detect.laws.multiplicity import holm_log10, mean_log10_e
from detect.records.key_name import KeyName
from detect.records.trace import TraceHypothesis, TraceRecord, contexts_needed, log10_naming_level, tenant_name
from detect.records.trace_assumptions import assumptions as of_trace
from detect.records.written import format_time
from detect.report.verify import files
from detect.report.verify.checks import Check, NotDone, check, close, refuse
from detect.report.verify.ledger import ledger
from detect.report.verify.words import assumptions
from detect.student.verdict.conclude import one_of_them, tails, tested_log10, trace_log10_pvalue
from detect.student.verdict.evidence import EVIDENCE_FILE, read_evidence
from detect.student.verdict.hypothesis import WeightedTest
from detect.student.verdict.recording import failed_control
from detect.student.verdict.score import TraceScore

_BOTH_TAILS = 1e-6  # by which the tails of one total may fall short of 1 together, being rounded
_NEEDED = 1e-3  # relative; contexts that are needed are a forecast, rounded up


_FILES = frozenset([EVIDENCE_FILE])


def checks(record: TraceRecord, report: Path, folder: Path | None) -> Iterator[Check]:
    """All checks of a trace's report."""
    yield check("inputs", lambda: files.inputs(_read(record), folder))
    whole = check("files", lambda: files.beside(report.parent, record.files, _FILES))
    yield whole
    looks = {
        "spec": spec,
        "keys": keys,
        "answer": answer,
        "identification": identification,
        "controls": controls,
        "forecasts": forecasts,
        "plan": plan,
    }
    for name, look in looks.items():
        yield check(name, lambda look=look: look(record))  # type: ignore[misc]
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
    if _after(commitment.created, record.created):
        refuse("the commitment on record is younger than the trace")
    return "the spec has the id on record, and the commitment is of it"


def keys(record: TraceRecord) -> str:
    """Each key's tested p-value follows from its tails or its e-value; its tails can be those of one such total."""
    for h in record.hypotheses:
        if 10.0**h.log10_pvalue + 10.0**h.log10_pvalue_lower < 1 - _BOTH_TAILS:
            refuse(f"both tails of {h.key!r} are small, which no total gives")
        _within_bounds(record, h)
        used = tested_log10(record.basis, record.sided, h.log10_pvalue, h.log10_pvalue_lower, h.log10_evalue)
        close(f"tested p-value of {h.key!r}", [h.log10_pvalue_tested], [used])
    adjusted = holm_log10([h.log10_pvalue_tested for h in record.hypotheses])
    close("adjusted p-values of the keys", [h.log10_pvalue_adjusted for h in record.hypotheses], adjusted)
    return f"the tested and adjusted p-values of {len(record.hypotheses):,} keys follow from their tails and e-values"


def _within_bounds(record: TraceRecord, h: TraceHypothesis) -> None:
    """Refuse tails above Cantelli's bound by the deviation, or above the inverse of an e-value that grows with it."""
    if record.calibration is not None or record.basis == "e-value":
        return  # ranks among decoys, or bounds
    z = (h.total - h.expected) / h.sd if h.sd > 0 else 0.0
    tail = h.log10_pvalue if z > 0 else h.log10_pvalue_lower
    if tail > -math.log10(1 + z**2) + _BOTH_TAILS:
        refuse(f"{h.key!r} lies {z:+.1f} standard deviations from its mean, and its tail is too large for that")
    if record.sided == "upper" and h.log10_pvalue > -h.log10_evalue + _BOTH_TAILS:
        refuse(f"the e-value of {h.key!r} is larger than the inverse of its p-value, which no total gives")


def answer(record: TraceRecord) -> str:
    """The answer is that of the strongest key, and the e-value the mean of the keys'."""
    if record.arguments.get("alpha", record.alpha) != record.alpha:
        refuse(f"argument alpha was {record.arguments['alpha']!r}, but the record goes by {record.alpha!r}")
    close("e-value of the trace", [record.log10_evalue], [mean_log10_e([h.log10_evalue for h in record.hypotheses])])
    if record.log10_pvalue is None:
        return "no answer is given"
    follows = trace_log10_pvalue([h.log10_pvalue_adjusted for h in record.hypotheses], record.together)
    close("p-value of the trace", [record.log10_pvalue], [follows])
    if record.found != (record.log10_pvalue <= math.log10(record.alpha)):
        refuse(f"found is {record.found}, which does not fit the p-value and alpha")
    return "the p-value of the trace and the answer follow from those of the keys"


def identification(record: TraceRecord) -> str:
    """Who is named is who passes the level, and "one of them at least" is said only where that passes it."""
    limit = log10_naming_level(record.alpha, sum(not KeyName.read(h.key).is_global for h in record.hypotheses))
    passing = {
        tenant_name(h.key)
        for h in record.hypotheses
        if not KeyName.read(h.key).is_global and h.log10_pvalue_adjusted <= limit and record.refused is None
    }
    said = {tenant_name(name) for name in record.identified}
    if said != passing:
        odd = sorted(said ^ passing)[0]
        verb = "is named, but its p-value is above" if odd in said else "is not named, but its p-value is at or below"
        refuse(f"tenant {odd!r} {verb} the level")
    for group in record.coalitions:  # of older reports
        if group.log10_pvalue_adjusted < group.log10_pvalue or group.log10_pvalue_adjusted > math.log10(record.alpha):
            refuse("accounts are said to have left a mark together, but the p-value of that is above the level")
    if record.together is not None:
        tested = sum(not KeyName.read(h.key).is_global for h in record.hypotheses)
        one = one_of_them(tested, record.together, bound=record.basis == "e-value")
        passes = record.together <= limit and not said and record.refused is None
        if passes != (record.identification == one):
            refuse(f"the identification does not fit the p-value of all accounts together: {record.identification!r}")
    return f"those named are the tenants whose adjusted p-value is at or below the level of names ({len(said):,})"


def controls(record: TraceRecord) -> str:
    """The decoys' agreement follows from their p-values, and a contradiction was not passed over."""
    found = record.controls
    agreement = log10_agreement(np.array(found.decoy_log10_pvalues))
    close("agreement of the decoys", [found.decoy_log10_agreement], [agreement])
    if agreement < LOG10_CONTRADICTION and record.refused is None:
        refuse("the decoys contradict the test, and yet an answer is given")
    failed = failed_control(found.models)
    if failed is not None and record.refused is None:
        refuse(f"an answer is given, and yet {failed}")
    stated = record.arguments.get("decoy_seed", found.decoy_seed)
    if stated != found.decoy_seed:
        refuse(f"argument decoy_seed was {stated!r}, but the record goes by {found.decoy_seed!r}")
    return f"the {len(found.decoy_log10_pvalues):,} decoys' agreement with chance follows from their p-values"


def forecasts(record: TraceRecord) -> str:
    """Power follows from the first key's total, and the contexts that readouts need from their deviations."""
    from scipy.special import ndtri, ndtri_exp

    first, power = record.hypotheses[0], record.power
    root = math.sqrt(max(1, first.contexts))
    at_level = -float(ndtri_exp(math.log(record.alpha)))
    observed = (first.total - first.expected) / first.sd / root if first.sd > 0 else 0.0
    close("lean that could have been found", [power.detectable_z_per_context], [(at_level + float(ndtri(0.95))) / root])
    close("lean that was seen", [power.observed_z_per_context], [observed])
    _close_count("the first key", power.contexts_needed, (at_level / observed) ** 2 if observed > 0 else None)
    for result in record.comparisons:
        expected = contexts_needed(result.z, result.contexts)
        _close_count(f"readout {result.readout!r}", result.contexts_needed, expected)
    return f"power and the contexts needed follow from the totals ({len(record.comparisons):,} readouts compared)"


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
    if _after(record.plan.created, first):
        refuse(f"the plan was made on {format_time(record.plan.created)}, after the first query")
    return "the plan is older than the first query, by the clocks on record"


def _after(moment: str, other: str) -> bool:
    try:
        return datetime.fromisoformat(moment) > datetime.fromisoformat(other)
    except (ValueError, TypeError):
        refuse(f"{moment!r} and {other!r} must be times with their zone, such as 2026-02-03T04:05:06+00:00")


def evidence(record: TraceRecord, folder: Path) -> str:
    """The evidence is what the record counts; where one key marks all contexts its p-value follows from the total.

    Otherwise a keyed bit says which contexts are the global key's: then both kinds of keys must share all of them.
    """
    found = read_evidence(folder / EVIDENCE_FILE)
    if found.contexts != record.contexts:
        refuse(f"{record.contexts:,} contexts on record, {found.contexts:,} in {EVIDENCE_FILE}")
    if len(found.tuples) and int(found.tuples.contexts.shape[1]) != record.spec.context_width:
        refuse(f"the contexts of {EVIDENCE_FILE} are not as wide as those of the spec")
    if record.curve and record.curve[-1].count != int(found.steps[-1]):
        refuse(f"the curve ends at {record.curve[-1].count:,}, the evidence at {int(found.steps[-1]):,}")
    whole = WeightedTest(TraceScore.of(record.spec.build_scheme()), found.tuples, record.spec.subkeys)
    if 0 < record.spec.global_share < 1:
        return _halves(record, whole)
    for h in record.hypotheses:
        if (h.contexts, h.tuples) != (found.contexts, whole.words):
            refuse(f"{h.key!r} has {h.tuples:,} words on record, the evidence {whole.words:,}")
        close(f"mean and deviation of {h.key!r}", [h.expected, h.sd], whole.moments)
        if record.calibration is not None:
            raise NotDone("its key was ranked among decoys, which takes the key: `dyetrace recompute`")
        if found.planned:
            raise NotDone("the e-value is of several looks, whose totals take the key: `dyetrace recompute`")
        # Reports from before assumptions stood in them give exact tails beside e-values.
        basis = record.basis if record.assumptions else "p-value"
        close(f"tails of {h.key!r}", [h.log10_pvalue, h.log10_pvalue_lower], tails(whole, h.total, basis))
        close(f"e-value of {h.key!r}", [h.log10_evalue], [whole.log10_evalue(h.total, record.sided)])
    return f"the exact tails and e-values of the totals follow from {EVIDENCE_FILE}, which takes no key"


def _halves(record: TraceRecord, whole: WeightedTest) -> str:
    sides = [[h for h in record.hypotheses if (h.key == "global") == side] for side in (True, False)]
    for side in sides:
        for h in side[1:]:
            if (h.contexts, h.tuples, h.expected, h.sd) != (*_size(side[0]), side[0].expected, side[0].sd):
                refuse(f"{h.key!r} and {side[0].key!r} are tested on the same contexts, and yet differ in them")
    kinds = [side[0] for side in sides if side]
    contexts, words = sum(h.contexts for h in kinds), sum(h.tuples for h in kinds)
    mean, variance = math.fsum(h.expected for h in kinds), math.fsum(h.sd**2 for h in kinds)
    both = len(kinds) == 2
    most = (record.contexts, whole.words)
    if contexts > most[0] or words > most[1] or (both and (contexts, words) != most):
        refuse(
            f"the keys share {contexts:,} contexts and {words:,} words, the evidence has {most[0]:,} and {most[1]:,}"
        )
    if both:
        close("means and deviations of the keys", [mean, math.sqrt(variance)], whole.moments)
    return f"the keys' contexts and words are those of {EVIDENCE_FILE}; which key has which takes the key"


def _size(h: TraceHypothesis) -> tuple[int, int]:
    return h.contexts, h.tuples
