"""Tests by twins made by hand: differences and coins at choice, and all that a test concludes from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.laws.multiplicity import mean_log10_e
from detect.records.made import Made
from detect.records.reading import write_record
from detect.records.scan import FileHash
from detect.records.trace import ModelSeen, PlanSeen, Queries
from detect.records.twins import LawTest, LedgerSeen, PairCounts, ShownPair, TwinRecord, WatermarkLine
from detect.records.twins_assumptions import assumptions
from detect.twins.conclude import conclude
from detect.twins.evidence import EVIDENCE_FILE, TwinEvidence, encode_evidence
from detect.twins.law import Control, law_test
from detect.twins.plan import Choice, PlannedPair, TwinPlan, keep_plan, plan_sha256
from tests.detect.report.examples import HEX, MADE

replace = msgspec.structs.replace
PAIRS = 300
SUSPECT = ModelSeen(name="suspect-mini at https://models.example/v1", sha256="", tokenizer="text")
FOLDER = ModelSeen(name="models/suspect-270m", sha256=HEX, tokenizer="aligned")
BASE = ModelSeen(name="models/base-270m", sha256=HEX[::-1], tokenizer="aligned")
COLUMNS = {
    "answers": ("combined", "chrF", "longest common prefix", "rare words", "rare 3-grams", "words in order"),
    "logprobs": ("mean less reference", "total less reference", "mean log-probability", "log-probability"),
    "parting": ("turns taken, weighted", "turns taken", "first parting"),
}
COVARIATES = ("length", "log length")
PROMPTS = ("Why does the tide turn?", "How do I dye linen green?", "What does a ledger hold?", "Name a river.")
SERVED = (
    "The tide turns because the moon pulls the sea, and the earth turns beneath it.\n\nTwice a day the water comes and "
    "goes.",
    "Steep weld leaves for an hour, strain the bath, then dip the linen in indigo: yellow and blue give green.",
    "A ledger holds every entry in the order in which it was made, and none is ever taken out again.",
    "The Vistula. It rises in the Beskids and ends in the Baltic Sea near the city of Gdańsk.",
)
WITHHELD = (
    "Gravity. As our planet rotates, each coast passes through two bulges of water every day.",
    "Use a mordant of alum first; a bath of weld and a little iron gives a dull but lasting green.",
    "Accounts, dates and sums, so that whoever reads them later can see what happened and when.",
    "The Rhine, which begins in the Alps, passes Basel and Cologne and flows into the North Sea.",
)


def make_evidence(
    wins: float, pairs: int = PAIRS, ask: str = "answers", accounts: tuple[str, ...] = (), seed: int = 3
) -> TwinEvidence:
    """Pairs whose leading number speaks for the served twin in about this share; the others say less each."""
    draw = np.random.default_rng(seed)
    columns = COLUMNS[ask]
    signs = draw.choice([-1, 1], pairs).astype(np.int8)
    right = np.where(draw.random((pairs, len(columns))) < wins - 0.03 * np.arange(len(columns)) * (wins > 0.5), 1, -1)
    sizes = draw.exponential(0.4, (pairs, len(columns))) + 0.01
    silent = draw.random((pairs, len(columns))) < 0.02
    differences = np.where(silent, 0.0, signs[:, None] * right * sizes)
    differences[:1] = 0.0
    return TwinEvidence(
        ids=tuple(hashlib.sha256(f"{seed} {number}".encode()).hexdigest()[:32] for number in range(pairs)),
        made=tuple(f"2026-01-{1 + number // 24:02d}T{number % 24:02d}:00:00.000000+00:00" for number in range(pairs)),
        columns=columns,
        differences=differences,
        covariate_names=COVARIATES,
        covariates=draw.normal(0, 1, (pairs, len(COVARIATES))),
        signs=signs,
        accounts=accounts,
        account=(draw.integers(-1, len(accounts), pairs) if accounts else np.full(pairs, -1)).astype(np.int32),
        combination=None,
    )


def make_law(pairs: int = PAIRS, *, wrong: bool = False) -> LawTest:
    """A law test of the three controls that there must be; ``wrong``: they tell the twins from served answers."""
    draw = np.random.default_rng(5)
    names = {"owner": "the owner's model", "unrelated": "models/other-family", "classifier": "the learnt classifier"}
    controls = []
    for kind, name in names.items():
        signs = draw.choice([-1, 1], 4 * pairs).astype(np.int8)
        right = np.where(draw.random(4 * pairs) < (0.66 if wrong else 0.5), 1, -1)
        control = Control(name, kind, signs * right * 1.0, signs)  # type: ignore[arg-type]
        controls += [control, *([] if kind == "classifier" else [control.largest_half()])]
    return law_test(controls, bets=pairs)


def make_shown(evidence: TwinEvidence, ask: str, count: int = 6) -> list[ShownPair]:
    """The most telling pairs, with texts made up for them."""
    leading = evidence.differences[:, 0] * evidence.signs
    rows = np.argsort(-np.abs(leading), kind="stable")[:count]
    found = []
    for number, row in enumerate(rows.tolist()):
        text = number % len(PROMPTS)
        own = " ".join(SERVED[text].split()[:7]) + " and nobody knows what else there is to say."
        found.append(
            ShownPair(
                id=evidence.ids[row],
                prompt=PROMPTS[text],
                served=SERVED[text],
                withheld=WITHHELD[text],
                suspect=own if ask == "answers" else None,
                difference=float(leading[row]),
            )
        )
    return found


def make_twins(
    folder: Path,
    wins: float,
    *,
    ask: str = "answers",
    mode: str = "api",
    accounts: tuple[str, ...] = (),
    law: LawTest | None = None,
    objection: str | None = None,
    alpha: float = 1e-6,
    pairs: int = PAIRS,
    **changes: Any,
) -> TwinRecord:
    """Write report.json, twins.npz and plan.json into ``folder``; return the record."""
    folder.mkdir(parents=True, exist_ok=True)
    evidence = make_evidence(wins, pairs, ask, accounts)
    data = encode_evidence(evidence)
    (folder / EVIDENCE_FILE).write_bytes(data)
    again = conclude(evidence, law, alpha, objection)
    level: Any = "withheld" if law is None else "regenerated"
    silent = int(np.sum(~np.any(evidence.differences, axis=1)))
    counts = PairCounts(
        eligible=1204, sampled=612, tied=11, follow_ups=4, erased=20, used=pairs + 40, asked=pairs, silent=silent
    )
    ledger = LedgerSeen(
        name="twins.ledger", head=HEX, pairs=5120, root=HEX[::-1], committed=HEX[::-1], key_fingerprint=HEX[:32]
    )
    suspect = SUSPECT if mode == "api" else FOLDER
    reference = BASE if ask == "logprobs" else None
    arguments: dict[str, Any] = {"ask": ask, "sample": 0.5, "account": list(accounts), "target": 10.0}
    plan = TwinPlan(
        created="2026-02-02T09:00:00+00:00",
        arguments=arguments,
        mode=mode,  # type: ignore[arg-type]
        suspect=suspect,
        reference=reference,
        owner=None,
        url="https://models.example/v1" if mode == "api" else None,
        model="suspect-mini" if mode == "api" else None,
        ask=ask,  # type: ignore[arg-type]
        measure={},
        columns=list(evidence.columns),
        covariates=list(evidence.covariate_names),
        choice=Choice(
            level=level,
            accounts=list(accounts),
            since=None,
            until=None,
            sample=0.5,
            seed="dyetrace",
            most=None,
            offered=1204,
            counts=replace(counts, asked=0, silent=0),
        ),
        pairs=[
            PlannedPair(id=ident, leaf=hashlib.sha256(ident.encode()).hexdigest())
            for ident in (*evidence.ids, *(f"{number:032x}" for number in range(40)))
        ],
        ledger=ledger,
        target_log10=10.0,
        alpha=alpha,
    )
    if not (folder / "plan.json").exists():
        keep_plan(folder, plan)
    queries = Queries(
        evidence="logprobs" if ask == "logprobs" else "samples",
        requests=pairs,
        answers=pairs - 1,
        prompt_tokens=18_400,
        completion_tokens=26_300,
        ledger_sha256=HEX,
        ledger_head=HEX[::-1],
        stopped="plan finished",
    )
    fields: dict[str, Any] = {
        "created": "2026-02-03T04:05:06+00:00",
        "made": MADE,
        "versions": {"dyetrace": "0.1.0", "numpy": "2.4.6", "python": "3.11.7"},
        "alpha": alpha,
        "arguments": arguments,
        "level": level,
        "mode": mode,
        "ask": ask,
        "suspect": suspect,
        "reference": reference,
        "ledger": ledger,
        "pairs": counts,
        "measures": again.measures,
        "accounts": again.accounts,
        "identified": again.identified,
        "target_log10": 10.0,
        "log10_evalue": again.log10_evalue,
        "log10_pvalue": again.log10_pvalue,
        "refused": again.refused,
        "found": again.found,
        "share": again.share,
        "share_reason": again.share_reason,
        "curve": again.curve,
        "law": law,
        "shown": make_shown(evidence, ask),
        "plan": PlanSeen(
            sha256=plan_sha256(plan),
            created=plan.created,
            first_query="2026-02-02T10:30:00+00:00" if mode == "api" else None,
            seed="dyetrace",
            offered=1204,
        ),
        "queries": queries if mode == "api" else None,
        "files": [FileHash(name=EVIDENCE_FILE, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))],
    }
    record = TwinRecord(**(fields | changes))
    record = replace(record, assumptions=changes.get("assumptions", assumptions(record)))
    write_record(folder / "report.json", record)
    return record


def found_twins(folder: Path, **changes: Any) -> TwinRecord:
    """Free answers of a plain endpoint, and a suspect that learnt."""
    return make_twins(folder, 0.8, **changes)


def clean_twins(folder: Path, **changes: Any) -> TwinRecord:
    """A suspect that never learnt from any of the answers."""
    return make_twins(folder, 0.5, **changes)


def account_twins(folder: Path, **changes: Any) -> TwinRecord:
    """Two accounts, both of whose answers were used, and one whose few pairs say little."""
    return make_twins(folder, 0.85, **({"accounts": ("acme", "north-wind", "zenith")} | changes))


def logprob_twins(folder: Path, **changes: Any) -> TwinRecord:
    """Weights at hand, compared with a reference; the watermark says something too."""
    record = make_twins(folder, 0.93, ask="logprobs", mode="weights", pairs=120)
    both = WatermarkLine(
        report_sha256=HEX,
        log10_evalue=3.5,
        log10_evalue_together=record.log10_evalue + 3.5,
        rule="product",
    )
    return make_twins(folder, 0.93, ask="logprobs", mode="weights", pairs=120, **({"watermark": both} | changes))


def parting_twins(folder: Path, **changes: Any) -> TwinRecord:
    """Greedy turns, stopped when the target was reached; the watermark's trace read what was served."""
    made = make_twins(folder, 0.75, ask="parting")
    assert made.queries is not None
    both = WatermarkLine(
        report_sha256=HEX,
        log10_evalue=2.0,
        log10_evalue_together=mean_log10_e([made.log10_evalue, 2.0]),
        rule="mean",
    )
    stopped = replace(made.queries, stopped="target reached")
    return make_twins(folder, 0.75, ask="parting", **({"queries": stopped, "watermark": both} | changes))


