"""A race readout through an endpoint: planned, asked one cut after the other, and concluded from what was heard."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detect.models.bench import Progress as BenchProgress
from detect.models.forward import Progress
from detect.models.reading import Positions
from detect.race.asking import RaceQuestions, Show, passed_over
from detect.race.chances import Chances
from detect.race.conclude import Live
from detect.race.cuts import cuts
from detect.race.evidence import F64, I32, RaceEvidence
from detect.race.job import RaceJob
from detect.race.offered import RaceOffered, Sample, offered
from detect.race.plan import (
    WHOLE_ANSWERS,
    PlannedChances,
    RaceAsking,
    RacePlan,
    RaceRule,
    ServedSeen,
    encode_chances,
    load_chances,
    load_plan,
    plan_sha256,
    save_plan,
)
from detect.race.recording import write_report
from detect.race.served import ServedText, bench_of, check_readable, served_reading, served_text
from detect.records.made import Made, now
from detect.records.race import RaceRecord
from detect.records.scan import FileHash
from detect.records.trace import PlanSeen, Queries
from detect.student.asking.account import Account, ClientSettings, more_to_target
from detect.student.asking.asking import ask_all
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.ledger import LEDGER_FILE, Ledger
from detect.student.asking.trouble import Tell
from watermark.errors import DyetraceError
from watermark.files.writing import make_folder
from watermark.keys import KeyRing
from watermark.models.tokenizer import load_tokenizer
from watermark.spec import WatermarkSpec

_LIT = 1.0  # log10 of an answer's own e-value from which it is said to stand out


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a readout through an endpoint is.

    Attributes
    ----------
    steps, of
        Requests that have been answered, and those in the plan.
    cuts
        Places bet on.
    answers, lit
        Served answers asked about, and how many of them have an e-value of 10 or more for themselves.
    log10_evalue, target
        The evidence, and where it stops, log10.
    account
        What was sent.
    """

    steps: int
    of: int
    cuts: int
    answers: int
    lit: int
    log10_evalue: float
    target: float
    account: Account

    @property
    def steps_to_target(self) -> int | None:
        """Requests still to be made at the pace so far; None where the evidence does not grow."""
        return more_to_target(self.steps, self.log10_evalue, self.target)


def make_race_plan(
    job: RaceJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    output: Path,
    *,
    key: ApiKey | None = None,
    client: ClientSettings | None = None,
    progress: Progress | None = None,
) -> RacePlan:
    """Find out what the endpoint offers, read the owner's chances, choose the cuts, and write the plan.

    Parameters
    ----------
    job
        What to do; its suspect is an address.
    spec, ring, tokenizer
        The watermark, the keys that are tested (which decide whose answers may be shown, and nothing else), and the
        spec's tokenizer.
    output
        The plan's file; the owner's chances are written beside it (`detect.race.plan.chances_path`).
    key, client
        For the endpoint.
    progress
        Told how far the owner's model is.

    Raises
    ------
    DyetraceError
        What is asked for doesn't go together, the answers can't be read, the endpoint can't be asked, or offers
        nothing of what was looked for; a file is already there.
    """
    job.check()
    check_readable(spec, ring, tokenizer, job)
    if not job.through_endpoint or job.model is None:
        raise DyetraceError(f"{job.suspect} is no endpoint, and needs no plan: `dyetrace trace weights`")
    if os.path.lexists(output):
        raise DyetraceError(f"{output} exists already; give another name with -o, or remove it")
    # Whether the file can be read is known at once, and what the endpoint offers before the owner's model reads it.
    text = served_text(job, spec, ring, tokenizer)
    shown = _shown(text, ring)
    found = _offered(job, text, shown, tokenizer, key, client)
    bench = bench_of(job, spec, tokenizer, _counted(progress))
    served = served_reading(job, spec, ring, bench)
    whole = found.asking.ask in WHOLE_ANSWERS
    rule = RaceRule(per_answer=None if whole else job.per_answer, spread=None if whole else job.spread)
    rows = _chosen(found.asking, rule, served, shown, served.chances.spread, tokenizer)
    if not len(rows):
        raise DyetraceError(
            f"{job.read} gives no place to ask about: no answer of an account whose key is tested has a fresh context "
            "where the owner's model was undecided; read more answers, or name accounts with --tenant"
        )
    chances = encode_chances(PlannedChances(served.chances.take(rows), served.chances.spread))
    plan = RacePlan(
        created=now(),
        arguments=job.arguments,
        url=job.suspect,
        model=job.model,
        spec_id=spec.spec_id,
        key_fingerprint=ring.master_fingerprint,
        commitment=job.commitment,
        accounts=sorted(ring.tenants),
        owner=served.owner,
        sampling=served.sampling,
        served=ServedSeen(
            name=served.text.name,
            sha256=served.text.sha256,
            answers=served.answers,
            fresh=len(served),
            unheld=int(np.sum(~served.held)),
            tenant=job.read_tenant,
            taken=job.taken,
            complete=served.reading.complete,
        ),
        rule=rule,
        asking=found.asking,
        probed=list(found.probed),
        cuts=[(int(served.where.document[row]), int(served.where.position[row])) for row in rows],
        chances_sha256=hashlib.sha256(chances).hexdigest(),
        target_log10=job.target_log10,
        alpha=job.alpha,
        decoy_seed=job.decoy_seed,
        decoys=job.decoys,
        budgets=job.budgets,
    )
    save_plan(output, plan, chances)
    return plan


