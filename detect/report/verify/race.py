"""Numbers of a race readout that follow from the evidence beside its report, computed again without any key.

What the key chose stands in no file. So e-values and hits of the true keys take it (`dyetrace recompute`); what chance
has, the decoys, the names and the answer follow from the evidence and from the e-values on record.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detect.keyed.held import stand_in
from detect.laws.multiplicity import mean_log10_e
from detect.race.conclude import (
    LOG10_CONTRADICTION,
    chances_said,
    conclude,
    curve_counts,
    log10_hits,
    log10_threshold,
)
from detect.race.evidence import EVIDENCE_FILE, NOT_SAID, RaceEvidence, read_evidence
from detect.race.plan import PLAN_FILE, RacePlan, chances_path, load_chances
from detect.race.recompute import plan_on_record
from detect.records.key_name import KeyName
from detect.records.race import RaceRecord
from detect.records.race_assumptions import assumptions as of_race
from detect.records.recorded_inputs import file_sha256
from detect.records.results import Check
from detect.report.verify import files
from detect.report.verify.checks import NotDone, check, close, each, refuse, same, slack
from detect.report.verify.dates import dates
from detect.report.verify.ledger import ledger
from detect.report.verify.specs import spec_before_it, stated
from detect.report.verify.words import assumptions
from detect.student.asking.ledger import LEDGER_FILE

Mask = npt.NDArray[np.bool_]

_FILES = frozenset([EVIDENCE_FILE])
_LATER_PIECE = re.compile(r", piece (?!1$)\d+$")  # of a long answer (`detect.models.reading.read_text`)


def checks(record: RaceRecord, report: Path, folder: Path | None) -> Iterator[Check]:
    """All checks of a race readout's report."""
    read = [files.Read(record.reading.name, record.reading.sha256, None)]
    yield check("inputs", lambda: files.inputs(read, folder))
    whole = check("files", lambda: files.beside(report.parent, record.files, _FILES))
    yield whole
    if whole.outcome == "ok":
        yield check("evidence", lambda: evidence(record, read_evidence(report.parent / EVIDENCE_FILE)))
        yield check("answers", lambda: answers(record, read_evidence(report.parent / EVIDENCE_FILE)))
    else:
        yield Check("evidence", "not done", "the file is not that of the report")
    looks = {"spec": spec_before_it, "keys": keys, "answer": answer, "controls": controls, "dates": dates}
    yield from each(looks, record)
    yield check("plan", lambda: plan(record, report.parent))
    yield check("replies", lambda: ledger(record, report.parent))
    yield from assumptions(record, [of_race(record)])
    hits = f"whether the hits and e-values are those of {EVIDENCE_FILE} takes the key: `dyetrace recompute`"
    yield Check("hits", "not done", hits)


def evidence(record: RaceRecord, found: RaceEvidence) -> str:
    """Counts of places, what chance has of hits, the curve's counts and the decoys follow from the evidence."""
    counts = record.counts
    same("what was read of the suspect", record.ask, found.ask)
    if (record.reference is None) != (found.base is None):
        refuse(f"{EVIDENCE_FILE} and the report don't agree on whether there was a reference")
    same("places that were bet on", counts.asked, len(found))
    same("places where the suspect said nothing of use", counts.silent, int(found.silent.sum()))
    if len(found) and found.contexts.shape[1] != record.spec.context_width:
        refuse(f"the contexts of {EVIDENCE_FILE} are not as wide as those of the spec")
    if len(found) and int(found.subkeys.max()) >= record.spec.subkeys:
        refuse(f"{EVIDENCE_FILE} names a sub-key that the spec does not have")
    same("served answers", counts.answers, sum(_LATER_PIECE.search(name) is None for name in found.names))
    steps = len(np.unique(found.steps))
    if record.queries is not None and steps > record.queries.requests:
        refuse(f"{record.queries.requests:,} requests on record, {steps:,} replies in {EVIDENCE_FILE}")
    same("counts of the curve", [point.count for point in record.curve], curve_counts(len(found)))
    _chance(record, found)
    if not 0 < record.spec.global_share < 1:
        _decoys(record, found)
    return f"places, chance hits and decoys follow from the {len(found):,} places of {EVIDENCE_FILE}"


