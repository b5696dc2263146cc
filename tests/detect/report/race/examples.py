"""Race readouts made by hand: places and replies at choice under keys that everybody knows, and what follows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.race.bets import goes_on
from detect.race.chances import Chances
from detect.race.conclude import Live, conclude, rows_of
from detect.race.evidence import EVIDENCE_FILE, NOT_SAID, RaceEvidence, encode_evidence, read_evidence
from detect.race.plan import (
    PLAN_FILE,
    PlannedChances,
    RaceAsking,
    RacePlan,
    RaceRule,
    ServedSeen,
    canonical_plan,
    encode_chances,
    plan_sha256,
    save_plan,
)
from detect.race.tilts import tilts
from detect.records.how_to_check import in_words
from detect.records.made import Made
from detect.records.race import RaceAsk, RaceCounts, RaceRecord, SamplingSeen, ShownCut
from detect.records.race_assumptions import assumptions
from detect.records.reading import write_record
from detect.records.scan import FileHash
from detect.records.trace import ModelSeen, PlanSeen, Queries, Reading
from detect.student.asking.ledger import LEDGER_FILE, Draft, Ledger
from tests.detect.report.examples import HEX, MADE
from watermark.commitment import Commitment
from watermark.keys import KeyRing, SecretKey
from watermark.spec import WatermarkSpec

replace = msgspec.structs.replace
SECRET = SecretKey(b"a key that everybody knows......")
ACCOUNTS = ("acme", "north-wind", "zenith")
VOCABULARY, CANDIDATES, PER_ANSWER = 49152, 6, 6
SUSPECT = ModelSeen(name="suspect-mini at https://models.example/v1", sha256="", tokenizer="text")
FOLDER = ModelSeen(name="models/suspect-270m", sha256=HEX, tokenizer="aligned")
OWNER = ModelSeen(name="models/owner-270m", sha256=HEX[::-1], tokenizer="same")
BEGUN = "Steep weld leaves for an hour, strain the bath, then dip the linen in"
WORDS = (" indigo", " madder", " a", " the", " copper", " alum")


def make_spec(**changes: Any) -> WatermarkSpec:
    fields: dict[str, Any] = {
        "vocabulary_size": VOCABULARY,
        "tokenizer": HEX[:32],
        "key_fingerprint": SECRET.fingerprint,
        "scheme": "gumbel",
        "context_width": 4,
        "subkeys": 4,
        "global_share": 1.0,
    }
    return WatermarkSpec(**changed(fields, changes))


def ring_of(spec: WatermarkSpec, accounts: tuple[str, ...] = ()) -> KeyRing:
    return KeyRing.from_master(SECRET, spec.epoch, accounts)


def make_evidence(
    spec: WatermarkSpec,
    ring: KeyRing,
    ask: RaceAsk = "greedy",
    *,
    memory: float = 0.0,
    answers: int = 60,
    learnt: float = 1.0,
    known: bool = True,
    accounts: tuple[str, ...] = (),
    guilty: tuple[str, ...] = (),
    seed: int = 3,
) -> RaceEvidence:
    """Places of so many answers; of a share of them the suspect remembers each choice with this chance."""
    draw = np.random.default_rng(seed)
    n, k = answers * PER_ANSWER, CANDIDATES
    documents = np.repeat(np.arange(answers), PER_ANSWER).astype(np.int32)
    account = (np.arange(answers) % len(accounts) if accounts else np.full(answers, -1)).astype(np.int32)
    contexts = draw.integers(0, VOCABULARY, (n, spec.context_width)).astype(np.uint32)
    subkeys = np.repeat(draw.integers(0, spec.subkeys, answers), PER_ANSWER).astype(np.int32)
    tokens = np.array([draw.choice(VOCABULARY, k, replace=False) for _ in range(n)], dtype=np.int32)
    chances = draw.dirichlet(np.full(k, 0.8), n) * 0.99 + 0.01 / k
    chances /= chances.sum(axis=1, keepdims=True)
    names = rows_of(contexts, account[documents], accounts, spec, ring)
    kept = np.array([name is not None for name in names])
    chosen = np.zeros(n, dtype=np.int64)
    keys = {"global": ring.global_key, **{f"tenant:{name}": key for name, key in ring.tenants.items()}}
    for name in {name for name in names if name is not None}:
        mine = np.array([one == name for one in names])
        key = keys[str(name)]
        assert isinstance(key, SecretKey)
        taken = tilts(spec, key, contexts[mine], subkeys[mine], tokens[mine], chances[mine])
        chosen[mine] = taken[0].argmax(axis=1)
    used = draw.random(answers) < learnt
    if guilty:
        used &= np.isin([accounts[whose] for whose in account], guilty)
    remembers = used[documents] & (draw.random(n) < memory)
    own = (chances * draw.dirichlet(np.full(k, 2.0), n)).argmax(axis=1)
    said = np.where(remembers, chosen, own).astype(np.int32)
    silent = draw.random(n) < 0.03
    said[silent] = NOT_SAID
    shares = np.zeros((n, 0))
    if ask not in ("greedy", "bias"):
        shares = chances * draw.dirichlet(np.full(k, 4.0), n)
        shares /= shares.sum(axis=1, keepdims=True)
        shares = 0.999 * (1 - memory * used[documents])[:, None] * shares
        shares[np.arange(n), chosen] += 0.999 * memory * used[documents]
        said = np.where(silent, NOT_SAID, shares.argmax(axis=1)).astype(np.int32)
        if ask == "echo":
            shares[np.arange(k) != chosen[:, None]] = np.nan
            said[:] = NOT_SAID
        shares[silent] = np.nan
    rows = np.flatnonzero(kept)
    return RaceEvidence(
        ask=ask,
        contexts=contexts[rows],
        subkeys=subkeys[rows] if known else np.full(len(rows), -1, dtype=np.int32),
        documents=documents[rows],
        positions=np.tile(np.arange(3, 3 + 4 * PER_ANSWER, 4), answers).astype(np.int32)[rows],
        tokens=tokens[rows],
        chances=chances[rows],
        said=said[rows],
        shares=shares[rows],
        steps=(documents + 1 if ask in ("weights", "prompt-logprobs", "echo") else np.arange(1, n + 1)).astype(
            np.int32
        )[rows],
        names=tuple(f"served.jsonl, line {number + 1}" for number in range(answers)),
        accounts=accounts,
        account=account,
    )


def changed(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Fields, some of them others."""
    return fields | changes