def trace_race_endpoint(
    plan_path: Path,
    read: str,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    output: Path,
    *,
    budgets: Budgets | None = None,
    quotes: bool = True,
    api_key: ApiKey | None = None,
    client: ClientSettings | None = None,
    made: Made | None = None,
    progress: Callable[[Standing], None] | None = None,
    tell: Tell | None = None,
) -> RaceRecord:
    """Ask by the plan until the target is reached; write replies, evidence and report to ``output``.

    After a crash the same call goes on where it ended, and asks nothing twice. The owner's model is not needed.

    Parameters
    ----------
    plan_path
        The plan's file, with the owner's chances beside it.
    read
        The served answers that the plan was made of.
    spec, ring, tokenizer
        As for `make_race_plan`.
    output
        Folder of the report and of the ledger of replies.
    budgets
        Tighter than the plan's own.
    quotes
        Whether the report may show text.
    api_key, client
        For the endpoint.
    made
        Who makes the report.
    progress
        Called before the first request and after each.
    tell
        Takes a line when the endpoint gives no answers, from any thread.

    Raises
    ------
    DyetraceError
        The plan is of other answers, another watermark or other keys; the endpoint can't be asked.
    """
    plan = load_plan(plan_path)
    planned = planned_cuts(plan, plan_path, read, spec, ring, tokenizer, budgets=budgets, quotes=quotes)
    make_folder(output)
    settings = replace(client or ClientSettings(), in_order=True)
    live = Live(spec, ring)
    heard: list[RaceEvidence] = []
    entries: list[int] = []
    seen = _Seen(spec, ring)
    reached = False
    with Ledger(output / LEDGER_FILE) as ledger:
        questions = planned.questions(passed_over(plan_sha256(plan), ledger))
        with ask_all(questions, ledger, key=api_key, settings=settings, tell=tell) as asking:

            def show() -> None:
                if progress is not None:
                    e, target = live.log10_evalue, plan.target_log10
                    answers, lit = len(seen.answers), len(seen.lit)
                    progress(Standing(len(heard), questions.steps, seen.cuts, answers, lit, e, target, asking.account))

            show()
            for step, replies in enumerate(asking):
                rows = planned.evidence(questions, step, replies)
                live.observe(rows)
                seen.observe(rows)
                heard.append(rows)
                entries += [reply.entry for reply in replies]
                show()
                if live.log10_evalue >= plan.target_log10:
                    reached = True
                    break
            asking.close()
            account = asking.account
        first_query = ledger.asked_at(min(entries)) if entries else None
        head = ledger.head
    return write_report(
        output,
        joined(heard) if heard else planned.nothing(),
        spec,
        ring,
        tokenizer,
        job=planned.job,
        mode="api",
        served=planned.served,
        cuts=len(plan.cuts),
        suspect=plan.suspect,
        owner=plan.owner,
        sampling=plan.sampling,
        plan=PlanSeen(sha256=plan_sha256(plan), created=plan.created, first_query=first_query),
        queries=Queries(
            evidence="samples" if plan.ask in ("bias", "greedy") else "logprobs",
            requests=account.requests,
            answers=len(entries),
            prompt_tokens=account.prompt_tokens,
            completion_tokens=account.completion_tokens,
            ledger_sha256=FileHash.of(LEDGER_FILE, (output / LEDGER_FILE).read_bytes()).sha256,
            ledger_head=head,
            stopped="target reached" if reached else account.stopped or "plan finished",
            before_plan=account.before_plan,
        ),
        early=True,
        objection=_seen_before(account.before_plan),
        made=made,
    )


