"""Testing a suspect by twins through its endpoint: a plan, replies on record, bets that may be watched, a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detect.records.made import Made
from detect.records.scan import FileHash
from detect.records.trace import Queries
from detect.records.twins import TwinRecord
from detect.student.asking.account import Account, ClientSettings, more_to_target
from detect.student.asking.asking import ask_all
from detect.student.asking.credentials import ApiKey
from detect.student.asking.fields import LIMITS, in_words, sampling_in_words
from detect.student.asking.ledger import LEDGER_FILE, Ledger
from detect.student.asking.trouble import Tell
from detect.twins.asking import Replied, TwinQuestions
from detect.twins.conclude import Growth
from detect.twins.lawful import law_of_job
from detect.twins.measures.answers import TEMPERATURE, answer_of
from detect.twins.measures.protocol import F64
from detect.twins.measuring import covariates_of, measure_of
from detect.twins.plan import Ask, TwinPlan
from detect.twins.preparing import TwinsJob, prepare
from detect.twins.readings import Progress, Readings
from detect.twins.recording import evidence_of, write_report
from detect.twins.together import read_line


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a test through an endpoint is.

    Attributes
    ----------
    asked, pairs
        Pairs bet on, and pairs in the plan.
    wins, losses
        How often the first number spoke for the served twin, and against it.
    log10_evalue, target
        The evidence, and where it stops, log10.
    account
        What was sent.
    """

    asked: int
    pairs: int
    wins: int
    losses: int
    log10_evalue: float
    target: float
    account: Account

    @property
    def pairs_to_target(self) -> int | None:
        """Pairs still to be asked about at the pace so far; None where the evidence does not grow."""
        return more_to_target(self.asked, self.log10_evalue, self.target)


def trace_twins_endpoint(
    job: TwinsJob,
    output: Path,
    *,
    api_key: ApiKey | None = None,
    client: ClientSettings | None = None,
    made: Made | None = None,
    progress: Callable[[Standing], None] | None = None,
    reading: Progress | None = None,
    tell: Tell | None = None,
) -> TwinRecord:
    """Ask about the planned pairs until the target is reached; write plan, replies, evidence and report to ``output``.

    About pairs that were drawn later all are asked: what their law test bounds is the bias of all together. After a
    crash the same call goes on where it ended, and asks nothing twice.

    Parameters
    ----------
    job
        What to do; its suspect is an address.
    output
        Folder of the report, the plan (plan.json) and the ledger of replies.
    api_key, client
        For the endpoint.
    made
        Who makes the report.
    progress, reading
        Called before the first pair and after each; told how far local models are.
    tell
        Takes a line when the endpoint gives no answers, from any thread.

    Raises
    ------
    DyetraceError
        What is asked for doesn't go together; the folder holds another test; the endpoint can't be asked.
    """
    readings = Readings(output, job.dtype, reading, job.base)
    prepared = prepare(job, output, readings, key=api_key, client=client)
    plan, pairs = prepared.plan, prepared.pairs
    if tell is not None and plan.left_out:
        tell(f"the endpoint is asked for {asked_for(plan)}: {in_words(plan.left_out)}")
    other = None if job.beside is None else read_line(job.beside, plan.suspect)
    measure = measure_of(plan, pairs, job.reference, job.owner, readings)
    covariates = covariates_of(pairs, job.owner, job.controls, readings)
    law = law_of_job(job, plan.choice.level, pairs, readings)
    questions = TwinQuestions(plan, pairs, measure, job.budgets)
    growth = Growth(len(plan.columns), len(plan.covariates), law)
    rows: list[F64] = []
    said: list[str | None] = []
    entries: list[int] = []
    wins = losses = 0
    reached = False
    with (
        Ledger(output / LEDGER_FILE) as ledger,
        ask_all(questions, ledger, key=api_key, settings=client, tell=tell) as asking,
    ):

        def show() -> None:
            if progress is not None:
                e = growth.log10_evalue
                progress(Standing(len(rows), len(pairs), wins, losses, e, plan.target_log10, asking.account))

        show()
        vetoed = law is not None and law.veto is not None
        for step, replies in enumerate([] if vetoed else asking):
            x = questions.difference(step, replies)
            growth.observe(x, covariates[step], pairs[step].sign)
            rows.append(x)
            said.append(_words(plan.ask, replies))
            entries += [reply.entry for reply in replies]
            signed = float(x[0]) * pairs[step].sign
            wins, losses = wins + (signed > 0), losses + (signed < 0)
            show()
            # A law test bounds the bias of all its pairs together, and the first ones may be of another law.
            if law is None and growth.log10_evalue >= plan.target_log10:
                reached = True
                break
        asking.close()
        account = asking.account
        first_query = ledger.asked_at(min(entries)) if entries else None
        head = ledger.head
    if law is not None and 0 < len(rows) < len(pairs):  # a budget ended it
        law = law_of_job(job, plan.choice.level, pairs[: len(rows)], readings)
    evidence = evidence_of(plan, pairs, np.array(rows).reshape(len(rows), len(plan.columns)), covariates)
    return write_report(
        output,
        plan,
        pairs,
        evidence,
        said,
        law=law,
        first_query=first_query,
        queries=Queries(
            evidence="logprobs" if plan.ask == "logprobs" else "samples",
            requests=account.requests,
            answers=len(entries),
            prompt_tokens=account.prompt_tokens,
            completion_tokens=account.completion_tokens,
            ledger_sha256=FileHash.of(LEDGER_FILE, (output / LEDGER_FILE).read_bytes()).sha256,
            ledger_head=head,
            stopped="target reached" if reached else account.stopped or "plan finished",
            before_plan=account.before_plan,
            sampling=asked_for(plan),
        ),
        quotes=job.quotes,
        beside=other,
        objection=_seen_before(account.before_plan),
        made=made,
    )


def asked_for(plan: TwinPlan) -> str:
    """Which sampling a plan asks an endpoint for, for people; free answers beside the first are drawn warmer."""
    first = sampling_in_words({"temperature": 0}, plan.left_out)
    if plan.measure.get("samples") and "temperature" not in plan.left_out:
        first += f", and temperature {TEMPERATURE:g} for further answers"
    unlimited = set(LIMITS) <= set(plan.left_out)
    return first + (f", {sampling_in_words({'max_tokens': None})}" if unlimited else "")


def _words(ask: Ask, replies: Sequence[Replied]) -> str | None:
    """What the suspect said, where it was let speak freely."""
    if ask != "answers":
        return None
    first = [reply.payload for reply in replies if reply.question == 0]
    return answer_of(first[0]) if first else None


def _seen_before(answers: int) -> str | None:
    """Why replies that were on record before the plan allow no verdict."""
    if not answers:
        return None
    return (
        f"{answers:,} replies of the suspect were on record before this plan was made, so that pairs, measure and "
        "sample may have been chosen by them; begin in a folder of its own"
    )
