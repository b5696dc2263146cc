"""Numbers of a trace that follow from the evidence beside its report.

Where one kind of key marks all contexts nothing here takes a key: a total gives its tails, accounts' totals those of
their sums, and the decoys are drawn from a public seed. Otherwise a keyed bit says which contexts are the global key's.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from detect.keyed.held import stand_in
from detect.keyed.owners import tested_keys
from detect.records.key_name import GLOBAL
from detect.records.trace import TraceHypothesis, TraceRecord
from detect.report.verify.checks import NotDone, close, refuse, same
from detect.student.verdict.conclude import curve_steps, decoy_controls, tails, together_log10
from detect.student.verdict.evidence import EVIDENCE_FILE, Evidence, TraceSettings, read_evidence
from detect.student.verdict.hypothesis import WeightedTest, key_test
from watermark.formats.protocol import is_exact
from watermark.keys import KeyRing


def evidence(record: TraceRecord, folder: Path) -> str:
    """The evidence is what the record counts, and what follows from it without a key is on record."""
    found = read_evidence(folder / EVIDENCE_FILE)
    same("contexts", record.contexts, found.contexts)
    if len(found.tuples) and int(found.tuples.contexts.shape[1]) != record.spec.context_width:
        refuse(f"the contexts of {EVIDENCE_FILE} are not as wide as those of the spec")
    _steps(record, found)
    read = sum(reading.contexts for reading in record.readings)
    if record.served is None or record.mode == "api":
        same("contexts of all texts", read, found.contexts)
    # Where served answers are counted a context stands in the evidence under each sub-key that it was served under.
    elif not len(np.unique(found.tuples.contexts, axis=0)) <= read <= found.contexts:
        refuse(f"{read:,} contexts of all texts on record, which {EVIDENCE_FILE} does not hold")
    ring = stand_in(record.spec, [h.key for h in record.hypotheses])
    tested = [str(name) for name in tested_keys(record.spec, ring)]
    same("keys that were tested", sorted(h.key for h in record.hypotheses), sorted(tested))
    of_global = 0 < record.spec.global_share
    seed, count = record.controls.decoy_seed, len(record.controls.decoy_log10_pvalues)
    whole = key_test(record.spec, ring.selector, found.tuples, of_global=of_global, decoy_seed=seed, decoy_count=count)
    if 0 < record.spec.global_share < 1:
        everything = msgspec.structs.replace(record.spec, global_share=1.0)
        return _halves(record, key_test(everything, ring.selector, found.tuples, of_global=True))
    _decoys(record, found, ring)
    for h in record.hypotheses:
        same(f"contexts and words of {h.key!r}", (h.contexts, h.tuples), (found.contexts, whole.words))
        close(f"mean and deviation of {h.key!r}", [h.expected, h.sd], whole.moments)
    if found.planned:
        raise NotDone("the e-values are of several looks, whose totals take the key: `dyetrace recompute`")
    for h in record.hypotheses:
        # Reports from before assumptions stood in them give exact tails beside e-values.
        basis = record.basis if record.assumptions else "p-value"
        close(f"tails of {h.key!r}", [h.log10_pvalue, h.log10_pvalue_lower], tails(whole, h.total, basis))
        close(f"e-value of {h.key!r}", [h.log10_evalue], [whole.log10_evalue(h.total, record.sided)])
    _together(record, whole)
    return f"the tails, e-values and decoys follow from {EVIDENCE_FILE} and the totals, which takes no key"


def _steps(record: TraceRecord, found: Evidence) -> None:
    """The curve has its points where the evidence has them, and the looks are those on record."""
    exact = is_exact(record.spec.build_scheme())
    steps = [step for step in curve_steps(found) if not found.planned or any(look <= step for look in found.looks)]
    said = [point.count for point in record.curve]
    if said != (steps if exact else []):
        refuse(f"the curve has points after {said} steps, the evidence after {steps}")
    if record.queries is not None:
        same("moments of looking", record.queries.looks, found.planned)
        last = int(found.steps[-1]) if found.contexts else 0
        if last > record.queries.answers:
            refuse(f"{record.queries.answers:,} answers on record, {last:,} in {EVIDENCE_FILE}")
    whole = not found.planned or (found.looks and found.looks[-1] <= (said or [0])[-1])
    if record.curve and whole:
        last_point, first = record.curve[-1], record.hypotheses[0]
        close("e-value at the curve's end", [last_point.log10_evalue], [first.log10_evalue])
        if last_point.log10_pvalue is not None:
            close("p-value at the curve's end", [last_point.log10_pvalue], [first.log10_pvalue])


def _decoys(record: TraceRecord, found: Evidence, ring: KeyRing) -> None:
    said = record.controls
    settings = TraceSettings(record.alpha, record.sided, len(said.decoy_log10_pvalues), said.decoy_seed)
    again = decoy_controls(found, record.spec, ring, settings)
    close("p-values of the decoys", said.decoy_log10_pvalues, again.decoy_log10_pvalues)


def _together(record: TraceRecord, test: WeightedTest) -> None:
    totals = np.array([h.total for h in record.hypotheses if h.key != str(GLOBAL)], dtype=np.int64)
    if record.together is not None and record.assumptions:
        again = together_log10(test, totals, record.basis)
        close("p-value of all accounts together", [record.together], [math.nan if again is None else again])


def _halves(record: TraceRecord, whole: WeightedTest) -> str:
    """Both kinds of keys share all contexts; which has which takes the key."""
    sides = [[h for h in record.hypotheses if (h.key == str(GLOBAL)) == side] for side in (True, False)]
    for side in sides:
        for h in side[1:]:
            if _size(h) != _size(side[0]):
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


def _size(h: TraceHypothesis) -> tuple[int, int, float, float]:
    return h.contexts, h.tuples, h.expected, h.sd
