"""Numbers of a test by twins that follow from the evidence beside its report, computed again without any key.

Everything that the coins decided stands in `twins.npz`; whether the coins are those of the private ledger takes the
twin key (`dyetrace recompute`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from detect.laws.multiplicity import mean_log10_e
from detect.records.results import Check
from detect.records.scan import Interval
from detect.records.trace import CurvePoint
from detect.records.twins import AccountFound, LawTest, MeasureFound, TwinRecord
from detect.records.twins_assumptions import assumptions as of_twins
from detect.report.verify import files
from detect.report.verify.checks import NotDone, check, close, each, refuse, same
from detect.report.verify.dates import dates
from detect.report.verify.ledger import ledger
from detect.report.verify.words import assumptions
from detect.twins.conclude import Conclusion, conclude
from detect.twins.evidence import EVIDENCE_FILE, TwinEvidence, read_evidence
from detect.twins.law import CONFIDENCE, MOST_BIAS, VETO_LEVEL, bias_upper
from detect.twins.plan import PLAN_FILE, TwinPlan, kept_plan, plan_sha256
from detect.twins.signs import sign_test

_FILES = frozenset([EVIDENCE_FILE])
_MOST_RECORDED = 0.499  # of a bias: `detect.twins.law.law_test` cuts it there


def checks(record: TwinRecord, report: Path, folder: Path | None) -> Iterator[Check]:
    """All checks of a test by twins."""
    del folder  # what was read is the private ledger, which takes its key
    whole = check("files", lambda: files.beside(report.parent, record.files, _FILES))
    yield whole
    if whole.outcome == "ok":
        yield check("evidence", lambda: evidence(record, read_evidence(report.parent / EVIDENCE_FILE)))
        yield check("pairs", lambda: shown(record, read_evidence(report.parent / EVIDENCE_FILE)))
    else:
        yield Check("evidence", "not done", "the file is not that of the report")
    yield from each({"answer": answer, "law": law, "watermark": watermark, "dates": dates}, record)
    yield check("plan", lambda: plan(record, report.parent))
    yield check("replies", lambda: ledger(record, report.parent))
    yield from assumptions(record, [of_twins(record)])
    coins = "whether the coins are those of the private ledger takes the twin key: `dyetrace recompute`"
    yield Check("coins", "not done", coins)


def evidence(record: TwinRecord, found: TwinEvidence) -> str:
    """The bets, the sign tests, the curve, the accounts and the share follow from the evidence."""
    pairs = record.pairs
    same("pairs that were bet on", pairs.asked, len(found))
    silent = int(np.sum(~np.any(found.differences, axis=1)))
    same("pairs without any difference", pairs.silent, silent)
    again = conclude(found, record.law, record.alpha, record.refused)
    same("the reason why no answer is given", record.refused, again.refused)
    _measures(record.measures, again.measures)
    _accounts(record.accounts, again.accounts)
    same("accounts that are named", record.identified, again.identified)
    close("e-value of the bets", [record.log10_evalue], [again.log10_evalue])
    _curve(record.curve, again.curve)
    _share(record, again)
    same("whether it is found", record.found, again.found)
    return f"the bets, sign tests, accounts, share and curve follow from the {len(found):,} pairs of {EVIDENCE_FILE}"


def _measures(said: Sequence[MeasureFound], again: Sequence[MeasureFound]) -> None:
    for name in ("name", "wins", "losses", "ties"):
        same(f"{name} of the measures", [getattr(one, name) for one in said], [getattr(one, name) for one in again])
    close("sign tests", [one.log10_pvalue for one in said], [one.log10_pvalue for one in again])


def _accounts(said: Sequence[AccountFound], again: Sequence[AccountFound]) -> None:
    for name in ("account", "pairs", "wins", "losses"):
        same(f"{name} of the accounts", [getattr(one, name) for one in said], [getattr(one, name) for one in again])
    for name in ("log10_evalue", "log10_evalue_adjusted"):
        close("e-values of the accounts", [getattr(one, name) for one in said], [getattr(one, name) for one in again])


def _curve(said: Sequence[CurvePoint], again: Sequence[CurvePoint]) -> None:
    same("counts of the curve", [point.count for point in said], [point.count for point in again])
    close("e-values of the curve", [point.log10_evalue for point in said], [point.log10_evalue for point in again])
    close("sign tests of the curve", _ps(said), _ps(again))


def _ps(curve: Sequence[CurvePoint]) -> list[float]:
    return [math.nan if point.log10_pvalue is None else point.log10_pvalue for point in curve]


def _share(record: TwinRecord, again: Conclusion) -> None:
    said, computed = record.share, again.share
    if said is None or computed is None:
        same("the share", said, computed)
    else:
        close("the share", _ends(said), _ends(computed))
        same("the method of the share", said.method, computed.method)
    same("what is said of the share", record.share_reason, again.share_reason)


def _ends(share: Interval) -> list[float]:
    return [-1.0 if end is None else end for end in (share.low, share.estimate, share.high, share.confidence)]


def shown(record: TwinRecord, found: TwinEvidence) -> str:
    """The pairs that are shown are of the evidence, with their differences, the most telling first."""
    if not record.shown:
        return "no pair is shown"
    rows = {ident: row for row, ident in enumerate(found.ids)}
    unknown = next((pair.id for pair in record.shown if pair.id not in rows), None)
    if unknown is not None:
        refuse(f"pair {unknown} is shown and was not bet on")
    computed = [float(found.differences[rows[pair.id], 0] * found.signs[rows[pair.id]]) for pair in record.shown]
    close("differences of the pairs that are shown", [pair.difference for pair in record.shown], computed)
    largest = sorted(np.abs(found.differences[:, 0]).tolist(), reverse=True)
    if np.abs(computed).tolist() != largest[: len(computed)]:
        refuse("the pairs that are shown are not those whose leading number differs most, in that order")
    return f"the {len(computed):,} pairs shown are the most telling ones, with the differences of {EVIDENCE_FILE}"


def answer(record: TwinRecord) -> str:
    """The answer is that of the e-value, and its p-value the inverse of that."""
    if record.log10_pvalue is None:
        return "no answer is given"
    close("p-value of the test", [record.log10_pvalue], [min(0.0, -record.log10_evalue)])
    if record.found != (record.log10_evalue >= -math.log10(record.alpha)):
        refuse(f"found is {record.found}, which does not fit the e-value and alpha")
    return "the p-value and the answer follow from the e-value"


def law(record: TwinRecord) -> str:
    """The controls' p-values and limits follow from their counts, and the bias that is allowed for from those."""
    found = record.law
    if found is None:
        return "the twins were withheld at serving, so that no law test is needed"
    confidence = 1 - (1 - CONFIDENCE) / max(1, sum(control.bounds for control in found.controls))
    for control in found.controls:
        wins, losses = control.wins, control.losses
        close(f"p-value of control {control.name!r}", [control.log10_pvalue], [sign_test(wins, losses, "two-sided")])
        close(f"limit of control {control.name!r}", [control.bias_upper], [bias_upper(wins, losses, confidence)])
    bias = max((control.bias_upper for control in found.controls if control.bounds), default=0.0)
    close("bias that is allowed for", [found.bias], [min(bias, _MOST_RECORDED)])
    if found.veto is None:
        _no_veto(found)
    return f"the bias of {found.bias:.3f} follows from {len(found.controls):,} controls"


