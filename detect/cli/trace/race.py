"""The race readout: the same commands with `--owner-model`, or with a plan that was made so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import numpy as np

from detect.cli.models import model_folder
from detect.cli.options.trace import TraceEndpoint, TracePlanning, TraceWeights
from detect.cli.publishing import check_place, goes_on, made_and_published
from detect.cli.reading import read_commitment, tested_ring
from detect.cli.results import print_result
from detect.cli.trace.belonging import refuse_of_others
from detect.cli.trace.shared import check_models, tighter_budgets
from detect.cli.unused import refuse_seed_of_no_decoys, refuse_unused
from detect.cli.working import doing, is_watched, note, rest, say
from detect.folders.published import RACE_FORMAT
from detect.models.kept import kept_folder
from detect.race.cuts import first_of_runs
from detect.race.dry_run import dry_run
from detect.race.endpoint import Standing, trace_race_endpoint
from detect.race.job import RaceJob
from detect.race.plan import WHOLE_ANSWERS, chances_path, parse_plan, plan_sha256
from detect.race.planning import make_race_plan
from detect.race.weights import trace_race_weights
from detect.records.made import Made, made_by
from detect.records.results import RaceForecast, RacePlanned
from detect.student.asking.account import ClientSettings
from detect.student.asking.address import check_url
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import given_api_key
from detect.student.asking.fields import chosen
from detect.student.asking.ledger import LEDGER_FILE
from detect.student.texts.complete import FILTERED
from detect.text.artefacts import check_text
from watermark.errors import DyetraceError
from watermark.models.folder import check_folder
from watermark.models.tokenizer import load_tokenizer
from watermark.spec import load_spec


def race_weights(asked: TraceWeights, owner_model: Path) -> None:
    """Trace a suspect whose weights are at hand."""
    maker = made_by(asked.examiner, asked.case)
    refuse_seed_of_no_decoys(asked.decoys)
    refuse_of_others(asked)
    if len(asked.references) > 1:
        raise DyetraceError("a race readout compares with one model at most: give --reference once")
    reference = asked.references[0] if asked.references else None
    job = _job(
        asked,
        owner_model,
        suspect=str(asked.student),
        reference=reference,
        contexts=asked.contexts,
        quotes=not asked.no_quotes,
        base=asked.base,
    )
    made = load_spec(asked.spec_path)
    ring = tested_ring(asked, made)
    folders = [asked.student, owner_model, *asked.references]
    check_models(folders, asked.base)
    check_place(asked, RACE_FORMAT, [job.read, asked.complete, *folders, asked.base])
    _tell_of_quotes(job.quotes)
    if (kept := kept_folder()) is not None:
        goes_on(f"what the models have read is kept in {kept}")
    made_and_published(
        asked,
        lambda: trace_race_weights(
            job, made, ring, _tokenizer(asked), asked.output, made=maker, progress=_show_reading
        ),
    )


def race_plan(asked: TracePlanning, owner_model: Path) -> None:
    """Find how the endpoint can be asked, choose the places, and write the plan."""
    refuse_seed_of_no_decoys(asked.decoys)
    refuse_of_others(asked)
    refuse_unused("per_answer", asked.ask in WHOLE_ANSWERS, f"--ask {asked.ask} reads each answer whole")
    check_url(asked.url)
    refuse_unused("limit_field", "max_tokens" in asked.leave_out, "--leave-out max_tokens sends no limit")
    job = _job(
        asked,
        owner_model,
        suspect=asked.url,
        model=asked.model,
        reference=asked.reference,
        ask=asked.ask,
        via=asked.via,
        per_answer=asked.per_answer,
        target_log10=-asked.target_log10_p,
        left_out=tuple(chosen(asked.leave_out, asked.limit_field)),
        budgets=Budgets(requests=asked.max_requests, tokens=asked.max_total_tokens),
    )
    made = load_spec(asked.spec_path)
    ring = tested_ring(asked, made)
    for folder in filter(None, (owner_model, asked.reference)):
        check_folder(folder)
    _check_new(asked.output)
    doing("reading the served answers")
    fixed = make_race_plan(
        job,
        made,
        ring,
        _tokenizer(asked),
        asked.output,
        key=given_api_key(asked.api_key_source, asked.api_key_header),
        client=ClientSettings(timeout=asked.timeout, attempts=asked.attempts),
        progress=_show_reading,
    )
    rest()
    documents, positions = np.array(fixed.cuts, dtype=np.int64).T
    answers, asking = len(np.unique(documents)), first_of_runs(documents, positions, fixed.asking.run)
    found = RacePlanned(
        path=str(asked.output),
        sha256=plan_sha256(fixed),
        ask=fixed.ask,
        form=fixed.asking.form,
        probed=fixed.probed,
        answers=answers,
        cuts=len(fixed.cuts),
        requests=answers if fixed.whole_answers else len(asking),
        target_log10=fixed.target_log10,
        spec_id=fixed.spec_id,
        key_fingerprint=fixed.key_fingerprint,
    )
    for line in fixed.probed:
        note(f"the endpoint: {line}")
    note(
        f"wrote {asked.output} and {chances_path(asked.output)}: --ask {found.ask}, {found.cuts:,} places in "
        f"{found.answers:,} answers, {found.requests:,} requests at most"
    )
    _tell_of_showing(job.read)
    if asked.as_json:
        print_result(found)
    else:
        click.echo(found.sha256)


def race_api(asked: TraceEndpoint, data: bytes, maker: Made) -> None:
    """Ask as the plan says, whose bytes were read already; with --dry-run say what that would take."""
    refuse_of_others(asked)
    refuse_unused("reference", True, "a plan of a race readout holds what its reference said")
    fixed, made = parse_plan(data, f"plan {asked.plan_path}"), load_spec(asked.spec_path)
    read = _read(asked.texts, "those that the plan was made of")
    budgets = tighter_budgets(asked, fixed.budgets)
    ring = tested_ring(asked, made)
    if asked.dry_run:
        for name in ("fail", "no_quotes"):
            refuse_unused(name, True, "--dry-run asks nothing and finds nothing")
        doing("reading the plan's answers and simulating suspects")
        found = dry_run(asked.plan_path, read, made, ring, _tokenizer(asked), asked.output, budgets=budgets)
        rest()
        _print_cost(asked, found)
        return
    check_place(asked, RACE_FORMAT, [read, asked.plan_path])
    ledger = asked.output / LEDGER_FILE
    note(f"{ledger}, which is no part of the report, will hold every reply whole")
    _tell_of_quotes(not asked.no_quotes)
    _tell_of_showing(read)
    goes_on(f"all replies are kept in {ledger}")
    doing("reading the served answers and what is on record")
    made_and_published(
        asked,
        lambda: trace_race_endpoint(
            asked.plan_path,
            read,
            made,
            ring,
            _tokenizer(asked),
            asked.output,
            budgets=budgets,
            quotes=not asked.no_quotes,
            api_key=given_api_key(asked.api_key_source, asked.api_key_header),
            client=ClientSettings(timeout=asked.timeout, attempts=asked.attempts),
            made=maker,
            progress=_LiveEvidence(),
            tell=note,
        ),
    )


def _job(asked: TraceWeights | TracePlanning, owner_model: Path, **more: Any) -> RaceJob:
    """What is asked for, checked."""
    if asked.taken == "filtered":
        raise DyetraceError(FILTERED)
    job = RaceJob(
        read=_read(asked.texts, "in the order of serving"),
        owner_model=owner_model,
        read_tenant=asked.tenant,
        taken=asked.taken,
        complete=asked.complete,
        temperature=asked.owner_temperature,
        top_k=asked.owner_top_k,
        top_p=asked.owner_top_p,
        min_p=asked.owner_min_p,
        alpha=asked.alpha,
        decoys=asked.decoys,
        decoy_seed=asked.decoy_seed,
        dtype=asked.dtype,
        device=asked.device,
        commitment=read_commitment(asked.commitment_path),
        **more,
    )
    job.check()
    return job


def _check_new(plan: Path) -> None:
    """Find before the endpoint is asked anything that the plan or its chances can't be written."""
    for path in (plan, chances_path(plan)) if plan.name else (plan,):
        if os.path.lexists(path):
            raise DyetraceError(f"{path} exists already; a plan is never overwritten, so choose another name")


