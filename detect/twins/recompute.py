"""A test by twins computed anew from the private ledger: which pairs there are, their coins, and what follows.

Whoever has the ledger and the twin key sees that the ledger has the root on record, that the same pairs are chosen from
it again, and that each coin is the one that the key tossed for the pair's number. Where the suspect's replies lie
beside the report, and no model is needed to read them, each pair's differences are computed from them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from detect.records.arrays import evidence_of
from detect.records.twins import TwinRecord
from detect.student.asking.answers import read_response
from detect.student.asking.ledger import LEDGER_FILE, Entry, verify_chain
from detect.twins.asking import Replied, TwinQuestions
from detect.twins.evidence import EVIDENCE_FILE, F64, TwinEvidence, read_evidence
from detect.twins.measures.answers import answer_of
from detect.twins.measures.prompting import plain_prompt
from detect.twins.measures.weights import COVARIATES, covariates
from detect.twins.measuring import measure_of
from detect.twins.plan import TwinPlan, kept_plan, plan_sha256
from detect.twins.readings import Readings
from detect.twins.recording import shown_text
from detect.twins.selection import PairChoice, came_at, select
from watermark.errors import DyetraceError, EvidenceError
from watermark.keys.secret import SecretKey
from watermark.twins.ledger import Stored, TwinLedger
from watermark.twins.pair import Pair, coin_key, coin_proof, tossed

_OPTIONS = {"accounts": "tenants"}  # fields of a choice that have another name as options


@dataclass(frozen=True, slots=True)
class Held:
    """What the private ledger gives.

    Attributes
    ----------
    root, head
        Of as many pairs as the record knows; the head is None where the ledger has grown since.
    pairs
        All of these that can be read.
    erased
        How many can't.
    """

    root: str
    head: str | None
    pairs: Sequence[Stored]
    erased: int


def recompute_twins(
    record: TwinRecord, secret: SecretKey, ledger: Path, folder: Path, note: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Compare a record with the private ledger and list every difference; an empty list means that it holds.

    Parameters
    ----------
    record
        The report.
    secret
        The owner's twin key.
    ledger
        The private ledger of pairs.
    folder
        Where the report lies, with its evidence and, for all that can be compared, its plan and the suspect's replies.
    note
        Told what could not be compared, a sentence each.

    Raises
    ------
    DyetraceError
        The key is not the record's or the ledger's, or the evidence is missing, damaged or not that of the report.
    """
    if secret.fingerprint != record.ledger.key_fingerprint:
        raise DyetraceError(
            f"wrong key: the report is of twin key {record.ledger.key_fingerprint}, and this key is "
            f"{secret.fingerprint}"
        )
    evidence = read_evidence(evidence_of(record.files, EVIDENCE_FILE, folder))
    held = _held(record, secret, ledger)
    plan = _plan_of(record, folder)
    found = [*_of_ledger(record, held), *_of_coins(record, secret, held, evidence), *_of_shown(record, held)]
    if plan is not None:
        found += _of_plan(record, plan, evidence)
    choice = _choice_of(record, plan)
    if choice is None:
        found.append("neither a plan beside the report nor its options say how pairs were chosen")
    elif held.erased == record.pairs.erased:
        found += _of_choice(record, choice, plan, held, evidence)
        if plan is None:
            note(
                "the plan is not beside the report: pairs were chosen again by the report's own options, and what "
                "rests on their texts and the replies was not computed again"
            )
        elif not found:
            found += _of_texts(record, plan, held, evidence, folder, note)
    elif plan is None:
        found.append(
            f"{held.erased:,} pairs of the ledger are erased and {record.pairs.erased:,} were, and no plan is beside "
            "the report: nobody can say whether its pairs are those that were chosen"
        )
    else:
        note(
            f"{held.erased - record.pairs.erased:,} pairs were erased since the report was made, so that the choice of "
            "pairs and what rests on their texts can't be compared any more"
        )
    return found


def _plan_of(record: TwinRecord, folder: Path) -> TwinPlan | None:
    """The plan beside the report; None where it isn't there."""
    plan = kept_plan(folder)
    if plan is not None and (record.plan is None or plan_sha256(plan) != record.plan.sha256):
        raise EvidenceError(f"the plan in {folder} is not that of the report; restore it, or take it away")
    return plan