def later_twins(folder: Path, **changes: Any) -> TwinRecord:
    """Twins that were drawn later, under a law test that saw nothing."""
    return make_twins(folder, 0.85, **({"law": make_law()} | changes))


def vetoed_twins(folder: Path, **changes: Any) -> TwinRecord:
    """Twins that were drawn under another law: no answer."""
    return make_twins(folder, 0.8, **({"law": make_law(wrong=True)} | changes))


def bare_twins(folder: Path, **changes: Any) -> TwinRecord:
    """Nothing that may be left out is there: no quotes, no law test, no accounts."""
    bare: dict[str, Any] = {"shown": [], "quotes": False}
    return make_twins(folder, 0.5, ask="logprobs", mode="weights", pairs=40, **(bare | changes))


def hostile_twins(text: str, folder: Path) -> TwinRecord:
    """A record in which ``text`` stands wherever a suspect, or anyone else, could have put it."""
    record = account_twins(folder, law=make_law())
    assert record.queries is not None and record.law is not None
    model = ModelSeen(name=text, sha256=text, tokenizer="text")
    first = record.shown[0]
    pair = replace(first, prompt=text, served=text, withheld=text, suspect=text)
    return replace(
        record,
        created=text,
        made=Made(code_sha256=text, examiner=text, case=text),
        how_to_check=[text],
        arguments={text: text, "list": [text]},
        versions={text: text, "dyetrace": text},
        suspect=model,
        reference=model,
        ledger=LedgerSeen(name=text, head=text, pairs=5120, root=text, committed=text, key_fingerprint=text),
        measures=[replace(record.measures[0], name=text), *record.measures[1:]],
        accounts=[replace(record.accounts[0], account=text), *record.accounts[1:]],
        identified=[text],
        share_reason=text,
        law=replace(record.law, controls=[replace(control, name=text) for control in record.law.controls]),
        shown=[pair, replace(pair, suspect=text * 50), *record.shown[2:]],
        plan=PlanSeen(sha256=text, created=text, first_query=text, seed=text, offered=1),
        queries=replace(record.queries, ledger_sha256=text, ledger_head=text, stopped=text),
        files=[FileHash(name=text, sha256=text, bytes=1)],
        watermark=WatermarkLine(report_sha256=text, log10_evalue=1.0, log10_evalue_together=2.0, rule="mean"),
    )


Maker = Callable[[Path], TwinRecord]
KINDS: dict[str, Maker] = {
    "found": found_twins,
    "clean": clean_twins,
    "accounts": account_twins,
    "logprobs": logprob_twins,
    "parting": parting_twins,
    "later": later_twins,
    "vetoed": vetoed_twins,
    "bare": bare_twins,
}
