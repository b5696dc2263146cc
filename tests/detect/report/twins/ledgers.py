"""A whole test by twins without any model: a private ledger, a plan, replies on record, and the report of them.

The suspect says what was served to some of the prompts, and something else to the others.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.records.made import Made
from detect.records.scan import FileHash
from detect.records.trace import ModelSeen, Queries
from detect.records.twins import LedgerSeen, TwinRecord
from detect.student.asking.ledger import LEDGER_FILE, Draft, Ledger
from detect.twins.asking import Replied, TwinQuestions
from detect.twins.measures.answers import answer_of
from detect.twins.measures.weights import covariates
from detect.twins.measuring import covariate_columns, measure_columns, measure_of, settings_of
from detect.twins.plan import Choice, PlannedPair, TwinPlan, keep_plan
from detect.twins.readings import Readings
from detect.twins.recording import evidence_of, write_report
from detect.twins.selection import PairChoice, select
from watermark.keys import SecretKey
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair, TwinAnswer, coin_key, coin_proof, tossed

SECRET = SecretKey(b"a key that everybody knows......")
WORDS = (
    "river dye water colour weld indigo madder linen wool cloth bath steep strain press rinse dry line copper vat "
    "ash lime alum iron tin salt leaf root bark berry husk seed stem moon tide shore sand stone bridge mill wheel"
).split()
LEDGER = "twins.ledger"


def made_up(number: int, which: str) -> str:
    """A sentence of a dozen words, the same each time."""
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{number} {which}".encode()).digest()[:8], "big"))
    return " ".join(WORDS[int(i)] for i in draw.integers(0, len(WORDS), 12)) + "."


def make_pair(number: int, secret: SecretKey = SECRET) -> Pair:
    """A pair as a gateway makes it: the coin is the key's, of a number that was there before the answers."""
    ident = hashlib.sha256(f"pair {number}".encode()).hexdigest()[:32]
    proof = coin_proof(coin_key(secret), ident)
    answers = tuple(TwinAnswer(text=made_up(number, which), finish_reason="stop") for which in ("a", "b"))
    if number % 20 == 7:
        answers = (answers[0], answers[0])  # equal twins, which say nothing
    return Pair(
        id=ident,
        made=f"2026-01-{1 + number // 24:02d}T{number % 24:02d}:30:00.000000+00:00",
        account=("acme", "zenith", None)[number % 3],
        request={"model": "owner", "messages": [{"role": "user", "content": f"Question {number}: what is dyed?"}]},
        answers=answers,  # type: ignore[arg-type]
        served=tossed(proof),
        proof=proof,
    )


def write_ledger(folder: Path, pairs: int, secret: SecretKey = SECRET) -> Path:
    """The private ledger of so many pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    with TwinLedger.open(folder / LEDGER, secret, write=True) as ledger:
        ledger.append_many([make_pair(number, secret) for number in range(pairs)])
    return folder / LEDGER


def reply(pair: Pair, guilty: bool) -> bytes:
    """What the suspect says to a prompt, as a chat endpoint sends it."""
    number = int(str(pair.prompt[0]["content"]).split(":")[0].split()[1])  # type: ignore[index]
    text = pair.answers[pair.served].text if guilty and number % 8 else made_up(number, "its own")
    said = {"role": "assistant", "content": text}
    return msgspec.json.encode({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})


def report_of(folder: Path, ledger: Path, *, guilty: bool = True, secret: SecretKey = SECRET) -> TwinRecord:
    """Choose pairs of the ledger, plan, put replies on record, and write the report to ``folder``."""
    choice = PairChoice(accounts=["zenith", "acme"], sample=0.8)
    with TwinLedger.open(ledger, secret) as opened:
        chosen = select(opened.stored(), choice, opened.erased)
        seen = LedgerSeen(
            name=ledger.name,
            head=opened.head,
            pairs=opened.count,
            root=opened.root(),
            committed=None,
            key_fingerprint=opened.key_fingerprint,
        )
    suspect = ModelSeen(name="suspect-mini at http://127.0.0.1:8000/v1", sha256="", tokenizer="text")
    plan = TwinPlan(
        created="2026-02-02T09:00:00+00:00",
        arguments={
            "ask": "answers",
            "level": None,
            "tenants": ["acme", "zenith"],
            "since": None,
            "until": None,
            "sample": 0.8,
            "seed": choice.seed,
            "most": None,
        },
        mode="api",
        suspect=suspect,
        reference=None,
        owner=None,
        url="http://127.0.0.1:8000/v1",
        model="suspect-mini",
        ask="answers",
        measure=settings_of("answers", {"completions": False}, 0, [], None, Readings(folder, "float32")),
        columns=list(measure_columns("answers", False)),
        covariates=list(covariate_columns(False, ())),
        choice=Choice(
            **{name: getattr(choice, name) for name in PairChoice.__struct_fields__},
            offered=chosen.counts.eligible,
            counts=chosen.counts,
        ),
        pairs=[PlannedPair(id=one.pair.id, leaf=one.leaf.hex()) for one in chosen.pairs],
        ledger=seen,
    )
    folder.mkdir(parents=True, exist_ok=True)
    keep_plan(folder, plan)
    pairs = [one.pair for one in chosen.pairs]
    questions = TwinQuestions(
        plan, pairs, measure_of(plan, pairs, None, None, Readings(folder, "float32")), plan.budgets
    )
    rows, said = [], []
    with Ledger(folder / LEDGER_FILE) as replies:
        replies.enter_plan(questions.sha256, questions.canonical)
        for step, pair in enumerate(pairs):
            request, payload = questions.request(step, 0, 1), reply(pair, guilty)
            fields: dict[str, Any] = {"key": request.key, "plan": questions.sha256, "meta": {}}
            (asked,) = replies.append([Draft(kind="asked", tokens=request.most_tokens, payload=request.body, **fields)])
            (entry,) = replies.append([Draft(kind="answered", tokens=30, payload=payload, asked=asked, **fields)])
            rows.append(questions.difference(step, [Replied(0, entry, payload)]))
            said.append(answer_of(payload))
        first, head = replies.standing(questions.sha256).first_query, replies.head
    evidence = evidence_of(plan, pairs, np.array(rows), covariates(pairs))
    digest = FileHash.of(LEDGER_FILE, (folder / LEDGER_FILE).read_bytes()).sha256
    queries = Queries(
        evidence="samples",
        requests=len(pairs),
        answers=len(pairs),
        prompt_tokens=18 * len(pairs),
        completion_tokens=12 * len(pairs),
        ledger_sha256=digest,
        ledger_head=head,
        stopped="plan finished",
    )
    return write_report(
        folder,
        plan,
        pairs,
        evidence,
        said,
        law=None,
        first_query=first,
        queries=queries,
        quotes=True,
        made=Made(code_sha256="ab" * 32),
    )
