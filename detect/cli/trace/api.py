"""`dyetrace trace api`: a suspect behind an endpoint, asked as a plan says."""

from __future__ import annotations

import click

from detect.cli.models import model_folder
from detect.cli.options.trace import TraceEndpoint
from detect.cli.publishing import check_place, goes_on, made_and_published
from detect.cli.reading import tested_ring
from detect.cli.results import print_result
from detect.cli.trace.belonging import ASKING, refuse_of_races
from detect.cli.trace.race import race_api
from detect.cli.trace.shared import check_served, tighter_budgets
from detect.cli.unused import refuse_unused
from detect.cli.working import doing, is_watched, note
from detect.folders.published import TRACE_FORMAT
from detect.race.plan import is_race_plan
from detect.records.made import made_by
from detect.student.asking.account import ClientSettings, estimate
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import given_api_key
from detect.student.asking.ledger import LEDGER_FILE, Ledger
from detect.student.asking.plan import TracePlan, parse_plan, plan_bytes
from detect.student.endpoint import Standing, trace_endpoint
from watermark.spec import load_spec


def api(asked: TraceEndpoint) -> None:
    """Ask, trace and write the report; with --dry-run say what asking would cost."""
    maker = made_by(asked.examiner, asked.case)
    data = plan_bytes(asked.plan_path)
    if is_race_plan(data):
        race_api(asked, data, maker)
        return
    fixed, made = parse_plan(data, f"plan {asked.plan_path}"), load_spec(asked.spec_path)
    refuse_of_races(asked, "and `dyetrace trace plan` made this plan without --owner-model", *ASKING)
    budgets = tighter_budgets(asked, fixed.budgets)
    refuse_unused("fail", asked.dry_run, "--dry-run asks nothing and looks for no mark")
    if asked.dry_run:
        _print_cost(asked, fixed, budgets)
        return
    ring = tested_ring(asked, made, counted=asked.served is not None)
    check_served(asked.served, None)
    arguments = {
        **asked.on_record("plan_path", "served", "reference"),
        "tenants": list(ring.tenants),
        "target_log10_p": fixed.target_log10_p,
        "alpha": fixed.alpha,
        "decoys": fixed.decoys,
        "decoy_seed": fixed.decoy_seed,
    }
    check_place(asked, TRACE_FORMAT, [asked.served, asked.reference])
    ledger = asked.output / LEDGER_FILE
    note(
        "the report will quote no text; evidence.npz will hold, as token ids, contexts of the answers in their order, "
        f"and {ledger}, which is no part of the report, every answer whole"
    )
    goes_on(f"all answers are kept in {ledger}")
    doing("reading the served answers, the reference and what is on record")
    made_and_published(
        asked,
        lambda: trace_endpoint(
            fixed,
            made,
            ring,
            asked.tokenizer or model_folder(None),
            asked.output,
            served=asked.served,
            reference=asked.reference,
            api_key=given_api_key(asked.api_key_source, asked.api_key_header),
            budgets=budgets,
            client=ClientSettings(timeout=asked.timeout, most=asked.concurrency, attempts=asked.attempts),
            arguments=arguments,
            made=maker,
            progress=_LiveEvidence(),
            tell=note,
        ),
    )


def _print_cost(asked: TraceEndpoint, fixed: TracePlan, budgets: Budgets) -> None:
    """What asking a plan would take."""
    path = asked.output / LEDGER_FILE
    ledger = Ledger(path, write=False) if path.exists() else None
    cost = estimate(fixed, ledger, budgets, name=str(asked.plan_path))
    if not asked.as_json:
        fits = "within" if cost.within_budget else "more than"
        click.echo(
            f"{cost.requests:,} requests to send, {cost.cached:,} answered already; about {cost.prompt_tokens:,} "
            f"prompt and {cost.completion_tokens:,} completion tokens, at most {cost.most_tokens:,}: {fits} the budget"
        )
        return
    print_result(cost)


class _LiveEvidence:
    """The evidence so far, the target, and the queries that it will take at this pace."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, standing: Standing) -> None:
        left = standing.prompts_to_target
        pace = "not growing yet" if left is None else f"about {left:,} prompts to go at this pace"
        evidence = f"evidence 10^{standing.log10_evalue:.1f} of 10^{standing.target:g}; {pace}"
        doing("asking the endpoint", standing.asked, standing.prompts, f"prompts, {evidence}")
        reached = standing.log10_evalue >= standing.target
        if not is_watched() and standing.asked and (standing.asked >= 2 * self._told or reached):
            self._told = standing.asked
            note(f"{standing.answers:,} answers to {standing.asked:,} of {standing.prompts:,} prompts: {evidence}")
        if reached or standing.asked == standing.prompts:
            doing("computing p-values under all keys and decoys")
