"""Tracing a suspect through its endpoint: a plan in, answers on record, an e-process that may be watched, a record out.

The way of the data: plan (fixed and hashed beforehand) -> answers (`student.asking`, each in the ledger before it
is used) -> weighted tuples of each prompt's answers (`answers`) -> e-process, after every prompt -> conclusions ->
record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.keyed.held import held_keys
from detect.keyed.owners import tested_keys
from detect.models.forward import Model
from detect.models.seen import model_hash, model_seen
from detect.models.soundness import check_sound, unfit
from detect.records.key_name import KeyName
from detect.records.made import Made
from detect.records.scan import FileHash
from detect.records.trace import (
    ModelSeen,
    PlanSeen,
    Queries,
    Reading,
    ReadoutResult,
    Reference,
    TextsRead,
    TraceRecord,
)
from detect.student.asking.account import REFUSED, Account, ClientSettings, more_to_target
from detect.student.asking.answer_reader import AnswerReader, asked_contexts
from detect.student.asking.asking import ask_all
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.ledger import LEDGER_FILE, Ledger
from detect.student.asking.plan import TracePlan, plan_sha256, prompt_messages, prompt_text
from detect.student.asking.trouble import Tell
from detect.student.texts.marked import LOG10_MARKED, marked_log10
from detect.student.texts.served import ServedContexts, counted_account, open_served, served_file
from detect.student.verdict.conclude import check_basis, compared
from detect.student.verdict.evidence import Evidence, TraceSettings
from detect.student.verdict.hypothesis import EFFECTS, Floats, key_test, log10_mean, log10_sum
from detect.student.verdict.recording import check_traceable, write_report
from detect.student.verdict.share import not_identified
from detect.student.verdict.weights import WeightedTuples, joined
from detect.text.encode import Encoder
from watermark.errors import DyetraceError, UndecidedError
from watermark.files.writing import make_folder
from watermark.keys import KeyRing
from watermark.models.prompts import encode_prompt, leading_tokens
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint
from watermark.prf import U32
from watermark.spec import WatermarkSpec

_CONTEXTS = (
    "first in each text of an answer (its reasoning and calls of tools are texts of their own), in no prompt, first "
    "prompt alone; served sub-keys where they are known"
)
_CONTEXTS_BEFORE = "first in each answer, in no prompt, first prompt alone; served sub-keys where they are known"
"""Of plans from before reasoning was read; they go on with all that is read now, about which no key had a say."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a trace through an endpoint is.

    Attributes
    ----------
    answers, asked, prompts
        Answers used, prompts they came from, and prompts in the plan.
    log10_evalue
        Of the strongest key, the choice among keys paid for.
    target
        Where it stops, log10.
    account
        What was sent.
    """

    answers: int
    asked: int
    prompts: int
    log10_evalue: float
    target: float
    account: Account

    @property
    def prompts_to_target(self) -> int | None:
        """Prompts still to be asked at the pace so far; None where the evidence does not grow."""
        return more_to_target(self.asked, self.log10_evalue, self.target)


def statistic_of(
    served: str | None, reference: Path | None, account: str | None = None
) -> dict[str, str | int | float | bool | list[str] | None]:
    """What a plan fixes of the statistic beside its readout; ``account`` is the one whose served answers count."""
    return {
        **({} if account is None else {"served_account": account}),
        "served_sha256": None if served is None else served_file(served).sha256,
        "reference_sha256": None if reference is None else model_hash(reference),
        "contexts": _CONTEXTS,
        "looks": "at any time; where marked served answers are counted, after prompts 1, 2, 4, 8, ... and the last",
    }


@dataclass(slots=True)
class _Watch:
    """The evidence of each key as it grows, and what of it counts.

    Where weights are fixed or rest on earlier answers, an e-process may be looked at whenever one likes. Where they
    rest on marked served answers they are predictable in the order in which those were made, which is another one: the
    evidence then is the mean of the e-values at looks that were fixed beforehand (`conclude.log10_evalue_of`).
    """

    growths: dict[KeyName, Floats]
    moments: frozenset[int]
    looks: list[int] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)

    @classmethod
    def over(cls, keys: Iterable[KeyName], prompts: int, *, fixed: bool) -> _Watch:
        """Watch the evidence of some keys over so many prompts; ``fixed``: only at moments fixed beforehand."""
        powers = {2**i for i in range(prompts.bit_length())}
        growths = {name: np.zeros(len(EFFECTS)) for name in keys}
        return cls(growths, frozenset(powers | {prompts}) if fixed else frozenset())

    def look(self, answered: int) -> None:
        """Take down what the evidence is after so many answers."""
        self.looks.append(answered)
        self.values.append([log10_mean(growths) for growths in self.growths.values()])

    @property
    def log10_evalue(self) -> float:
        """Of the strongest key, the choice among keys paid for."""
        if not self.moments:
            found = [log10_mean(growths) for growths in self.growths.values()]
        else:
            found = [log10_sum(own) - math.log10(len(self.moments)) for own in zip(*self.values, strict=True)]
        return max(found, default=0.0) - math.log10(len(self.growths))


def check_prompts(plan: TracePlan, spec: WatermarkSpec, ring: KeyRing, tokenizer: Any) -> float:
    """Log10 p of the mark in a plan's prompts.

    Raises
    ------
    DyetraceError
        They carry it: an endpoint that repeats what it is asked would look guilty.
    """
    loaded = load_tokenizer(tokenizer)
    asked = [loaded.encode(prompt_text(planned.prompt), add_special_tokens=False).ids for planned in plan.prompts]
    found = marked_log10(spec, ring, [np.array(ids, dtype=np.uint32) for ids in asked])
    if found <= LOG10_MARKED:
        raise DyetraceError(
            f"the prompts carry the mark of this key themselves (p = 10^{found:.1f}), as prompts do that quote marked "
            "answers: an endpoint that repeats them would look guilty; plan with prompts that quote none"
        )
    return found


def trace_endpoint(
    plan: TracePlan,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    output: Path,
    *,
    served: str | None = None,
    reference: Path | None = None,
    api_key: ApiKey | None = None,
    budgets: Budgets | None = None,
    arguments: dict[str, Any] | None = None,
    made: Made | None = None,
    progress: Callable[[Standing], None] | None = None,
    client: ClientSettings | None = None,
    tell: Tell | None = None,
) -> TraceRecord:
    """Ask a plan's prompts until the target is reached; write report.json, evidence.npz and the ledger to ``output``.

    After a crash the same call goes on where it ended, and asks nothing twice.

    Parameters
    ----------
    plan
        Fixed beforehand (`dyetrace trace plan`).
    spec, ring, tokenizer
        The watermark, the keys to test, and the spec's tokenizer.
    output
        Folder of the report and of the ledger.
    served, reference
        The served answers, or the ledger of them, and the reference model that the plan names by their hashes.
    api_key, budgets
        For the endpoint.
    arguments, made, progress
        To put on record, both; called before the first prompt and after each.
    client, tell
        How to send requests; takes a line when the endpoint gives no answers, from any thread, and when a model is
        loaded.

    Raises
    ------
    DyetraceError
        Plan, spec, key, tokenizer, served answers or reference don't belong together; the endpoint cannot be asked.
    """
    if reference is not None:
        import torch  # noqa: F401  (first, as in `open_weights.trace_weights`)
    _check(plan, spec, ring, tokenizer, served, reference)
    check_basis(spec, "e-value")
    make_folder(output)
    settings = TraceSettings(plan.alpha, "upper", plan.decoys, plan.decoy_seed)
    keys = tested_keys(spec, ring)
    target = -plan.target_log10_p
    prompts_log10 = check_prompts(plan, spec, ring, tokenizer)
    parts: list[WeightedTuples] = []
    steps: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    entries: list[int] = []
    answered = asked = lacking = 0
    reached = False
    asked_as = replace(client or ClientSettings(), skips=True)
    with (
        open_served(served, spec, ring, Encoder.load(tokenizer), _account(plan)) as counted,
        nullcontext(_reader(plan, spec, tokenizer, counted, reference, tell)) as (reader, seen),
        Ledger(output / LEDGER_FILE) as ledger,
        ask_all(plan, ledger, key=api_key, budgets=budgets, settings=asked_as, tell=tell) as asking,
    ):
        marked = counted is not None and counted.marked
        watch = _Watch.over(keys, len(plan.prompts), fixed=marked)
        if progress is not None:
            progress(Standing(0, 0, len(plan.prompts), watch.log10_evalue, target, asking.account))
        for asked, answers in enumerate(asking, 1):
            answered += len(answers)
            lacking += plan.evidence == "logprobs" and sum(not answer.has_logprobs for answer in answers)
            entries += [answer.entry for answer in answers]
            tuples = reader.tuples(plan.prompts[asked - 1].prompt, answers) if answers else None
            if tuples is not None and len(tuples):
                parts.append(tuples)
                steps.append(np.full(len(tuples.contexts), answered, dtype=np.int64))
                for name, key in keys.items():
                    test = key_test(spec, ring.selector, tuples, of_global=name.is_global)
                    watch.growths[name] += test.log_growths(int(test.totals([key])[0]))
            if asked in watch.moments:
                watch.look(answered)
            best = watch.log10_evalue
            if progress is not None:
                progress(Standing(answered, asked, len(plan.prompts), best, target, asking.account))
            if best >= target:
                reached = True
                break
        asking.close()
        account = asking.account
        sha256 = plan_sha256(plan)
        first_query = ledger.asked_at(min(entries)) if entries else None
        head = ledger.head
        own_end = account.stopped == "budget spent" and budgets in (None, Budgets())
        if marked and own_end and not reached and asked not in watch.moments:
            watch.look(answered)  # the plan's own budget was fixed with it, and nothing that was seen ends there
    if not parts:
        more = "ask more prompts or for longer answers by a new plan (--count, --max-tokens), in a folder of its own"
        raise UndecidedError(
            f"the {answered} answers hold no context that counts{_left_out(account)}; "
            f"{more}{', without --served' * marked}"
        )
    evidence = Evidence(joined(parts), np.concatenate(steps), tuple(watch.looks), len(watch.moments))
    return write_report(
        output,
        evidence,
        spec,
        ring,
        "e-value",
        settings,
        mode="api",
        arguments=arguments or {},
        made=made,
        commitment=plan.commitment,
        student=ModelSeen(
            name=f"{plan.model} at {plan.url}",
            sha256="",
            tokenizer="aligned" if plan.evidence == "logprobs" else "text",
        ),
        references=[] if seen is None else [Reference(model=seen, share=1.0)],
        readings=[
            Reading(
                name="the plan's prompts",
                sha256=sha256,
                marked=False,
                documents=answered,
                tokens=account.completion_tokens,
                contexts=evidence.contexts,
                prompts_log10_pvalue=prompts_log10,
            )
        ],
        served=None if counted is None else counted.file,
        served_marked=marked,
        readout=plan.readout,
        objection=_seen_before(account.before_plan),
        acquittal=None if counted is None else counted.not_carried,
        comparisons=_plain(evidence, spec, ring),
        share=not_identified("it takes the suspect's weights and students that were trained on known shares"),
        plan=PlanSeen(
            sha256=sha256,
            created=plan.created,
            first_query=first_query,
            seed=None if plan.choice is None else plan.choice.seed,
            offered=0 if plan.choice is None else plan.choice.offered,
        ),
        queries=Queries(
            evidence=plan.evidence,
            requests=account.requests,
            answers=answered,
            prompt_tokens=account.prompt_tokens,
            completion_tokens=account.completion_tokens,
            ledger_sha256=FileHash.of(LEDGER_FILE, (output / LEDGER_FILE).read_bytes()).sha256,
            ledger_head=head,
            stopped="target reached" if reached else account.stopped or "plan finished",
            before_plan=account.before_plan,
            looks=evidence.planned,
            texts={kind: TextsRead(answers=one.answers, tokens=one.tokens) for kind, one in reader.read.items()},
            without_logprobs=lacking,
            unusable={why: count for why, count in account.unusable.items() if why != REFUSED},
            refused=account.refused,
            sampling=plan.asked_for,
        ),
    )


def _left_out(account: Account) -> str:
    """What was asked for and can't be read, as the end of a sentence."""
    unusable = {why: count for why, count in account.unusable.items() if why != REFUSED}
    told = [f"{count:,} times {reason}" for reason, count in (account.refused | unusable).items()]
    return f" (of no use: {'; '.join(told[:5])})" if told else ""


