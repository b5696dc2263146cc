"""The plan of a race readout: made before the suspect is asked, and read again, with what it is about, to ask by it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detect.models.bench import Progress
from detect.models.reading import Positions
from detect.race.asking import RaceQuestions, Show
from detect.race.chances import Chances
from detect.race.cuts import cuts
from detect.race.evidence import F64, I32, RaceEvidence
from detect.race.job import ECHO_ALONE, RaceJob
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
    save_plan,
)
from detect.race.served import ServedText, bench_of, check_readable, served_reading, served_text
from detect.race.weights import base_at, reference_seen
from detect.records.made import now
from detect.student.asking.account import ClientSettings
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.fields import chosen
from watermark.errors import DyetraceError
from watermark.keys import KeyRing
from watermark.models.tokenizer import load_tokenizer
from watermark.spec import WatermarkSpec


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
        Told what is being done, and how far the owner's model is.

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
    if progress is not None:
        progress("asking the endpoint what it offers", 0, 0)
    found = _offered(job, text, shown, tokenizer, key, client)
    if job.reference is not None and found.asking.ask == "echo":
        raise DyetraceError(ECHO_ALONE)
    bench = bench_of(job, spec, tokenizer, progress)
    reference = reference_seen(job, bench, None)
    served = served_reading(job, spec, ring, bench, text)
    whole = found.asking.ask in WHOLE_ANSWERS
    rule = RaceRule(per_answer=None if whole else job.per_answer, spread=None if whole else job.spread)
    rows = _chosen(found.asking, rule, served, shown, served.chances.spread, tokenizer)
    if not len(rows):
        raise DyetraceError(
            f"{job.read} gives no place to ask about: no answer of an account whose key is tested has a fresh context "
            "where the owner's model was undecided; read more answers, or name accounts with --tenant"
        )
    mine = served.chances.take(rows)
    base = None
    if job.reference is not None:
        found_base = bench.predictions(job.reference, served.text, served.where)
        base = base_at(found_base, rows, mine, spec.vocabulary_size)
    chances = encode_chances(PlannedChances(mine, served.chances.spread, base))
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
        reference=reference,
    )
    save_plan(output, plan, chances)
    return plan


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
    base
        The reference's probabilities there, as `RaceEvidence` has them; None where there is none.
    tokenizer, vocabulary
        The spec's tokenizer, and how many tokens it has.
    """

    plan: RacePlan
    job: RaceJob
    served: ServedText
    rows: npt.NDArray[np.int64]
    chances: Chances
    base: F64 | None
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
            None if self.base is None else self.base[rows],
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
    return PlannedCuts(plan, job, served, rows, chances.cuts, chances.base, backend, spec.vocabulary_size)


def _job(plan: RacePlan, read: str, budgets: Budgets, quotes: bool) -> RaceJob:
    """What was asked for when the plan was made."""
    given = plan.arguments
    reference = given.get("reference")
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
        reference=None if reference is None else Path(str(reference)),
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
        left_out=tuple(chosen(given.get("leave_out") or (), given.get("limit_field"))),  # type: ignore[arg-type]
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
    return offered(
        job.suspect,
        job.model or "",
        ask,
        job.via,
        sample,
        backend,
        key=key,
        settings=client,
        left_out=job.left_out,
    )


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
        run=asking.run,
    )