def _held(record: TwinRecord, secret: SecretKey, path: Path) -> Held:
    known = record.ledger.pairs
    with TwinLedger.open(path, secret) as ledger:
        if ledger.count < known:
            raise EvidenceError(f"{path} holds {ledger.count:,} pairs, and the report's ledger held {known:,}")
        pairs = [stored for stored in ledger.stored() if stored.number <= known]
        head = ledger.head if ledger.count == known else None
        return Held(ledger.root(known), head, pairs, known - len(pairs))


def _of_ledger(record: TwinRecord, held: Held) -> Iterator[str]:
    if held.root != record.ledger.root:
        yield f"the ledger's root is {held.root}, not {record.ledger.root}"
    if held.head is not None and held.head != record.ledger.head:
        yield f"the last hash of the ledger is {held.head}, not {record.ledger.head}"
    if held.erased < record.pairs.erased:
        yield f"{record.pairs.erased:,} pairs are said to be erased, and {held.erased:,} are"


def _of_plan(record: TwinRecord, plan: TwinPlan, evidence: TwinEvidence) -> Iterator[str]:
    """The report counts the plan's pairs, and its evidence has the first of them."""
    counts = msgspec.structs.replace(record.pairs, asked=0, silent=0)
    if counts != plan.choice.counts:
        yield f"other counts of pairs: {counts} in the report, {plan.choice.counts} in the plan"
    if evidence.ids != tuple(pair.id for pair in plan.pairs[: len(evidence)]):
        yield "the pairs that were bet on are not the first of the plan"


def _choice_of(record: TwinRecord, plan: TwinPlan | None) -> PairChoice | None:
    """How pairs were chosen: by the plan, or by the options on record; None where these don't say it."""
    if plan is not None:
        said = {name: getattr(plan.choice, name) for name in PairChoice.__struct_fields__}
    else:
        try:
            said = {name: record.arguments[_OPTIONS.get(name, name)] for name in PairChoice.__struct_fields__}
        except KeyError:
            return None
        said["level"] = said["level"] or record.level  # without --level the ledger decided
    try:
        return msgspec.convert(said, PairChoice)
    except (DyetraceError, msgspec.ValidationError):
        return None


def _of_choice(
    record: TwinRecord, choice: PairChoice, plan: TwinPlan | None, held: Held, evidence: TwinEvidence
) -> Iterator[str]:
    """The same choice again gives the plan's pairs, in its order, and as many as are on record.

    The evidence has the first of them.
    """
    again = select(held.pairs, choice, held.erased)
    leaves = {one.pair.id: one.leaf.hex() for one in again.pairs}
    if plan is not None and [(pair.id, pair.leaf) for pair in plan.pairs] != list(leaves.items()):
        yield f"other pairs are chosen: {len(leaves):,} from the ledger, {len(plan.pairs):,} in the plan"
    silent = int(np.sum(~np.any(evidence.differences != 0, axis=1)))
    counts = msgspec.structs.replace(again.counts, asked=len(evidence), silent=silent)
    if counts != record.pairs:
        yield f"other counts of pairs: {counts} from the ledger, {record.pairs} in the report"
    if record.plan is not None and record.plan.offered != counts.eligible:
        yield f"{counts.eligible:,} pairs of the ledger were to choose from, not {record.plan.offered:,}"
    if evidence.ids != tuple(leaves)[: len(evidence)]:
        yield "the pairs that were bet on are not the first of those that are chosen"


def _of_coins(record: TwinRecord, secret: SecretKey, held: Held, evidence: TwinEvidence) -> Iterator[str]:
    """Every pair's coin is the key's, and its sign, time and account are those of the evidence."""
    key = coin_key(secret)
    pairs = {stored.pair.id: stored.pair for stored in held.pairs}
    missing = [ident for ident in evidence.ids if ident not in pairs]
    if missing and not held.erased:
        yield f"{len(missing):,} pairs that were bet on are not in the ledger"
    for row, ident in enumerate(evidence.ids):
        pair = pairs.get(ident)
        if pair is None:  # its text was erased since
            continue
        account = int(evidence.account[row])
        name = evidence.accounts[account] if account >= 0 else None
        if pair.sign != evidence.signs[row]:
            yield f"pair {ident}: another coin"
        if came_at(pair) != evidence.made[row]:
            yield f"pair {ident}: another time"
        if (pair.account if pair.account in evidence.accounts else None) != name:
            yield f"pair {ident}: another account"
        if pair.level != record.level:
            yield f"pair {ident}: {pair.level}, not {record.level}"
        yield from _of_coin(pair, key)