def _seen_before(answers: int) -> str | None:
    """Why answers that were on record before the plan allow no verdict."""
    if not answers:
        return None
    return (
        f"{answers:,} of the answers were on record before this plan was made, so that its prompts may have been "
        "chosen by them; a plan for this endpoint must offer prompts that it was not asked before"
    )


def _check(
    plan: TracePlan,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    served: str | None,
    reference: Path | None,
) -> None:
    check_traceable(spec, ring, tokenizer)
    if plan.spec_id != spec.spec_id:
        raise DyetraceError(f"the plan is for spec {plan.spec_id}, but this spec is {spec.spec_id}")
    if plan.key_fingerprint != ring.master_fingerprint:
        raise DyetraceError(
            f"the plan is for key {plan.key_fingerprint}, but this key is {ring.master_fingerprint}; give that key"
        )
    if held_keys(spec, ring) != plan.hypotheses:
        raise DyetraceError(f"the plan tests {', '.join(plan.hypotheses)}; name just those accounts with --tenant")
    fixed = plan.statistic
    if fixed.get("contexts") == _CONTEXTS_BEFORE:
        fixed = {**fixed, "contexts": _CONTEXTS}
    if statistic_of(served, reference, counted_account(served, spec, ring, _account(plan))) != fixed:
        raise DyetraceError(
            "the plan was made with other served answers or another reference; give --served and --reference as there"
        )


