"""What a test by twins would take, without asking: requests and tokens of each way to ask, and pairs to the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from detect.records.results import PairsForecast, TwinsCost, TwinsForecast
from detect.student.asking.account import estimate
from detect.student.asking.ledger import LEDGER_FILE, Ledger
from detect.twins.asking import TwinQuestions
from detect.twins.forecast import pairs_needed
from detect.twins.measuring import measure_of
from detect.twins.offered import Offered
from detect.twins.plan import ASKS, Ask, TwinPlan, check_same_test, kept_plan, plan_sha256
from detect.twins.preparing import TwinsJob, made_plan, planned_pairs, select_pairs
from detect.twins.readings import Readings
from watermark.twins.ledger import TwinLedger
from watermark.twins.pair import Pair

WIN_CHANCES = (0.95, 0.75, 0.6)
"""Of suspects that learnt a lot, some, and little from the pairs."""

_SETTINGS: dict[Ask, Offered] = {
    "logprobs": Offered("logprobs", {"form": "chat", "echo_tokens": 1}, ()),
    "parting": Offered("parting", {"form": "continue"}, ()),
    "answers": Offered("answers", {"completions": False}, ()),
}
"""Where the endpoint was not asked yet what it offers; the others cost about the same."""


def dry_run(job: TwinsJob, output: Path) -> TwinsForecast:
    """Say what a test would take.

    Parameters
    ----------
    job
        What would be done.
    output
        Its folder: where it holds a plan, that is what would be gone on with.

    Raises
    ------
    DyetraceError
        As for the test itself.
    """
    job.check()
    kept = kept_plan(output)
    readings = Readings(output, job.dtype, base=job.base)
    # What local models say changes no cost worth mentioning, and takes long to read.
    light = replace(job, reference=None, owner=None, controls=())
    with TwinLedger.open(job.ledger, job.secret) as ledger:
        if kept is not None:
            check_same_test(kept, job.arguments(), output)
            pairs = planned_pairs(kept, ledger)
            plans = [kept]
        else:
            level = job.level_in(ledger)
            selected = select_pairs(job, level, ledger)
            pairs = tuple(stored.pair for stored in selected.pairs)
            asks = ASKS if job.ask == "auto" else (job.ask,)
            if not job.through_endpoint:
                asks = ("logprobs",)
            plans = [
                made_plan(light, level, job.arguments(), ledger, selected, readings, _SETTINGS[ask]) for ask in asks
            ]
    asked = plans if job.through_endpoint else []
    return TwinsForecast(
        pairs=plans[0].choice.counts,
        costs=[_cost(plan, pairs, job, output, known=kept is not None) for plan in asked],
        target_log10=job.target_log10,
        forecasts=[
            PairsForecast(win_chance=chance, pairs=pairs_needed(chance, target_log10=job.target_log10))
            for chance in WIN_CHANCES
        ],
    )


def _cost(plan: TwinPlan, pairs: tuple[Pair, ...], job: TwinsJob, output: Path, *, known: bool) -> TwinsCost:
    readings = Readings(output, job.dtype, base=job.base)
    # Places decide which questions there are; what the owner's model would say decides none.
    owner = job.owner if plan.measure.get("places_sha256") is not None else None
    questions = TwinQuestions(plan, pairs, measure_of(plan, pairs, None, owner, readings), job.budgets)
    path = output / LEDGER_FILE
    ledger = Ledger(path, write=False) if known and path.exists() else None
    try:
        cost = estimate(questions, ledger)
    finally:
        if ledger is not None:
            ledger.close()
    return TwinsCost(
        ask=plan.ask,
        plan_sha256=plan_sha256(plan) if known else None,
        requests=cost.requests,
        cached=cost.cached,
        prompt_tokens=cost.prompt_tokens,
        completion_tokens=cost.completion_tokens,
        most_tokens=cost.most_tokens,
        spent_requests=cost.spent_requests,
        spent_tokens=cost.spent_tokens,
        within_budget=cost.within_budget,
    )