def _no_veto(found: LawTest) -> None:
    """Refuse an answer where a control speaks against it."""
    level = math.log10(VETO_LEVEL / max(1, len(found.controls)))
    odd = next((control for control in found.controls if control.log10_pvalue <= level), None)
    if odd is not None:
        refuse(f"control {odd.name!r} tells served answers from twins, and yet the law test has no veto")
    if found.bias > MOST_BIAS:  # that there is a control of each kind is asked of every record (contradictions)
        refuse("no control bounds the bias as it must, and yet the law test has no veto")


def watermark(record: TwinRecord) -> str:
    """What both lines say together follows from what each says alone."""
    other = record.watermark
    if other is None:
        return "no other line of evidence is on record"
    both = [record.log10_evalue, other.log10_evalue]
    together = sum(both) if other.rule == "product" else mean_log10_e(both)
    close("e-value of both lines", [other.log10_evalue_together], [together])
    return f"the e-value of both lines is the {other.rule} of theirs"


def plan(record: TwinRecord, folder: Path) -> str:
    """The plan beside the report is the one on record, and the report keeps to it."""
    made = kept_plan(folder)
    if record.plan is None:
        return "no plan is on record"
    if made is None:
        raise NotDone(f"{PLAN_FILE}, which fixed the pairs and how they are asked about, is not beside the report")
    same("SHA-256 of the plan", record.plan.sha256, plan_sha256(made))
    _kept_to(record, made)
    found = read_evidence(folder / EVIDENCE_FILE)
    if found.ids != tuple(pair.id for pair in made.pairs[: len(found)]):
        refuse("the pairs that were bet on are not the plan's first ones, in its order")
    if found.combination is not None:
        refuse("the bets go by a combination of the numbers that the plan has not")
    same("numbers of a pair", found.columns, tuple(made.columns))
    same("covariates of a pair", found.covariate_names, tuple(made.covariates))
    return f"the pairs that were bet on are the first {len(found):,} of the plan's {len(made.pairs):,}, in its order"


def _kept_to(record: TwinRecord, made: TwinPlan) -> None:
    """Refuse where the record says another thing than its plan."""
    seen, choice = record.plan, made.choice
    assert seen is not None
    for what, said, planned in (
        ("when the plan was made", seen.created, made.created),
        ("seed of the sample", seen.seed, choice.seed),
        ("pairs offered", seen.offered, choice.offered),
        ("level of the twins", record.level, choice.level),
        ("mode", record.mode, made.mode),
        ("what is read of the suspect", record.ask, made.ask),
        ("suspect", record.suspect, made.suspect),
        ("reference", record.reference, made.reference),
        ("ledger", record.ledger, made.ledger),
        ("target", record.target_log10, made.target_log10),
        ("level of the report", record.alpha, made.alpha),
        ("arguments", record.arguments, made.arguments),
        ("pairs planned", record.pairs.used, len(made.pairs)),
        ("pairs", msgspec.structs.replace(record.pairs, asked=0, silent=0), choice.counts),
    ):
        same(what, said, planned)