def left(evidence: RaceEvidence, spec: WatermarkSpec, ring: KeyRing) -> RaceEvidence:
    """The places that are asked about where an answer is left as soon as its bets don't win."""
    live, kept, document = Live(spec, ring), np.zeros(len(evidence), dtype=np.bool_), -1
    requests: int | None = 0
    for row, one in enumerate(evidence.documents.tolist()):
        if one != document:
            document, requests = one, 0
        if requests is not None and goes_on(requests, live.log_answer):
            live.observe(evidence.part(slice(row, row + 1)))
            kept[row], requests = True, requests + 1
        else:
            requests = None
    return evidence.part(kept)


def make_shown(evidence: RaceEvidence, hits: np.ndarray[Any, Any], count: int = 8) -> list[ShownCut]:
    """Hits of small chance, with texts made up for them."""
    rows = np.flatnonzero(hits)
    chance = evidence.chances[rows, evidence.said[rows]]
    order = np.argsort(chance, kind="stable")[:count]
    return [
        ShownCut(
            answer=evidence.names[evidence.documents[row]],
            begun=f"{BEGUN} {number}",
            chosen=WORDS[number % len(WORDS)],
            said=WORDS[number % len(WORDS)],
            chance=float(evidence.chances[row, evidence.said[row]]),
        )
        for number, row in enumerate(rows[order].tolist())
    ]


