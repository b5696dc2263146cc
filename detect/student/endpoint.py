"""Tracing a suspect through its endpoint: a plan in, answers on record, an e-process that may be watched, a record out.

The way of the data: plan (fixed and hashed beforehand) -> answers (`detect.student.api`, each in the ledger before it
is used) -> weighted tuples of each prompt's answers (`answers`) -> e-process, after every prompt -> conclusions ->
record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.corpus.record import FileHash
from detect.document import GLOBAL, tested_keys
from detect.encode import Encoder
from detect.student.answers import AnswerReader
from detect.student.api.account import Account
from detect.student.api.asking import ask_all
from detect.student.api.credentials import ApiKey
from detect.student.api.ledger import Ledger
from detect.student.api.plan import Budgets, TracePlan, plan_sha256, prompt_messages, prompt_text
from detect.student.conclude import check_basis, compared
from detect.student.evidence import Evidence, TraceSettings
from detect.student.forward import Model, model_hash
from detect.student.hypothesis import Floats, key_test, log10_mean
from detect.student.record import ModelSeen, PlanSeen, Queries, Reading, ReadoutResult, Reference, TraceRecord
from detect.student.recording import check_traceable, write_report
from detect.student.served import ServedOf, counted_account, open_served, served_file
from detect.student.share import not_identified
from detect.student.weights import WeightedTuples, joined
from watermark.errors import DyetraceError
from watermark.files import make_folder
from watermark.keys import KeyRing
from watermark.prf import U32
from watermark.spec import WatermarkSpec
from watermark.tokenizer import load_tokenizer, tokenizer_fingerprint

LEDGER_FILE = "ledger.sqlite"


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
        if self.log10_evalue <= 0 or not self.asked:
            return None
        return max(0, math.ceil(self.asked * (self.target / self.log10_evalue - 1)))


def statistic_of(
    served: str | None, reference: Path | None, account: str | None = None
) -> dict[str, str | int | float | bool | list[str] | None]:
    """What a plan fixes of the statistic beside its readout; ``account`` is the one whose served answers count."""
    return {
        **({} if account is None else {"served_account": account}),
        "served_sha256": None if served is None else served_file(served).sha256,
        "reference_sha256": None if reference is None else model_hash(reference),
        "contexts": "first in each answer, not in the prompt, first prompt alone; served sub-keys where they are known",
    }


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
    progress: Callable[[Standing], None] | None = None,
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
    arguments, progress
        To put on record; called after every prompt.

    Raises
    ------
    DyetraceError
        Plan, spec, key, tokenizer, served answers or reference don't belong together; the endpoint cannot be asked.
    """
    _check(plan, spec, ring, tokenizer, served, reference)
    check_basis(spec, "e-value")
    make_folder(output)
    settings = TraceSettings(plan.alpha, "upper", plan.decoys, plan.decoy_seed)
    keys = tested_keys(spec, ring)
    target = -plan.target_log10_p
    growths: dict[str, Floats] = {}
    parts: list[WeightedTuples] = []
    steps: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    answered = 0
    reached = False
    with (
        _reader(plan, spec, ring, tokenizer, served, reference) as (reader, seen, counted),
        Ledger(output / LEDGER_FILE) as ledger,
        ask_all(plan, ledger, key=api_key, budgets=budgets) as asking,
    ):
        for number, answers in enumerate(asking):
            answered += len(answers)
            tuples = reader.tuples(plan.prompts[number].prompt, answers) if answers else None
            if tuples is not None and len(tuples):
                parts.append(tuples)
                steps.append(np.full(len(tuples.contexts), answered, dtype=np.int64))
                for name, key in keys.items():
                    test = key_test(spec, ring.selector, tuples, of_global=name == GLOBAL)
                    grown = test.log_growths(int(test.totals([key])[0]))
                    growths[name] = growths.get(name, 0.0) + grown
            best = max((log10_mean(g) for g in growths.values()), default=0.0) - math.log10(len(keys))
            if progress is not None:
                progress(Standing(answered, number + 1, len(plan.prompts), best, target, asking.account))
            if best >= target:
                reached = True
                break
        asking.close()
        account = asking.account
        sha256 = plan_sha256(plan)
        standing, head = ledger.standing(sha256), ledger.head
    if not parts:
        raise DyetraceError(
            f"the {answered} answers hold no context that counts; ask more prompts, or leave --served out"
        )
    evidence = Evidence(joined(parts), np.concatenate(steps))
    return write_report(
        output,
        evidence,
        spec,
        ring,
        "e-value",
        settings,
        mode="api",
        arguments=arguments or {},
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
            )
        ],
        served=counted,
        readout=plan.readout,
        comparisons=_plain(evidence, spec, ring),
        share=not_identified("it takes the suspect's weights and students that were trained on known shares"),
        plan=PlanSeen(sha256=sha256, created=plan.created, first_query=standing.first_query),
        queries=Queries(
            evidence=plan.evidence,
            requests=account.requests,
            answers=answered,
            prompt_tokens=account.prompt_tokens,
            completion_tokens=account.completion_tokens,
            ledger_sha256=FileHash.of(LEDGER_FILE, (output / LEDGER_FILE).read_bytes()).sha256,
            ledger_head=head,
            stopped="target reached" if reached else account.stopped or "plan finished",
        ),
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
    if list(tested_keys(spec, ring)) != plan.hypotheses:
        raise DyetraceError(f"the plan tests {', '.join(plan.hypotheses)}; name just those accounts with --tenant")
    if statistic_of(served, reference, counted_account(served, spec, ring, _account(plan))) != plan.statistic:
        raise DyetraceError(
            "the plan was made with other served answers or another reference; give --served and --reference as there"
        )


