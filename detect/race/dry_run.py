"""What a race readout through an endpoint would take, without asking: requests, tokens, and evidence by its chances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from detect.race.asking import passed_over
from detect.race.forecast import forecast
from detect.race.plan import load_plan, plan_sha256
from detect.race.planning import PlannedCuts, planned_cuts
from detect.records.results import RaceForecast, RaceReach
from detect.student.asking.account import estimate
from detect.student.asking.budget import Budgets
from detect.student.asking.ledger import LEDGER_FILE, Ledger
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec

USED = (1.0, 0.1)
"""Of the answers, the shares that a suspect may have been trained on, for forecasts."""


def dry_run(
    plan_path: Path,
    read: str,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    output: Path | None = None,
    *,
    budgets: Budgets | None = None,
) -> RaceForecast:
    """Say what `trace_race_endpoint` would take with the same arguments; replies in ``output`` are paid for already.

    Raises
    ------
    DyetraceError
        As for the readout itself.
    """
    plan = load_plan(plan_path)
    planned = planned_cuts(plan, plan_path, read, spec, ring, tokenizer, budgets=budgets)
    path = None if output is None else output / LEDGER_FILE
    ledger = Ledger(path, write=False) if path is not None and path.exists() else None
    try:
        passed = frozenset[int]() if ledger is None else passed_over(plan_sha256(plan), ledger)
        cost = estimate(planned.questions(passed), ledger, name=str(plan_path))
    finally:
        if ledger is not None:
            ledger.close()
    return RaceForecast(
        plan=str(plan_path),
        plan_sha256=cost.plan_sha256,
        ask=plan.ask,
        answers=len({document for document, _ in plan.cuts}),
        cuts=len(plan.cuts),
        requests=cost.requests,
        cached=cost.cached,
        prompt_tokens=cost.prompt_tokens,
        completion_tokens=cost.completion_tokens,
        most_tokens=cost.most_tokens,
        spent_requests=cost.spent_requests,
        spent_tokens=cost.spent_tokens,
        within_budget=cost.within_budget,
        target_log10=plan.target_log10,
        forecasts=_reaches(planned, (cost.prompt_tokens + cost.completion_tokens) / max(1, cost.requests)),
    )


def _reaches(planned: PlannedCuts, tokens: float) -> list[RaceReach]:
    """What it takes until the target, for the shares of `USED`; ``tokens`` are those of a request."""
    questions = planned.questions()
    steps = np.zeros(len(planned.rows), dtype=np.int32)
    for step in range(questions.steps):
        steps[questions.rows(step)] = step
    where, plan = planned.served.where, planned.plan
    documents, positions = (part[planned.rows].astype(np.int32) for part in (where.document, where.position))
    found = []
    for used in USED:
        requests = forecast(
            plan.ask, documents, positions, steps, planned.chances.chances, plan.target_log10, used=used
        )
        spent = None if requests is None else round(requests * tokens)
        found.append(RaceReach(used=used, requests=requests, tokens=spent))
    return found
