"""`dyetrace trace twins`: whether a suspect prefers the answers that were served to their withheld twins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from detect.cli.options.trace import TraceTwins
from detect.cli.publishing import check_place, goes_on, made_and_published
from detect.cli.results import print_result
from detect.cli.trace.shared import check_models
from detect.cli.unused import refuse_unused
from detect.cli.working import doing, is_watched, note
from detect.folders.published import TWINS_FORMAT
from detect.records.made import made_by
from detect.student.asking.account import ClientSettings
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import given_api_key
from detect.student.asking.fields import chosen
from detect.student.asking.ledger import LEDGER_FILE
from detect.twins.dry_run import dry_run
from detect.twins.endpoint import Standing, trace_twins_endpoint
from detect.twins.preparing import TwinsJob
from detect.twins.weights import trace_twins_weights
from watermark.keys import load_master
from watermark.twins.commitment import load_twin_commitment

_OF_ENDPOINTS = (
    *("model", "samples", "leave_out", "limit_field"),
    *("api_key_source", "api_key_header", "timeout", "attempts", "concurrency", "max_requests"),
)


def twins(asked: TraceTwins) -> None:
    """Plan, ask or read, bet and write the report; with --dry-run say what it would take."""
    maker = made_by(asked.examiner, asked.case)
    job = _job(asked)
    _refuse_unused(asked, job)
    job.check()
    for name in ("fail", "beside"):
        refuse_unused(name, asked.dry_run, "--dry-run asks nothing and finds nothing")
    if asked.dry_run:
        _print_cost(asked, job)
        return
    check_models(_folders(job), job.base)
    check_place(
        asked,
        TWINS_FORMAT,
        [asked.ledger, asked.unserved, asked.commitment_path, asked.beside, job.base, *_folders(job)],
    )
    ledger = asked.output / LEDGER_FILE
    if job.through_endpoint:
        note(f"{ledger}, which is no part of the report, will hold every reply whole")
    if not asked.no_quotes:
        note("the report will show pairs, withheld answers among them: --no-quotes leaves them out")
    goes_on(f"what was asked and read is kept in {asked.output}")
    doing("reading the ledger of pairs and making the plan")
    made_and_published(
        asked,
        lambda: (
            trace_twins_endpoint(
                job,
                asked.output,
                api_key=given_api_key(asked.api_key_source, asked.api_key_header),
                client=_client(asked),
                made=maker,
                progress=_LiveEvidence(),
                reading=_show_reading,
                tell=note,
            )
            if job.through_endpoint
            else trace_twins_weights(job, asked.output, made=maker, progress=_show_reading)
        ),
    )


def _job(asked: TraceTwins) -> TwinsJob:
    return TwinsJob(
        suspect=asked.suspect,
        ledger=asked.ledger,
        secret=load_master(asked.twin_key),
        model=asked.model,
        reference=asked.reference,
        owner=asked.owner,
        controls=asked.controls,
        base=asked.base,
        unserved=asked.unserved,
        ask=asked.ask,
        samples=asked.samples,
        level=asked.level,
        accounts=asked.tenants,
        since=asked.since,
        until=asked.until,
        sample=asked.sample,
        seed=asked.seed,
        most=asked.most,
        target_log10=asked.target_log10,
        alpha=asked.alpha,
        budgets=Budgets(requests=asked.max_requests, tokens=asked.max_total_tokens),
        dtype=asked.dtype,
        commitment=None if asked.commitment_path is None else load_twin_commitment(asked.commitment_path),
        quotes=not asked.no_quotes,
        beside=asked.beside,
        left_out=tuple(chosen(asked.leave_out, asked.limit_field)),
    )


def _refuse_unused(asked: TraceTwins, job: TwinsJob) -> None:
    for name in (*_OF_ENDPOINTS, "max_total_tokens"):
        refuse_unused(name, not job.through_endpoint, "the suspect's weights are at hand, and no endpoint is asked")
    refuse_unused("seed", asked.sample == 1.0, "--sample 1 takes all pairs")
    refuse_unused("limit_field", "max_tokens" in asked.leave_out, "--leave-out max_tokens sends no limit")
    refuse_unused("samples", asked.ask in ("logprobs", "parting"), f"--ask {asked.ask} asks for no free answers")
    models = job.reference, job.owner, *job.controls
    refuse_unused("dtype", job.through_endpoint and not any(models), "no local model is read")


def _folders(job: TwinsJob) -> Iterator[Path]:
    if not job.through_endpoint:
        yield Path(job.suspect)
    yield from (folder for folder in (job.reference, job.owner, *job.controls) if folder is not None)


def _client(asked: TraceTwins) -> ClientSettings:
    return ClientSettings(timeout=asked.timeout, most=asked.concurrency, attempts=asked.attempts)


def _print_cost(asked: TraceTwins, job: TwinsJob) -> None:
    """What a test would take."""
    found = dry_run(job, asked.output)
    if asked.as_json:
        print_result(found)
        return
    counts = found.pairs
    click.echo(
        f"{counts.used:,} pairs: of {counts.eligible:,} eligible {counts.sampled:,} are sampled, {counts.tied:,} are "
        f"equal twins, {counts.follow_ups:,} quote an answer"
    )
    for cost in found.costs:
        fits = "within" if cost.within_budget else "more than"
        click.echo(
            f"--ask {cost.ask}: {cost.requests:,} requests to send, {cost.cached:,} answered already; about "
            f"{cost.prompt_tokens:,} prompt and {cost.completion_tokens:,} completion tokens, at most "
            f"{cost.most_tokens:,}: {fits} the budget"
        )
    for forecast in found.forecasts:
        many = "more than 20,000 pairs" if forecast.pairs is None else f"about {forecast.pairs:,} pairs"
        click.echo(
            f"to 10^{job.target_log10:g}, if {forecast.win_chance:.0%} of them speak for what was served: {many}"
        )


class _LiveEvidence:
    """The evidence so far, the target, and the pairs that it will take at this pace."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, standing: Standing) -> None:
        left = standing.pairs_to_target
        pace = "not growing yet" if left is None else f"about {left:,} pairs to go at this pace"
        score = f"{standing.wins:,} to {standing.losses:,} for what was served"
        evidence = f"{score}, evidence 10^{standing.log10_evalue:.1f} of 10^{standing.target:g}; {pace}"
        doing("asking the endpoint", standing.asked, standing.pairs, f"pairs, {evidence}")
        reached = standing.log10_evalue >= standing.target
        if not is_watched() and standing.asked and (standing.asked >= 2 * self._told or reached):
            self._told = standing.asked
            note(f"{standing.asked:,} of {standing.pairs:,} pairs: {evidence}")


def _show_reading(what: str, done: int, total: int) -> None:
    """How far a model is; a line when it is done, for logs."""
    doing(what, done, total, "pairs" if total else "")
    if done == total and total and not is_watched():
        note(f"{what}: {total:,} pairs")