def _account(plan: TracePlan) -> str | None:
    """The account whose served answers the plan counts; None for all."""
    account = plan.statistic.get("served_account")
    return None if account is None else str(account)


@contextmanager
def _reader(
    plan: TracePlan, spec: WatermarkSpec, ring: KeyRing, tokenizer: Any, served: str | None, reference: Path | None
) -> Iterator[tuple[AnswerReader, ModelSeen | None, FileHash | None]]:
    """What turns answers into weights, the reference that it uses, and the file of served counts that it looks into."""
    with open_served(served, spec, ring, Encoder.load(tokenizer), _account(plan)) as counted:
        file, counts = (None, None) if counted is None else (counted.file, counted.of)
        yield *_loaded_reader(plan, spec, tokenizer, counts, reference), file


def _loaded_reader(
    plan: TracePlan, spec: WatermarkSpec, tokenizer: Any, counts: ServedOf | None, reference: Path | None
) -> tuple[AnswerReader, ModelSeen | None]:
    loaded = load_tokenizer(tokenizer)
    if reference is None:
        return AnswerReader(spec, loaded, plan.readout, served=counts), None  # type: ignore[arg-type]
    from watermark.demo_model import load_model

    network, own = load_model(reference)
    if tokenizer_fingerprint(own) != spec.tokenizer:
        raise DyetraceError(f"reference {reference} has another tokenizer; through an endpoint it needs the spec's own")
    model = Model(network, spec.vocabulary_size)

    def encode(prompt: Any) -> U32:
        if plan.endpoint == "completions" or not own.chat_template:
            told = prompt_text(prompt)
        else:
            messages = msgspec.to_builtins(prompt_messages(prompt))
            told = own.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return np.array(loaded.encode(told, add_special_tokens=False).ids, dtype=np.uint32)

    seen = ModelSeen(name=str(reference), sha256=str(plan.statistic["reference_sha256"]), tokenizer="same")
    reader = AnswerReader(spec, loaded, plan.readout, model.predict, encode, counts)  # type: ignore[arg-type]
    return reader, seen


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
    return [compared("each tuple once", spec, ring, plain)]