class _Seen:
    """Which answers were asked about, and which of them stand out for themselves."""

    def __init__(self, spec: WatermarkSpec, ring: KeyRing) -> None:
        self.answers: set[int] = set()
        self.lit: set[int] = set()
        self.cuts = 0
        self._spec, self._ring = spec, ring

    def observe(self, rows: RaceEvidence) -> None:
        """Take the next cuts of one answer in."""
        answer = int(rows.documents[0])
        if answer not in self.answers:
            self.answers.add(answer)
            self._own = Live(self._spec, self._ring)
        self.cuts += len(rows)
        (self.lit.add if self._own.observe(rows) >= _LIT else self.lit.discard)(answer)


@dataclass(frozen=True, slots=True, eq=False)
class PlannedCuts:
    """A plan with what it is about, read again.

    Attributes
    ----------
    plan, job
        The plan, and what was asked for when it was made, with this command's budgets.
    served
        The served answers.
    rows
        The fresh places that are its cuts, shape (n,).
    chances
        The owner's at them.
    tokenizer, vocabulary
        The spec's tokenizer, and how many tokens it has.
    """

    plan: RacePlan
    job: RaceJob
    served: ServedText
    rows: npt.NDArray[np.int64]
    chances: Chances
    tokenizer: Any
    vocabulary: int

    def questions(self, passed: frozenset[int] = frozenset()) -> RaceQuestions:
        """What is asked, but for the steps that are passed over."""
        where = self.served.where
        return RaceQuestions(
            self.plan,
            self.served.text,
            Positions(where.document[self.rows], where.position[self.rows], where.fingerprint[self.rows]),
            self.chances,
            self.tokenizer,
            self.vocabulary,
            self.job.budgets,
            passed,
        )

    def evidence(self, questions: RaceQuestions, step: int, replies: Any) -> RaceEvidence:
        """What was heard at a step's cuts."""
        rows = questions.rows(step)
        found = questions.heard(step, replies)
        return self._evidence(rows, found.said, found.shares, step + 1)

    def nothing(self) -> RaceEvidence:
        """The evidence before the first step."""
        return self._evidence(slice(0, 0), np.empty(0, dtype=np.int32), np.empty((0, 0)), 0)

    def _evidence(self, rows: slice, said: I32, shares: F64, step: int) -> RaceEvidence:
        k = self.chances.tokens.shape[1]
        empty = np.empty((0, 0 if self.plan.ask in ("bias", "greedy") else k))
        return self.served.evidence(
            self.plan.ask,
            self.rows[rows],
            self.chances.take(rows),
            said,
            shares if len(shares) else empty,
            np.full(len(said), step, dtype=np.int32),
        )


def planned_cuts(
    plan: RacePlan,
    plan_path: Path,
    read: str,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    *,
    budgets: Budgets | None = None,
    quotes: bool = True,
) -> PlannedCuts:
    """Read again what a plan is about; arguments are those of `trace_race_endpoint`.

    Raises
    ------
    DyetraceError
        The plan is of other answers, another watermark or other keys, or the file beside it isn't there.
    """
    if plan.spec_id != spec.spec_id:
        raise DyetraceError(f"{plan_path} is a plan for spec {plan.spec_id}, but this is spec {spec.spec_id}")
    if plan.key_fingerprint != ring.master_fingerprint:
        raise DyetraceError(
            f"{plan_path} is a plan for the key {plan.key_fingerprint}, but this is the key {ring.master_fingerprint}"
        )
    if plan.accounts != sorted(ring.tenants):
        wanted = ", ".join(plan.accounts) or "none"
        raise DyetraceError(
            f"{plan_path} is a plan for other accounts ({wanted}): name those with --tenant, or make another plan"
        )
    chances = load_chances(plan_path, plan)
    job = _job(plan, read, plan.budgets.tightened(budgets), quotes)
    job.check()
    check_readable(spec, ring, tokenizer, job)
    # What it was held against was looked at when the plan was made.
    served = served_text(replace(job, complete=None), spec, ring, tokenizer)
    if served.text.sha256 != plan.served.sha256:
        raise DyetraceError(f"{plan_path} was made of other answers than those of {read}; give the same file to --read")
    served = replace(served, reading=msgspec.structs.replace(served.reading, complete=plan.served.complete))
    places = list(zip(served.where.document.tolist(), served.where.position.tolist(), strict=True))
    if len(chances.spread) != len(places):
        raise DyetraceError(f"{plan_path} was made of other places than {read} has; make the plan again")
    rows = _chosen(plan.asking, plan.rule, served, _shown(served, ring), chances.spread, tokenizer)
    if [places[row] for row in rows.tolist()] != plan.cuts:
        raise DyetraceError(
            f"{plan_path} has other places than its rule gives, and none must be chosen in another way: make "
            "the plan again"
        )
    backend = load_tokenizer(tokenizer)
    return PlannedCuts(plan, job, served, rows, chances.cuts, backend, spec.vocabulary_size)