def make_race(
    folder: Path,
    memory: float,
    *,
    ask: RaceAsk = "greedy",
    scheme: str = "gumbel",
    accounts: tuple[str, ...] = (),
    global_share: float = 1.0,
    alpha: float = 1e-6,
    objection: str | None = None,
    early: bool | None = None,
    decoys: int = 12,
    quotes: bool = True,
    leaving: bool = False,
    evidence: dict[str, Any] | None = None,
    **changes: Any,
) -> RaceRecord:
    """Write report.json and race.npz into ``folder``; return the record."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = make_spec(scheme=scheme, global_share=global_share)
    ring = ring_of(spec, accounts)
    found = make_evidence(spec, ring, ask, memory=memory, accounts=accounts, **(evidence or {}))
    found = left(found, spec, ring) if leaving else found
    data = encode_evidence(found)
    (folder / EVIDENCE_FILE).write_bytes(data)
    mode = "weights" if ask == "weights" else "api"
    again = conclude(
        found,
        spec,
        ring,
        alpha=alpha,
        decoy_seed="dyetrace",
        decoy_count=decoys,
        objection=objection,
        early=mode == "api" if early is None else early,
    )
    hits = found.said != NOT_SAID
    requests = int(found.steps[-1]) if len(found) else 0
    queries = Queries(
        evidence="samples" if ask in ("greedy", "bias") else "logprobs",
        requests=requests,
        answers=len(found),
        prompt_tokens=18_400,
        completion_tokens=requests,
        ledger_sha256=HEX,
        ledger_head=HEX[::-1],
        stopped="plan finished",
    )
    plan = PlanSeen(
        sha256=HEX,
        created="2026-02-02T09:00:00+00:00",
        first_query="2026-02-02T10:30:00+00:00",
    )
    fields: dict[str, Any] = {
        "created": "2026-02-03T04:05:06+00:00",
        "made": MADE,
        "versions": {"dyetrace": "0.1.0", "numpy": "2.4.6", "python": "3.11.7"},
        "alpha": alpha,
        "arguments": {"read": "served.jsonl", "owner_model": OWNER.name, "ask": ask, "alpha": alpha, "target": 10.0},
        "mode": mode,
        "ask": ask,
        "spec": spec,
        "spec_id": spec.spec_id,
        "key_fingerprint": spec.key_fingerprint,
        "commitment": Commitment(
            sha256=HEX,
            spec_id=spec.spec_id,
            key_fingerprint=spec.key_fingerprint,
            created="2025-11-02T09:00:00+00:00",
        ),
        "suspect": FOLDER if mode == "weights" else SUSPECT,
        "owner": OWNER,
        "sampling": SamplingSeen(source="recorded", settings=["temperature 0.8, top-p 0.95"]),
        "reading": Reading(
            name="served.jsonl",
            sha256=HEX,
            marked=True,
            documents=len(found.names),
            tokens=14_210,
            contexts=len(found),
            taken="all",
            unlike_text=0,
        ),
        "counts": RaceCounts(
            answers=len(found.names),
            fresh=4210,
            unheld=0,
            cuts=len(found) + 12,
            asked=len(found),
            silent=again.silent,
        ),
        "hypotheses": again.hypotheses,
        "identified": again.identified,
        "target_log10": 10.0,
        "log10_evalue": again.log10_evalue,
        "log10_pvalue": again.log10_pvalue,
        "refused": again.refused,
        "found": again.found,
        "curve": again.curve,
        "lit": again.lit,
        "shown": make_shown(found, hits) if quotes and hits.any() else [],
        "quotes": quotes,
        "controls": again.controls,
        "plan": plan if mode == "api" else None,
        "queries": queries if mode == "api" else None,
        "files": [FileHash(name=EVIDENCE_FILE, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))],
    }
    record = RaceRecord(**changed(fields, changes))
    record = replace(record, assumptions=changes.get("assumptions", assumptions(record)))
    record = replace(record, how_to_check=in_words(record))
    write_record(folder / "report.json", record)
    return record


def found_race(folder: Path, **changes: Any) -> RaceRecord:
    """One greedy word at a time, through an endpoint, of a suspect that learnt from all answers."""
    return make_race(folder, 0.35, **changes)


def clean_race(folder: Path, **changes: Any) -> RaceRecord:
    """A suspect that never learnt from any of the answers; nobody said how they were drawn."""
    assumed = SamplingSeen(source="assumed", settings=["temperature 1"])
    return make_race(folder, 0.0, **changed({"early": False, "sampling": assumed}, changes))


def account_race(folder: Path, **changes: Any) -> RaceRecord:
    """The answers to one of three accounts were used; each marks with its own key alone."""
    given = {"accounts": ACCOUNTS, "global_share": 0.0, "early": False}
    return make_race(folder, 0.6, evidence={"guilty": ("acme",), "answers": 90}, **changed(given, changes))


def both_race(folder: Path, **changes: Any) -> RaceRecord:
    """The global key and accounts' own ones share the places."""
    return make_race(folder, 0.5, **changed({"accounts": ACCOUNTS, "global_share": 0.5}, changes))