def _of_coin(pair: Pair, key: SecretKey) -> Iterator[str]:
    if pair.level != "withheld":
        return
    proof = coin_proof(key, pair.id)
    if pair.proof != proof or tossed(proof) != pair.served:
        yield f"pair {pair.id}: its coin is not what the twin key tosses for it"


def _of_shown(record: TwinRecord, held: Held) -> Iterator[str]:
    """The pairs that are shown say what the ledger's say; what the suspect said stands in the ledger of its replies."""
    pairs = {stored.pair.id: stored.pair for stored in held.pairs}
    for shown in record.shown:
        pair = pairs.get(shown.id)
        if pair is None:
            continue
        served, withheld = pair.answers[pair.served].text, pair.answers[1 - pair.served].text
        texts = tuple(map(shown_text, (plain_prompt(pair), served, withheld)))
        if (shown.prompt, shown.served, shown.withheld) != texts:
            yield f"pair {shown.id}: other texts than are shown"


def _of_texts(
    record: TwinRecord,
    plan: TwinPlan,
    held: Held,
    evidence: TwinEvidence,
    folder: Path,
    note: Callable[[str], None],
) -> Iterator[str]:
    """What is computed of the pairs' texts and the suspect's replies, as far as that takes no model."""
    texts = {stored.pair.id: stored.pair for stored in held.pairs}
    pairs = [texts[planned.id] for planned in plan.pairs]
    if evidence.covariate_names == COVARIATES:
        if not np.allclose(covariates(pairs[: len(evidence)]), evidence.covariates):
            yield "other covariates"
    else:
        note("some covariates are a model's, and were not computed again")
    models = [name for name, value in plan.measure.items() if name.endswith("_sha256") and value is not None]
    if plan.mode == "weights" or plan.reference is not None or models:
        note("the differences are a model's, and were not computed again: test the same suspect anew to see them")
    elif record.queries is None or not (folder / LEDGER_FILE).is_file():
        note(f"{LEDGER_FILE} is not beside the report, so that no difference could be computed from the replies again")
    else:
        again, said = _replayed(plan, pairs, len(evidence), folder, record.queries.ledger_head)
        odd = np.flatnonzero(~np.isclose(again, evidence.differences, rtol=1e-9, atol=1e-12).all(axis=1))
        yield from (f"pair {evidence.ids[row]}: other differences than its replies give" for row in odd.tolist())
        words = dict(zip(evidence.ids, said, strict=True))
        for shown in record.shown:
            if shown.suspect != words.get(shown.id):
                yield f"pair {shown.id}: another reply than is shown"


def _replayed(
    plan: TwinPlan, pairs: Sequence[Pair], count: int, folder: Path, head: str
) -> tuple[F64, list[str | None]]:
    """The numbers of the first pairs and what is shown of the suspect's free answers to them.

    Both from the replies that were on record up to the ledger's ``head``.
    """
    found: dict[str, Entry] = {}
    ended: list[int] = []

    def take(entry: Entry) -> None:
        if entry.kind == "answered" and not ended:
            found.setdefault(entry.key, entry)
        if entry.hash == head:
            ended.append(entry.number)

    verify_chain(folder / LEDGER_FILE, take)
    measure = measure_of(plan, pairs, None, None, Readings(folder, "float32"))
    questions = TwinQuestions(plan, pairs, measure, plan.budgets)
    rows = []
    said: list[str | None] = []
    for step in range(count):
        replies: list[Replied] = []
        for sample in (sample for samples in questions.samples_of(step) for sample in samples):
            request = questions.request(step, sample, 1)
            entry = found.get(request.key)
            if entry is not None:
                response = read_response(entry.payload, 1)
                replies += questions.take(request, entry.number, entry.payload, response).answers
        rows.append(questions.difference(step, replies))
        first = [reply.payload for reply in replies if reply.question == 0 and plan.ask == "answers"]
        words = answer_of(first[0]) if first else None
        said.append(None if words is None else shown_text(words))
    return np.array(rows).reshape(count, len(plan.columns)), said