def joined(parts: list[RaceEvidence]) -> RaceEvidence:
    """Evidence of cuts that follow one another, as one."""
    return replace(
        parts[0],
        contexts=np.concatenate([part.contexts for part in parts]),
        subkeys=np.concatenate([part.subkeys for part in parts]),
        documents=np.concatenate([part.documents for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        tokens=np.concatenate([part.tokens for part in parts]),
        chances=np.concatenate([part.chances for part in parts]),
        said=np.concatenate([part.said for part in parts]),
        shares=np.concatenate([part.shares for part in parts]),
        steps=np.concatenate([part.steps for part in parts]),
    )


def _job(plan: RacePlan, read: str, budgets: Budgets, quotes: bool) -> RaceJob:
    """What was asked for when the plan was made."""
    given = plan.arguments
    names = ("ask", "via", "temperature", "top_k", "top_p", "min_p", "dtype", "contexts", "per_answer", "spread")
    try:
        known: dict[str, Any] = {name: given[name] for name in names}
        complete = given["complete"]
        owner = Path(str(given["owner_model"]))
    except KeyError as error:
        raise DyetraceError(f"the plan doesn't say its argument {error}; restore it, or make it again") from None
    return RaceJob(
        suspect=plan.url,
        model=plan.model,
        read=read,
        owner_model=owner,
        read_tenant=plan.served.tenant,
        taken=plan.served.taken,
        complete=None if complete is None else Path(str(complete)),
        target_log10=plan.target_log10,
        alpha=plan.alpha,
        decoys=plan.decoys,
        decoy_seed=plan.decoy_seed,
        budgets=budgets,
        quotes=quotes,
        commitment=plan.commitment,
        **known,
    )


def _shown(served: ServedText, ring: KeyRing) -> npt.NDArray[np.bool_]:
    """Which fresh places are in answers that the suspect may see, shape (n,): none of an account that isn't tested."""
    mine = np.array(
        [d.tenant is None or not ring.tenants or d.tenant in ring.tenants for d in served.text.documents],
        dtype=np.bool_,
    )
    return np.asarray(mine[served.where.document])


def _offered(
    job: RaceJob,
    served: ServedText,
    shown: npt.NDArray[np.bool_],
    tokenizer: Any,
    key: ApiKey | None,
    client: ClientSettings | None,
) -> RaceOffered:
    backend = load_tokenizer(tokenizer)
    rows = np.flatnonzero(shown & served.held)
    first = served.document(int(rows[0])) if len(rows) else None
    ask = job.ask
    if ask == "weights":
        raise DyetraceError("an endpoint doesn't show its weights: leave out --ask weights")
    sample = Sample.like(first, backend)
    return offered(job.suspect, job.model or "", ask, job.via, sample, backend, key=key, settings=client)


def _chosen(
    asking: RaceAsking,
    rule: RaceRule,
    served: ServedText,
    shown: npt.NDArray[np.bool_],
    spread: F64,
    tokenizer: Any,
) -> npt.NDArray[np.int64]:
    """Rows of the places to ask about; nothing but the rule has a say."""
    held = served.held & shown
    if rule.per_answer is None or rule.spread is None:
        return np.flatnonzero(held)
    show = Show(asking, load_tokenizer(tokenizer))
    fits = np.array([show.fits(document) for document in served.text.documents], dtype=np.bool_)
    return cuts(
        served.text,
        served.where,
        held & fits[served.where.document],
        spread,
        tokenizer,
        per_answer=rule.per_answer,
        least_spread=rule.spread,
    )


def _counted(progress: Progress | None) -> BenchProgress | None:
    return None if progress is None else lambda what, done, total: progress(done, total) if total else None


def _seen_before(answers: int) -> str | None:
    """Why replies that were on record before the plan allow no verdict."""
    if not answers:
        return None
    return (
        f"{answers:,} replies of the suspect were on record before this plan was made, so that places and the way of "
        "asking may have been chosen by them; begin in a folder of its own"
    )