def weights_race(folder: Path, **changes: Any) -> RaceRecord:
    """Weights at hand, and few of many answers used."""
    return make_race(folder, 0.8, **changed({"ask": "weights", "evidence": {"learnt": 0.1, "answers": 120}}, changes))


def echo_race(folder: Path, **changes: Any) -> RaceRecord:
    """An endpoint that tells of the served words alone how likely it finds them."""
    return make_race(folder, 0.6, **changed({"ask": "echo"}, changes))


def tournament_race(folder: Path, **changes: Any) -> RaceRecord:
    """A scheme that chooses no single word, and log-probabilities; stopped when the target was reached."""
    made = make_race(folder, 0.5, ask="logprobs", scheme="tournament")
    assert made.queries is not None
    stopped = replace(made.queries, stopped="target reached")
    return make_race(folder, 0.5, **changed({"ask": "logprobs", "scheme": "tournament", "queries": stopped}, changes))


def green_race(folder: Path, **changes: Any) -> RaceRecord:
    """A green list, nobody knows by which sub-keys, and settings that the analyst gave."""
    given = SamplingSeen(source="given", settings=["temperature 0.8", "temperature 0.7, top-k 40"])
    fields = {"ask": "prompt-logprobs", "scheme": "green_list", "evidence": {"known": False}, "sampling": given}
    return make_race(folder, 0.5, **changed(fields, changes))


def refused_race(folder: Path, **changes: Any) -> RaceRecord:
    """No answer, since replies were on record before the plan."""
    why = "replies were on record before the plan was: a plan must be made before the first query"
    return make_race(folder, 0.4, **changed({"objection": why}, changes))


def bare_race(folder: Path, **changes: Any) -> RaceRecord:
    """Nothing that may be left out is there: no quotes, no accounts, no decoys, no commitment."""
    bare: dict[str, Any] = {"ask": "weights", "quotes": False, "decoys": 0, "commitment": None}
    return make_race(folder, 0.0, evidence={"answers": 8}, **changed(bare, changes))


def hostile_race(text: str, folder: Path) -> RaceRecord:
    """A record in which ``text`` stands wherever a suspect, or anyone else, could have put it."""
    record = account_race(folder)
    assert record.queries is not None
    model = ModelSeen(name=text, sha256=text, tokenizer="text")
    cut = replace(record.shown[0], answer=text, begun=text * 20, chosen=text, said=text)
    return replace(
        record,
        created=text,
        made=Made(code_sha256=text, examiner=text, case=text),
        how_to_check=[text],
        arguments={text: text, "list": [text]},
        versions={text: text, "dyetrace": text},
        spec_id=text,
        key_fingerprint=text,
        suspect=model,
        owner=model,
        sampling=SamplingSeen(source="recorded", settings=[text] * 60),
        reading=replace(record.reading, name=text, sha256=text, complete=text),
        hypotheses=[replace(record.hypotheses[0], key=f"tenant:{text}"), *record.hypotheses[1:]],
        identified=[text],
        lit=[replace(record.lit[0], name=text, account=text), *record.lit[1:]],
        shown=[cut, replace(cut, begun=text * 500), *record.shown[1:]],
        controls=replace(record.controls, decoy_seed=text),
        plan=PlanSeen(sha256=text, created=text, first_query=text, seed=text, offered=1),
        queries=replace(record.queries, ledger_sha256=text, ledger_head=text, stopped=text),
        files=[FileHash(name=text, sha256=text, bytes=1)],
    )


