"""A race readout through an endpoint: asked by a plan, one cut after the other, and concluded from what was heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detect.race.asking import passed_over
from detect.race.bets import goes_on
from detect.race.conclude import Live
from detect.race.evidence import RaceEvidence
from detect.race.plan import (
    load_plan,
    plan_sha256,
)
from detect.race.planning import planned_cuts
from detect.race.recording import write_report
from detect.records.made import Made
from detect.records.race import RaceRecord
from detect.records.scan import FileHash
from detect.records.trace import PlanSeen, Queries
from detect.student.asking.account import Account, ClientSettings, more_to_target
from detect.student.asking.asking import ask_all
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import ApiKey
from detect.student.asking.ledger import LEDGER_FILE, Ledger
from detect.student.asking.trouble import Tell
from watermark.files.writing import make_folder
from watermark.keys import KeyRing
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
    settings = replace(client or ClientSettings(), in_order=True, tried=True)
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
                if questions.is_left(step):
                    continue
                rows = planned.evidence(questions, step, replies)
                live.observe(rows)
                seen.observe(rows)
                heard.append(rows)
                entries += [reply.entry for reply in replies]
                show()
                if live.log10_evalue >= plan.target_log10:
                    reached = True
                    break
                if not plan.whole_answers and not goes_on(seen.of_answer, live.log_answer):
                    questions.leave(step)
            asking.close()
            account = asking.account
        first_query = ledger.asked_at(min(entries)) if entries else None
        head = ledger.head
    return write_report(
        output,
        RaceEvidence.joined(heard) if heard else planned.nothing(),
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
        reference=plan.reference,
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
            sampling=plan.asked_for,
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
        self.cuts = self.of_answer = 0  # of_answer: requests about the answer at hand
        self._spec, self._ring = spec, ring

    def observe(self, rows: RaceEvidence) -> None:
        """Take the next cuts of one answer in."""
        answer = int(rows.documents[0])
        if answer not in self.answers:
            self.answers.add(answer)
            self.of_answer = 0
            self._own = Live(self._spec, self._ring)
        self.cuts += len(rows)
        self.of_answer += 1
        (self.lit.add if self._own.observe(rows) >= _LIT else self.lit.discard)(answer)


def _seen_before(answers: int) -> str | None:
    """Why replies that were on record before the plan allow no verdict."""
    if not answers:
        return None
    return (
        f"{answers:,} replies of the suspect were on record before this plan was made, so that places and the way of "
        "asking may have been chosen by them; begin in a folder of its own"
    )