def _chance(record: RaceRecord, found: RaceEvidence) -> None:
    """Each key's places and chance hits; where a keyed bit says which are whose, those of all keys together."""
    speaking, expected = ~found.silent, chances_said(found)
    said = record.hypotheses
    if 0 < record.spec.global_share < 1:
        same("places of all keys", sum(one.cuts for one in said), int(speaking.sum()))
        close("chance hits of all keys", [math.fsum(one.expected for one in said)], [float(expected.sum())])
        return
    rows = _rows(record, found)
    if not np.sum([rows[one.key] for one in said], axis=0, dtype=bool).all():
        refuse(f"{EVIDENCE_FILE} has places of keys that were not tested")
    for one in said:
        mine = rows[one.key]
        same(f"places of {one.key!r}", one.cuts, int((speaking & mine).sum()))
        close(f"chance hits of {one.key!r}", [one.expected], [float(expected[mine].sum())])
        if one.log10_pvalue is not None:
            close(f"p-value of the hits of {one.key!r}", [one.log10_pvalue], [log10_hits(found, mine, round(one.hits))])


def _rows(record: RaceRecord, found: RaceEvidence) -> dict[str, Mask]:
    """Which places each key marks, where the accounts alone say it."""
    everything = record.spec.global_share >= 1
    account = found.account[found.documents]
    places = {name: number for number, name in enumerate(found.accounts)}
    rows = {}
    for one in record.hypotheses:
        tenant = KeyName.read(one.key).tenant
        if tenant is None:
            rows[one.key] = np.full(len(found), everything)
        else:
            rows[one.key] = (account == places.get(tenant, -2)) & (not everything)
    return rows


def _decoys(record: RaceRecord, found: RaceEvidence) -> None:
    """The decoys' keys are public; that of the true one has no part in theirs, so any key may stand for it."""
    said = record.controls
    again = conclude(
        found,
        record.spec,
        stand_in(record.spec, [one.key for one in record.hypotheses]),
        alpha=record.alpha,
        decoy_seed=said.decoy_seed,
        decoy_count=len(said.decoy_log10_evalues),
    )
    close("e-values of the decoys", said.decoy_log10_evalues, again.controls.decoy_log10_evalues)


def keys(record: RaceRecord) -> str:
    """Each account pays for their number; hits and their p-values are such as there can be."""
    accounts = max(1, len(record.accounts))
    for one in record.hypotheses:
        paid = 0.0 if KeyName.read(one.key).is_global else math.log10(accounts)
        close(f"e-value of {one.key!r}, accounts paid for", [one.log10_evalue_adjusted], [one.log10_evalue - paid])
        if one.log10_pvalue is not None:
            if record.spec.scheme != "gumbel":
                refuse(f"{one.key!r} has a p-value of its hits, which are no counts under {record.spec.scheme}")
            if not float(one.hits).is_integer():
                refuse(f"{one.key!r} has a p-value of {one.hits:g} hits, which is no count")
            if record.queries is not None and record.queries.stopped == "target reached":
                refuse(f"{one.key!r} has a p-value of its hits, and yet asking ended for what was seen")
        if record.spec.scheme == "gumbel" and one.hits > one.cuts:
            refuse(f"{one.key!r} has {one.hits:g} hits at {one.cuts:,} places")
    if len(record.hypotheses) == 1:
        close("e-value of all places", [record.log10_evalue], [record.hypotheses[0].log10_evalue])
    return f"the e-values of {len(record.hypotheses):,} keys pay for the choice among accounts"


def answer(record: RaceRecord) -> str:
    """The answer is that of the e-value, its p-value the inverse of that, and those named are those who pass."""
    stated(record, alpha=record.alpha, target=record.target_log10)
    if record.curve:
        close("e-value at the curve's end", [record.curve[-1].log10_evalue], [record.log10_evalue])
    if record.log10_pvalue is None:
        return "no answer is given"
    close("p-value of the readout", [record.log10_pvalue], [min(0.0, -record.log10_evalue)])
    limit = log10_threshold(record.alpha)
    if record.found != (record.log10_evalue >= limit):
        refuse(f"found is {record.found}, which does not fit the e-value and alpha")
    passing = [KeyName.read(one.key).tenant for one in record.accounts if one.log10_evalue_adjusted >= limit]
    same("accounts that are named", record.identified, passing)
    return "the p-value, the answer and the names follow from the e-values"


def controls(record: RaceRecord) -> str:
    """A contradiction by the decoys was not passed over."""
    said = record.controls
    stated(record, decoy_seed=said.decoy_seed, decoys=len(said.decoy_log10_evalues))
    if (
        said.decoy_log10_evalues
        and record.refused is None
        and mean_log10_e(said.decoy_log10_evalues) >= LOG10_CONTRADICTION
    ):
        refuse("the decoys contradict the test, and yet an answer is given")
    return f"the {len(said.decoy_log10_evalues):,} decoys do not forbid the answer"