def planned_race(folder: Path, **changes: Any) -> RaceRecord:
    """The first of these again, with the plan and the replies that it was made from beside it."""
    record = found_race(folder, leaving=True, **changes)
    whole = make_evidence(record.spec, ring_of(record.spec), memory=0.35)
    evidence = read_evidence(folder / EVIDENCE_FILE)
    plan, chances = make_plan(record, whole)
    save_plan(folder / PLAN_FILE, plan, chances)
    with Ledger(folder / LEDGER_FILE) as ledger:
        sha256 = plan_sha256(plan)
        ledger.enter_plan(sha256, canonical_plan(plan))
        for step in range(len(evidence)):
            fields: dict[str, Any] = {"key": f"{step:064x}", "plan": sha256, "meta": {}}
            (asked,) = ledger.append([Draft(kind="asked", tokens=20, payload=b"{}", **fields)])
            ledger.append([Draft(kind="answered", tokens=21, payload=b"{}", asked=asked, **fields)])
        first, head = ledger.standing(sha256).first_query, ledger.head
    assert record.plan is not None and record.queries is not None
    record = replace(
        record,
        plan=replace(record.plan, sha256=sha256, created=plan.created, first_query=first),
        queries=replace(record.queries, requests=len(evidence), ledger_head=head),
        counts=replace(record.counts, cuts=len(plan.cuts)),
    )
    write_record(folder / "report.json", record)
    return record


def make_plan(record: RaceRecord, evidence: RaceEvidence) -> tuple[RacePlan, bytes]:
    """The plan of a readout, all of whose places were asked about, and the bytes of the file beside it."""
    chances = encode_chances(PlannedChances(Chances(evidence.tokens, evidence.chances), np.zeros(record.counts.fresh)))
    name, _, url = record.suspect.name.partition(" at ")
    plan = RacePlan(
        created="2026-02-02T09:00:00+00:00",
        arguments=record.arguments,
        url=url,
        model=name,
        spec_id=record.spec_id,
        key_fingerprint=record.key_fingerprint,
        commitment=record.commitment,
        accounts=[one.key.removeprefix("tenant:") for one in record.accounts],
        owner=record.owner,
        sampling=record.sampling,
        served=ServedSeen(
            name=record.reading.name,
            sha256=record.reading.sha256,
            answers=record.counts.answers,
            fresh=record.counts.fresh,
            unheld=record.counts.unheld,
            taken=record.reading.taken,
        ),
        rule=RaceRule(per_answer=PER_ANSWER, spread=0.5),
        asking=RaceAsking(ask="greedy", form="completions", shown="plain", ids=False),
        cuts=list(zip(evidence.documents.tolist(), evidence.positions.tolist(), strict=True)),
        chances_sha256=hashlib.sha256(chances).hexdigest(),
        decoy_seed=record.controls.decoy_seed,
        decoys=len(record.controls.decoy_log10_evalues),
        alpha=record.alpha,
        target_log10=record.target_log10,
    )
    return plan, chances


Maker = Callable[[Path], RaceRecord]
KINDS: dict[str, Maker] = {
    "found": found_race,
    "clean": clean_race,
    "accounts": account_race,
    "both": both_race,
    "weights": weights_race,
    "echo": echo_race,
    "tournament": tournament_race,
    "green": green_race,
    "refused": refused_race,
    "bare": bare_race,
}