def _read(files: tuple[str, ...], how: str) -> str:
    """The one file of served answers.

    Raises
    ------
    DyetraceError
        There is none, there are several, or it is something else.
    """
    if not files:
        raise DyetraceError(f"a race readout reads the served answers, {how}: give them with --read")
    if len(files) > 1:
        raise DyetraceError(
            "a race readout reads one file of served answers, in the order of serving: join them in that order, and "
            "give --read once"
        )
    check_text(files[0], "--read")
    return files[0]


def _tokenizer(asked: TraceWeights | TracePlanning | TraceEndpoint) -> Any:
    return load_tokenizer(asked.tokenizer or model_folder(None))


def _tell_of_quotes(quotes: bool) -> None:
    if quotes:
        note("the report will show words of served answers: --no-quotes leaves them out")


def _tell_of_showing(read: str) -> None:
    """What asking gives away."""
    say(
        f"note: asking shows the suspect the beginnings of answers of {read}. If it trains on what it is asked, it has "
        "learnt them from then on, and what it says later proves nothing: ask once, and keep the evidence"
    )


def _print_cost(asked: TraceEndpoint, found: RaceForecast) -> None:
    """What a readout would take."""
    if asked.as_json:
        print_result(found)
        return
    fits = "within" if found.within_budget else "more than"
    click.echo(
        f"--ask {found.ask}, {found.cuts:,} places in {found.answers:,} answers: {found.requests:,} requests to send, "
        f"{found.cached:,} answered already; about {found.prompt_tokens:,} prompt and {found.completion_tokens:,} "
        f"completion tokens, at most {found.most_tokens:,}: {fits} the budget"
    )
    for reach in found.forecasts:
        many = "more than all of these" if reach.requests is None else f"about {reach.requests:,} requests"
        if reach.tokens is not None:
            many += f" and {reach.tokens:,} tokens"
        click.echo(f"to 10^{found.target_log10:g}, if it learnt from {reach.used:.0%} of these answers: {many}")


class _LiveEvidence:
    """The evidence so far, the answers that light up, what was paid, and what it will take at this pace."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, standing: Standing) -> None:
        left = standing.steps_to_target
        pace = "not growing yet" if left is None else f"about {left:,} requests to go at this pace"
        tokens = standing.account.tokens
        evidence = (
            f"evidence 10^{standing.log10_evalue:.1f} of 10^{standing.target:g}, answers that light "
            f"up: {standing.lit:,} of {standing.answers:,}, {tokens:,} tokens; {pace}"
        )
        doing("asking the endpoint", standing.steps, standing.of, f"requests, {evidence}")
        reached = standing.log10_evalue >= standing.target
        if not is_watched() and standing.steps and (standing.steps >= 2 * self._told or reached):
            self._told = standing.steps
            note(f"{standing.steps:,} of {standing.of:,} requests: {evidence}")
        if reached or standing.steps == standing.of:
            doing("computing the evidence under all keys and decoys")


def _show_reading(what: str, done: int, total: int) -> None:
    """How far a model is; a line when it is done, for logs."""
    doing(what, done, total, "places" if total else "")
    if done == total and total and not is_watched():
        note(f"{what}: {total:,} places")
