"""`dyetrace trace plan`: what a trace through an endpoint will ask, fixed before the first query."""

from __future__ import annotations

from pathlib import Path

import click

from detect.cli.options.trace import TracePlanning
from detect.cli.reading import read_commitment, tested_ring
from detect.cli.results import print_result
from detect.cli.trace.belonging import ASKING, refuse_of_races
from detect.cli.trace.race import race_plan
from detect.cli.trace.shared import check_served
from detect.cli.unused import refuse_seed_of_no_decoys, refuse_unused
from detect.cli.working import doing, note, rest, say
from detect.keyed.held import held_keys
from detect.readers.prompts import read_prompts
from detect.records.made import now
from detect.records.results import TracePlanned
from detect.student.asking.account import ClientSettings
from detect.student.asking.budget import Budgets
from detect.student.asking.credentials import given_api_key
from detect.student.asking.fields import chosen
from detect.student.asking.plan import (
    PlannedPrompt,
    PromptChoice,
    SamplingPlan,
    TracePlan,
    check_new_plan,
    write_plan,
)
from detect.student.asking.prompts import choose_prompts, prompts_of
from detect.student.asking.taking import as_taken, found_to_take
from detect.student.endpoint import check_prompts, statistic_of
from detect.student.texts.served import counted_account, read_answers, served_file
from detect.text.artefacts import check_text
from watermark.errors import DyetraceError
from watermark.ledger_file import is_ledger
from watermark.spec import load_spec


def plan(asked: TracePlanning) -> None:
    """Choose the prompts and write the plan."""
    if asked.owner_model is not None:
        race_plan(asked, asked.owner_model)
        return
    refuse_of_races(asked, "and no --owner-model is given", *ASKING)
    for name in ASKING:
        refuse_unused(name, asked.no_probe, "--no-probe asks the endpoint nothing")
    refuse_unused("temperature", "temperature" in asked.leave_out, "--leave-out temperature sends none")
    refuse_unused("limit_field", "max_tokens" in asked.leave_out, "--leave-out max_tokens sends no limit")
    refuse_seed_of_no_decoys(asked.decoys)
    why = f"--samples {asked.samples} asks for fewer answers than that"
    refuse_unused("per_request", asked.per_request > asked.samples, why)
    if asked.reference is not None and asked.logprobs is None:
        raise DyetraceError("a reference serves answers with logprobs only: give --logprobs, or leave --reference out")
    made = load_spec(asked.spec_path)
    ring = tested_ring(asked, made, counted=asked.served is not None)
    check_served(asked.served, asked.served_tenant)
    doing("reading the served answers, and hashing them and the reference")
    account = counted_account(asked.served, made, ring, asked.served_tenant)
    prompts, choice = _chosen_prompts(asked, account)
    settings = asked.of(TracePlan) | {"per_request": min(asked.per_request, asked.samples)}
    fixed = TracePlan(
        **settings,
        created=now(),
        evidence="samples" if asked.logprobs is None else "logprobs",
        prompts=prompts,
        choice=choice,
        sampling=as_taken(
            SamplingPlan(temperature=asked.temperature, max_tokens=asked.max_tokens, top_logprobs=asked.logprobs or 0),
            chosen(asked.leave_out, asked.limit_field),
        ),
        readout="entropy" if asked.reference is None else "reference",
        statistic=statistic_of(asked.served, asked.reference, account),
        hypotheses=held_keys(made, ring),
        spec_id=made.spec_id,
        key_fingerprint=ring.master_fingerprint,
        commitment=read_commitment(asked.commitment_path),
        budgets=Budgets(requests=asked.max_requests, tokens=asked.max_total_tokens),
    )
    if asked.tokenizer is not None:
        doing("looking for the mark in the prompts")
        check_prompts(fixed, made, ring, asked.tokenizer)
    fixed = _taken(asked, fixed)
    digest = write_plan(asked.output, fixed)
    rest()
    picked = f"{len(prompts)} of {choice.offered} prompts by seed {asked.seed!r}"
    each = "1 answer" if asked.samples == 1 else f"{asked.samples} answers"
    note(f"wrote {asked.output}: {picked}, {each} each")
    if not asked.as_json:
        click.echo(digest)
        return
    print_result(
        TracePlanned(
            path=str(asked.output),
            sha256=digest,
            prompts=len(prompts),
            offered=choice.offered,
            seed=asked.seed,
            samples=asked.samples,
            sampling=fixed.asked_for,
            probed=fixed.probed,
            spec_id=made.spec_id,
            key_fingerprint=ring.master_fingerprint,
        )
    )


def _taken(asked: TracePlanning, meant: TracePlan) -> TracePlan:
    """The plan as its endpoint takes it, by asking; what had to go is said."""
    if asked.no_probe:
        return meant
    check_new_plan(asked.output)
    doing("asking the endpoint what it takes")
    key = given_api_key(asked.api_key_source, asked.api_key_header)
    client = ClientSettings(timeout=asked.timeout, attempts=asked.attempts)
    fixed = found_to_take(meant, key, client)
    changed = (fixed.sampling, fixed.per_request) != (meant.sampling, meant.per_request)
    for line in fixed.probed:
        (say if changed else note)(f"the endpoint: {line}")
    if changed:
        say(f"note: the endpoint does not take all that was to be sent, and the plan asks for {fixed.asked_for}")
    return fixed


def _chosen_prompts(asked: TracePlanning, account: str | None) -> tuple[list[PlannedPrompt], PromptChoice]:
    """The prompts that a seed picks from a file, and what the plan says of that."""
    source = asked.prompts_path or asked.served
    if source is not None and asked.prompts_path is None:
        say(
            "note: prompts come from the served answers. Later turns of conversations that speak of an earlier answer "
            "carry what the key decided, and an innocent endpoint would look guilty: leave them out"
        )
    if source is None:
        raise DyetraceError("a plan needs prompts: give --prompts, or --served answers to choose them from")
    if asked.prompts_path is None and is_ledger(Path(source)):
        raise DyetraceError(f"{source} is a ledger, which holds no prompts to choose from: give --prompts as well")
    if asked.prompts_path is not None:
        check_text(asked.prompts_path, "--prompts")
        offered = [PlannedPrompt(prompt=text) for text in read_prompts(asked.prompts_path, note)]
    else:
        offered = list(prompts_of(a for a in read_answers(Path(source)) if account in (None, a.tenant)))
    choice = PromptChoice(
        source=source,
        sha256="" if source == "-" else served_file(source).sha256,
        offered=len({planned.prompt for planned in offered if isinstance(planned.prompt, str)}),
        seed=asked.seed,
        account=account if asked.prompts_path is None else None,
    )
    return choose_prompts(offered, asked.count, asked.seed), choice