def _account(plan: TracePlan) -> str | None:
    """The account whose served answers the plan counts; None for all."""
    account = plan.statistic.get("served_account")
    return None if account is None else str(account)


def _reader(
    plan: TracePlan,
    spec: WatermarkSpec,
    tokenizer: Any,
    counted: ServedContexts | None,
    reference: Path | None,
    tell: Tell | None,
) -> tuple[AnswerReader, ModelSeen | None]:
    """What turns answers into weights, and the reference that it uses."""
    loaded = load_tokenizer(tokenizer)
    bare = AnswerReader(
        spec,
        loaded,
        plan.readout,  # type: ignore[arg-type]
        served=None if counted is None else counted.of,
        served_marked=counted is not None and counted.marked,
        asked=asked_contexts(loaded, (planned.prompt for planned in plan.prompts), spec.context_width),
    )
    if reference is None:
        return bare, None
    from watermark.models.folder import load_model

    network, own = load_model(reference, progress=tell)
    if tokenizer_fingerprint(own) != spec.tokenizer:
        raise DyetraceError(f"reference {reference} has another tokenizer; through an endpoint it needs the spec's own")
    model = Model(network, spec.vocabulary_size, leading_tokens(own))
    check_sound(network, str(reference), spec.vocabulary_size)
    if tell is not None and (line := unfit(network, str(reference), own)) is not None:
        tell(line)

    def encode(prompt: Any) -> U32:
        messages = msgspec.to_builtins(prompt_messages(prompt))
        told = encode_prompt(own, prompt_text(prompt), messages, chat=plan.endpoint != "completions")
        return np.array(told, dtype=np.uint32)

    for planned in plan.prompts:  # what the chat template refuses is said before anything is asked
        encode(planned.prompt)
    return replace(bare, reference=model.predict, encode_prompt=encode), model_seen(reference, "same")


def _plain(evidence: Evidence, spec: WatermarkSpec, ring: KeyRing) -> list[ReadoutResult]:
    """The same tuples, each with weight 1, as the closed-model radioactivity test has them (Sander et al. 2024)."""
    tuples = evidence.tuples
    positive = tuples.weights > 0
    plain = WeightedTuples(
        tuples.contexts,
        tuples.context[positive],
        tuples.tokens[positive],
        np.ones(int(positive.sum()), dtype=np.int64),
        tuples.subkeys,
    )
    return [compared("each tuple once", spec, ring, plain, "e-value")]