def answers(record: RaceRecord, found: RaceEvidence) -> str:
    """Answers that light up and places that are shown are of the evidence."""
    speaking, expected = ~found.silent, chances_said(found)
    rows: dict[str, list[Mask]] = {}
    for document in np.unique(found.documents).tolist():
        rows.setdefault(found.names[document], []).append(found.documents == document)
    for lit in record.lit:
        for mine in rows.get(lit.name, []):
            whose = int(found.account[found.documents[mine][0]])
            account = None if whose < 0 else found.accounts[whose]
            chance = float(expected[mine].sum())
            counted = (lit.account, lit.cuts) == (account, int((speaking & mine).sum()))
            if counted and abs(lit.expected - chance) <= float(slack(np.array(chance))):
                break
        else:
            refuse(f"{lit.name} lights up, and no answer of {EVIDENCE_FILE} has its places, account and chance hits")
        if record.spec.scheme == "gumbel" and lit.hits > lit.cuts:
            refuse(f"{lit.name} has {lit.hits:g} hits at {lit.cuts:,} places")
    for cut in record.shown:
        mine = np.any([*rows.get(cut.answer, []), np.zeros(len(found), dtype=bool)], axis=0)
        chances = expected[mine & (found.said != NOT_SAID)]
        if not (np.abs(chances - cut.chance) <= slack(chances)).any():
            refuse(f"a place of {cut.answer} is shown whose chance no word of the suspect there has")
    return f"{len(record.lit):,} answers that light up and {len(record.shown):,} places are of {EVIDENCE_FILE}"


def plan(record: RaceRecord, folder: Path) -> str:
    """The plan that was entered before the first query is what the report keeps to, and its places come first."""
    seen = record.plan
    if seen is None:
        return "the suspect's weights were at hand: there is no plan of queries"
    made = plan_on_record(folder, seen.sha256)
    if made is None:
        raise NotDone(f"{LEDGER_FILE}, which holds the plan that fixed the places, is not beside the report")
    _kept_to(record, made)
    found = read_evidence(folder / EVIDENCE_FILE)
    bet = list(zip(found.documents.tolist(), found.positions.tolist(), strict=True))
    rows = _planned_rows(bet, made)
    beside = chances_path(folder / PLAN_FILE)
    if beside.is_file() and file_sha256(beside) == made.chances_sha256:
        cuts = load_chances(folder / PLAN_FILE, made).cuts
        same("the owner's candidates", found.tokens.tolist(), cuts.tokens[rows].tolist())
        close("the owner's chances", found.chances, cuts.chances[rows])
    return (
        f"the {len(bet):,} places that were bet on are the plan's first ones, and of each answer the first ones, of "
        f"{len(made.cuts):,} in its order"
    )


def _planned_rows(bet: list[tuple[int, int]], made: RacePlan) -> list[int]:
    """Which of the plan's places were bet on: of the first answers each the first ones, or refuse.

    Where whole answers are read, all of each. Else the rest of one may be left (`detect.race.bets.goes_on`).
    """
    planned: dict[int, list[int]] = {}
    for row, (document, _) in enumerate(made.cuts):
        planned.setdefault(document, []).append(row)
    counts = Counter(document for document, _ in bet)
    first = list(planned)[: len(counts)]
    rows = [row for document in first for row in planned[document][: counts[document]]]
    whole = all(counts[document] == len(planned[document]) for document in first)
    if [made.cuts[row] for row in rows] != bet or (made.whole_answers and not whole):
        refuse("the places that were bet on are not the plan's first ones, in its order")
    return rows


def _kept_to(record: RaceRecord, made: RacePlan) -> None:
    """Refuse where the record says another thing than its plan."""
    served, counts = made.served, record.counts
    assert record.plan is not None
    for what, said, planned in (
        ("when the plan was made", record.plan.created, made.created),
        ("spec", record.spec_id, made.spec_id),
        ("key", record.key_fingerprint, made.key_fingerprint),
        ("commitment", record.commitment, made.commitment),
        ("accounts", sorted(KeyName.read(one.key).tenant or "" for one in record.accounts), made.accounts),
        ("what is read of the suspect", record.ask, made.ask),
        ("suspect", record.suspect, made.suspect),
        ("owner's model", record.owner, made.owner),
        ("reference", record.reference, made.reference),
        ("settings of sampling", record.sampling, made.sampling),
        ("served answers", record.reading.sha256, served.sha256),
        ("how answers were taken", record.reading.taken, served.taken),
        ("what they were held against", record.reading.complete, served.complete),
        ("number of answers", counts.answers, served.answers),
        ("fresh places", counts.fresh, served.fresh),
        ("places of keys that were not tested", counts.unheld, served.unheld),
        ("places planned", counts.cuts, len(made.cuts)),
        ("target", record.target_log10, made.target_log10),
        ("level of the report", record.alpha, made.alpha),
        ("seed of the decoys", record.controls.decoy_seed, made.decoy_seed),
        ("decoys", len(record.controls.decoy_log10_evalues), made.decoys),
    ):
        same(what, said, planned)
