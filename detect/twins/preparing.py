"""From what a command asks for to a plan on the disk and the pairs it names: the same at the start and after a stop."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from detect.laws.level import DEFAULT_ALPHA, check_alpha
from detect.records.made import now
from detect.records.trace import ModelSeen
from detect.records.twins import LedgerSeen
from detect.student.asking.account import ClientSettings
from detect.student.asking.address import check_url
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.fields import as_options
from detect.twins.measuring import covariate_columns, measure_columns, settings_of
from detect.twins.offered import Offered, offered
from detect.twins.plan import Ask, Choice, PlannedPair, TwinPlan, check_same_test, check_target, keep_plan, kept_plan
from detect.twins.readings import Readings, check_other
from detect.twins.selection import SEED, Level, PairChoice, Selected, select
from watermark.errors import DyetraceError, EvidenceError
from watermark.files.writing import make_folder
from watermark.keys import SecretKey
from watermark.twins.commitment import TwinCommitment, check_committed
from watermark.twins.ledger import Stored, TwinLedger
from watermark.twins.pair import Pair, coin_key, coin_proof, tossed


@dataclass(frozen=True, kw_only=True)
class TwinsJob:
    """What a test by twins is asked to do.

    Attributes
    ----------
    suspect
        Its folder, or the base address of its endpoint.
    ledger, secret
        The private ledger, and the owner's twin key.
    model
        The suspect's name at its endpoint; null for a folder.
    reference
        A model to compare log-probabilities with.
    owner
        The model that made the answers: it tells what of a difference has nothing to do with the suspect, and which
        places to ask about.
    controls
        Unrelated models, for the law test of regenerated twins.
    base
        The base model of adapters among them; None takes the folders that they name themselves.
    unserved
        A ledger of regenerated twins of answers that nobody can have learnt from, for the same test.
    ask
        What is read of the suspect.
    samples
        Free answers to each prompt beside the greedy one, where those are asked for.
    level
        Of the pairs; null takes withheld ones where there are any.
    accounts, since, until, sample, seed, most
        As of `PairChoice`.
    target_log10, alpha, budgets
        As of `TwinPlan`.
    dtype
        Number format of local models.
    commitment
        What was published of the ledger; null where nothing was.
    quotes
        Whether pairs may be shown in the report.
    beside
        Report of a trace of the watermark in the same suspect, a second line of evidence.
    left_out
        Settings that no request to an endpoint is to have (`detect.student.asking.fields`).
    """

    suspect: str
    ledger: Path
    secret: SecretKey
    model: str | None = None
    reference: Path | None = None
    owner: Path | None = None
    controls: tuple[Path, ...] = ()
    base: Path | None = None
    unserved: Path | None = None
    ask: Ask | Literal["auto"] = "auto"
    samples: int = 0
    level: Level | None = None
    accounts: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    sample: float = 1.0
    seed: str = SEED
    most: int | None = None
    target_log10: float = 10.0
    alpha: float = DEFAULT_ALPHA
    budgets: Budgets = field(default_factory=Budgets)
    dtype: str = "bfloat16"
    commitment: TwinCommitment | None = None
    quotes: bool = True
    beside: Path | None = None
    left_out: tuple[str, ...] = ()

    @property
    def through_endpoint(self) -> bool:
        """Whether the suspect is an address."""
        return is_address(self.suspect)

    def check(self) -> None:
        """Raise DyetraceError where things were asked for that don't go together."""
        check_alpha(self.alpha)
        check_target(self.target_log10)
        if self.through_endpoint:
            check_url(self.suspect)
            if not (self.model or "").strip():
                raise DyetraceError("an endpoint needs the suspect's name there: give --model")
        elif self.model is not None:
            raise DyetraceError("--model names a suspect at its endpoint, and this one is a folder: leave it out")
        elif self.ask not in ("auto", "logprobs"):
            raise DyetraceError(
                f"of a model folder log-probabilities are read, which tell most: leave out --ask {self.ask}, or serve "
                "the model and give its address"
            )

    def level_in(self, ledger: TwinLedger) -> Level:
        """The level that is asked for, or that a ledger has."""
        return self.level or ("withheld" if ledger.levels.get("withheld") else "regenerated")

    def arguments(self) -> dict[str, str | int | float | bool | list[str] | None]:
        """What decides about the result, by the options' names."""
        return {
            "suspect": self.suspect,
            "model": self.model,
            "reference": None if self.reference is None else str(self.reference),
            "owner": None if self.owner is None else str(self.owner),
            "controls": [str(folder) for folder in self.controls],
            **({} if self.base is None else {"base": str(self.base)}),
            **({} if self.unserved is None else {"unserved": str(self.unserved)}),
            "ask": self.ask,
            "samples": self.samples,
            "level": self.level,
            "tenants": sorted(set(self.accounts)),
            "since": self.since,
            "until": self.until,
            "sample": self.sample,
            "seed": self.seed,
            "most": self.most,
            "target": self.target_log10,
            "alpha": self.alpha,
            "dtype": self.dtype,
            **as_options(self.left_out),
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan on the disk, and what it is about.

    Attributes
    ----------
    plan
        The plan.
    pairs
        Its pairs, in the order of the bets.
    readings
        Reads pairs with local models.
    """

    plan: TwinPlan
    pairs: tuple[Pair, ...]
    readings: Readings


def is_address(suspect: str) -> bool:
    """Whether a suspect is named by an address and not by a folder."""
    return suspect.startswith(("http://", "https://"))


def prepare(
    job: TwinsJob,
    output: Path,
    readings: Readings,
    *,
    key: ApiKey | None = None,
    client: ClientSettings | None = None,
) -> Prepared:
    """Make the plan and write it, or go on with the one that is there.

    Raises
    ------
    DyetraceError
        What is asked for doesn't go together, the ledger holds no such pair, or the folder's plan is of another test.
    EvidenceError
        The ledger is not what it was when the plan was made.
    """
    job.check()
    arguments = job.arguments()
    plan = kept_plan(output)
    with TwinLedger.open(job.ledger, job.secret) as ledger:
        if plan is not None:
            check_same_test(plan, arguments, output)
            pairs = planned_pairs(plan, ledger)
        else:
            level = job.level_in(ledger)
            selected = select_pairs(job, level, ledger)
            pairs = tuple(stored.pair for stored in selected.pairs)
            found = _access(job, level, pairs, key, client)
            plan = made_plan(job, level, arguments, ledger, selected, readings, found)
            make_folder(output)
            keep_plan(output, plan)
    _check_models(plan, job, readings)
    check_coins(pairs, job.secret)
    return Prepared(plan, pairs, readings)


def choice_of(job: TwinsJob, level: Level) -> PairChoice:
    """What decides which pairs are taken."""
    return PairChoice(
        level=level,
        accounts=sorted(set(job.accounts)),
        since=job.since,
        until=job.until,
        sample=job.sample,
        seed=job.seed,
        most=job.most,
    )


def select_pairs(job: TwinsJob, level: Level, ledger: TwinLedger) -> Selected:
    """The pairs that are asked for.

    Raises
    ------
    DyetraceError
        There is none, or some were appended after what was published.
    """
    selected = select(ledger.stored(), choice_of(job, level), ledger.erased)
    counts = selected.counts
    if not selected.pairs:
        if not ledger.count:
            raise DyetraceError(f"ledger {job.ledger} holds no pairs yet; there is nothing to ask about")
        left = ""
        if counts.sampled:
            left = f": of {counts.sampled:,} {counts.tied:,} are equal twins and {counts.follow_ups:,} quote an answer"
        raise DyetraceError(
            f"ledger {job.ledger} holds {ledger.count:,} pairs ({counts.erased:,} erased), and none that is asked for "
            f"can be used{left}; check --tenant, --since, --until, --sample and --level"
        )
    if job.commitment is not None:
        check_committed(ledger, job.commitment)
        last = max(stored.number for stored in selected.pairs)
        if last > job.commitment.pairs:
            raise DyetraceError(
                f"pair {last:,} of the ledger was appended after its first {job.commitment.pairs:,} were committed to; "
                "give --until, or the commitment that covers it"
            )
    return selected


def planned_pairs(plan: TwinPlan, ledger: TwinLedger) -> tuple[Pair, ...]:
    """The pairs that a plan names, as the ledger has them still.

    Raises
    ------
    EvidenceError
        One is missing, was erased, or is another one; or the ledger's key is another.
    """
    if ledger.key_fingerprint != plan.ledger.key_fingerprint:
        raise EvidenceError(
            f"the plan is of a ledger of twin key {plan.ledger.key_fingerprint}, but ledger {ledger.path} is of "
            f"{ledger.key_fingerprint}; give the ledger of the plan"
        )
    if ledger.count < plan.ledger.pairs or ledger.root(plan.ledger.pairs) != plan.ledger.root:
        raise EvidenceError(
            f"ledger {ledger.path} is not the one that the plan was made of: its first {plan.ledger.pairs:,} pairs "
            "are others; restore it from a backup"
        )
    held: Mapping[str, Stored] = {stored.pair.id: stored for stored in ledger.stored(pair.id for pair in plan.pairs)}
    for planned in plan.pairs:
        stored = held.get(planned.id)
        if stored is None:
            raise EvidenceError(
                f"pair {planned.id} of the plan was erased from ledger {ledger.path} since; make a new plan in another "
                "folder"
            )
        if stored.leaf.hex() != planned.leaf:
            raise EvidenceError(f"pair {planned.id} of ledger {ledger.path} is not the one that the plan names")
    return tuple(held[planned.id].pair for planned in plan.pairs)


def check_coins(pairs: Sequence[Pair], secret: SecretKey) -> None:
    """Raise EvidenceError unless each withheld pair was served as its coin says."""
    coins = coin_key(secret)
    for pair in pairs:
        if pair.level == "withheld":
            proof = coin_proof(coins, pair.id)
            if not hmac.compare_digest(proof, pair.proof or "") or tossed(proof) != pair.served:
                raise EvidenceError(
                    f"pair {pair.id} was not served as the coin under this twin key says; the ledger was not written "
                    "by dyetrace, or with another key"
                )


def made_plan(
    job: TwinsJob,
    level: Level,
    arguments: dict[str, Any],
    ledger: TwinLedger,
    selected: Selected,
    readings: Readings,
    found: Offered,
) -> TwinPlan:
    """The plan of some pairs and of what an endpoint offers."""
    pairs = [stored.pair for stored in selected.pairs]
    suspect = _suspect(job, readings)
    reference = _reference(job, found.ask, suspect, readings)
    owner = None if job.owner is None else readings.seen(job.owner)
    committed = None
    if job.commitment is not None:
        committed = f"{job.commitment.root} of {job.commitment.pairs:,} pairs, {job.commitment.created}"
    return TwinPlan(
        created=now(),
        arguments=arguments,
        mode="api" if job.through_endpoint else "weights",
        suspect=suspect,
        reference=reference,
        owner=owner,
        url=job.suspect if job.through_endpoint else None,
        model=job.model,
        ask=found.ask,
        measure=settings_of(found.ask, found.measure, job.samples, pairs, job.owner, readings),
        probed=list(found.probed),
        left_out=list(found.left_out),
        columns=list(measure_columns(found.ask, reference is not None)),
        covariates=list(covariate_columns(owner is not None, job.controls if level == "regenerated" else ())),
        choice=Choice(
            **msgspec.structs.asdict(choice_of(job, level)),
            offered=selected.counts.eligible,
            counts=selected.counts,
        ),
        pairs=[PlannedPair(id=one.pair.id, leaf=one.leaf.hex()) for one in selected.pairs],
        ledger=LedgerSeen(
            name=job.ledger.name,
            head=ledger.head,
            pairs=ledger.count,
            root=ledger.root(),
            committed=committed,
            key_fingerprint=ledger.key_fingerprint,
        ),
        target_log10=job.target_log10,
        alpha=job.alpha,
        budgets=job.budgets,
    )


def _access(
    job: TwinsJob, level: Level, pairs: Sequence[Pair], key: ApiKey | None, client: ClientSettings | None
) -> Offered:
    """What is read of the suspect, and how."""
    if level == "regenerated" and (job.owner is None or not job.controls):
        raise DyetraceError(
            "twins that were drawn later need a law test first: give the model that made them (--owner) and at least "
            "one unrelated model (--control)"
        )
    if level == "withheld" and (job.controls or job.unserved is not None):
        raise DyetraceError("withheld twins need no law test: leave out --control and --unserved")
    if not job.through_endpoint:
        return Offered("logprobs", {}, ())
    wanted = job.ask
    if level == "regenerated":
        if wanted not in ("auto", "logprobs"):
            raise DyetraceError(
                f"twins that were drawn later are tested by log-probabilities alone, which their law test looks at: "
                f"leave out --ask {wanted}"
            )
        wanted = "logprobs"
    plain = isinstance(pairs[0].prompt, str)
    return offered(
        job.suspect,
        job.model or "",
        wanted,
        plain=plain,
        samples=job.samples,
        key=key,
        settings=client,
        left_out=job.left_out,
    )


def _suspect(job: TwinsJob, readings: Readings) -> ModelSeen:
    if job.through_endpoint:
        return ModelSeen(name=f"{job.model} at {job.suspect}", sha256="", tokenizer="text")
    return readings.seen(Path(job.suspect))


def _reference(job: TwinsJob, ask: Ask, suspect: ModelSeen, readings: Readings) -> ModelSeen | None:
    if job.reference is None:
        return None
    if ask != "logprobs":
        raise DyetraceError(
            f"a reference serves log-probabilities alone, and of this endpoint {ask} are asked: leave out --reference"
        )
    found = readings.seen(job.reference)
    check_other(suspect, found)
    return found


def _check_models(plan: TwinPlan, job: TwinsJob, readings: Readings) -> None:
    """Raise DyetraceError where a folder holds another model than when the plan was made."""
    for planned, folder in (
        (plan.suspect if plan.mode == "weights" else None, Path(job.suspect)),
        (plan.reference, job.reference),
        (plan.owner, job.owner),
    ):
        if planned is not None and folder is not None and readings.seen(folder).sha256 != planned.sha256:
            raise DyetraceError(
                f"{folder} holds another model than when the plan was made; restore it, or begin in another folder"
            )
