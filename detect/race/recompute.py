"""A race readout computed anew: the evidence beside the report, the spec and the keys again, and every number compared.

Neither the suspect nor the owner's model nor a text is needed. An account's own key gives its own part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from detect.keyed.held import own_part
from detect.laws.agreement import all_agree
from detect.race.bets import goes_on
from detect.race.conclude import Conclusion, Live, conclude, rows_of
from detect.race.evidence import EVIDENCE_FILE, RaceEvidence, read_evidence
from detect.race.plan import RacePlan, parse_plan
from detect.records.arrays import evidence_of
from detect.records.race import LitAnswer, RaceFound, RaceRecord
from detect.student.asking.ledger import LEDGER_FILE, Entry, verify_chain
from watermark.errors import EvidenceError
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec, check_key


def recompute_race(record: RaceRecord, ring: KeyRing, folder: Path) -> list[str]:
    """Bet on the evidence of ``record`` again and list every difference; an empty list means that it holds.

    A ring that lacks some of the report's keys, as an account's own does, tests those that it has.

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
    evidence = read_evidence(evidence_of(record.files, EVIDENCE_FILE, folder))
    held = held_part(evidence, record.spec, ring)
    again = conclude(
        held,
        record.spec,
        ring,
        alpha=record.alpha,
        decoy_seed=record.controls.decoy_seed,
        decoy_count=len(record.controls.decoy_log10_evalues),
        objection=record.refused,
        early=all(found.log10_pvalue is None for found in record.hypotheses),
    )
    mine = own_part([found.key for found in record.hypotheses], [found.key for found in again.hypotheses])
    if mine is not None:
        parts = [[found for found in part if found.key in mine] for part in (record.hypotheses, again.hypotheses)]
        return list(_of_keys(*parts, adjusted=False))
    if len(held) != len(evidence):
        return [f"{len(evidence) - len(held):,} places are of keys that were not tested"]
    plan = None if record.plan is None else plan_on_record(folder, record.plan.sha256)
    return [*_differences(record, again), *(() if plan is None else _of_leaving(evidence, plan, record.spec, ring))]


def plan_on_record(folder: Path, sha256: str) -> RacePlan | None:
    """The plan of this hash in the ledger of replies beside a report; None where there is no ledger.

    Raises
    ------
    DyetraceError
        The ledger is damaged, or holds no such plan.
    """
    path = folder / LEDGER_FILE
    if not path.is_file():
        return None
    held: list[bytes] = []

    def take(entry: Entry) -> None:
        if entry.kind == "plan" and entry.key == sha256 and not held:
            held.append(entry.payload)

    verify_chain(path, take)
    if not held:
        raise EvidenceError(f"{LEDGER_FILE} does not hold the plan {sha256}")
    return parse_plan(held[0], f"the plan in {LEDGER_FILE}")


def _of_leaving(evidence: RaceEvidence, plan: RacePlan, spec: WatermarkSpec, ring: KeyRing) -> Iterator[str]:
    """Where asking about an answer ended, or went on, otherwise than by its bets (`detect.race.bets.goes_on`).

    The last answer may have ended for its target or a budget.
    """
    if plan.whole_answers or not len(evidence):
        return
    planned = Counter(document for document, _ in plan.cuts)
    starts = np.flatnonzero(np.diff(evidence.steps, prepend=-1)).tolist()
    live, answer, requests, places = Live(spec, ring), -1, 0, 0
    for start, stop in pairwise(starts):
        live.observe(evidence.part(slice(start, stop)))
        document = int(evidence.documents[start])
        if document != answer:
            answer, requests, places = document, 0, 0
        requests, places = requests + 1, places + stop - start
        goes = int(evidence.documents[stop]) == document
        if places < planned[document] and goes != goes_on(requests, live.log_answer):
            yield f"{evidence.names[document]} was {'gone on with' if goes else 'left'} against the rule of its bets"


def held_part(evidence: RaceEvidence, spec: WatermarkSpec, ring: KeyRing) -> RaceEvidence:
    """The places that a key of the ring marks."""
    account = evidence.account[evidence.documents]
    names = rows_of(evidence.contexts, account, evidence.accounts, spec, ring)
    rows = np.array([name is not None for name in names], dtype=np.bool_)
    return evidence if rows.all() else evidence.part(rows)


def _of_keys(before: Sequence[RaceFound], after: Sequence[RaceFound], *, adjusted: bool) -> Iterator[str]:
    if [(found.key, found.cuts) for found in before] != [(found.key, found.cuts) for found in after]:
        yield "other places of keys"
        return
    names = ["hits", "expected", "log10_pvalue", "log10_evalue", *(["log10_evalue_adjusted"] if adjusted else [])]
    for name in names:
        if not all_agree([getattr(found, name) for found in before], [getattr(found, name) for found in after]):
            yield f"other {_CALLED[name]} of keys"


_CALLED = {
    "hits": "hits",
    "expected": "chance hits",
    "log10_pvalue": "p-values of the hits",
    "log10_evalue": "e-values",
    "log10_evalue_adjusted": "adjusted e-values",
}


def _differences(before: RaceRecord, after: Conclusion) -> Iterator[str]:
    yield from _of_keys(before.hypotheses, after.hypotheses, adjusted=True)
    if (before.identified, before.found, before.refused) != (after.identified, after.found, after.refused):
        yield "other conclusions"
    if before.counts.silent != after.silent:
        yield "another number of places without a word of use"
    if not all_agree([before.log10_evalue, before.log10_pvalue], [after.log10_evalue, after.log10_pvalue]):
        yield "another verdict"
    if [point.count for point in before.curve] != [point.count for point in after.curve] or not all_agree(
        [point.log10_evalue for point in before.curve], [point.log10_evalue for point in after.curve]
    ):
        yield "another curve"
    if not all_agree(before.controls.decoy_log10_evalues, after.controls.decoy_log10_evalues):
        yield "other decoys"
    yield from _of_answers(before.lit, after.lit)


def _of_answers(before: Sequence[LitAnswer], after: Sequence[LitAnswer]) -> Iterator[str]:
    """Answers of one e-value to rounding may change places; they are held against each other by their names."""
    parts = [sorted(part, key=lambda lit: lit.name) for part in (before, after)]
    named = [[(lit.name, lit.account, lit.cuts) for lit in part] for part in parts]
    if named[0] != named[1]:
        yield "other answers light up"
        return
    numbers = [[value for lit in part for value in (lit.hits, lit.expected, lit.log10_evalue)] for part in parts]
    if not all_agree(*numbers):
        yield "other numbers of the answers that light up"
