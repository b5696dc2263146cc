"""The commands that trace the mark into a student model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detect.cli.common import (
    case_text,
    commitment_on_record,
    decoy_count,
    decoy_public_seed,
    examiner_name,
    fail_when_found,
    load_ring,
    model_folder,
    note,
    option,
    read_names,
    request_attempts,
    request_concurrency,
    request_timeout,
    say,
    tenant_names,
    tenants_in_file,
    tested_key,
)
from detect.cli.publishing import check_pdf, end_by_verdict, goes_on, publish, replace_report_option
from detect.cli.results import json_option, print_result
from detect.cli.unused import refuse_seed_of_no_decoys, refuse_unused
from detect.cli.working import doing, is_watched, rest, working
from detect.laws.level import DEFAULT_ALPHA
from watermark.errors import DyetraceError

if TYPE_CHECKING:
    from detect.records.trace import TraceRecord
    from detect.student.asking.account import Estimate
    from detect.student.asking.plan import PlannedPrompt, PromptChoice, TracePlan
    from detect.student.endpoint import Standing


@click.group()
def trace() -> None:
    """Prove that a model was trained on marked outputs: from its weights, or through its endpoint.

    \b
    Example: dyetrace trace weights ./suspect --read answers.jsonl --spec spec.json --key file:owner.key -o evidence/
    """


_spec = option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The watermark to look for.  [e.g. --spec spec.json]",
)
_output = option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the report.  [e.g. -o evidence/]"
)
_tokenizer = option(
    "--tokenizer",
    help="Model folder or tokenizer.json of the spec; by default the demo model's.  [e.g. --tokenizer ./my-model]",
)
_alpha = option(
    "--alpha",
    type=float,
    default=DEFAULT_ALPHA,
    help="Family-wise false-positive rate of 'found', over all keys.  [e.g. --alpha 1e-3]",
)
_sided = option("--two-sided", is_flag=True, help="Also see a mark that was subtracted too far.  [e.g. --two-sided]")
_pdf = option("--pdf/--no-pdf", default=True, help="Write report.pdf as well.  [e.g. --no-pdf]")


_served_answers = option(
    "--served",
    help="Your served answers (JSONL of `dyetrace generate`), or a server's ledger of them that nobody writes to: only "
    "contexts that were served count, under the sub-keys that they were served with. Where the answers are marked, the "
    "evidence counts at looks that are fixed beforehand (after 1, 2, 4, 8, ... prompts and the last).  "
    "[e.g. --served answers.jsonl]",
)
_served_tenant = option(
    "--served-tenant",
    help="Count only the answers served to this account; a ledger needs its key (--tenant).  "
    "[e.g. --served-tenant acme]",
)
_endpoint_reference = option(
    "--reference",
    type=click.Path(path_type=Path),
    help="A model with the spec's tokenizer, such as the suspect's base model, to compare answers with logprobs with.  "
    "[e.g. --reference ./base]",
)


def _share_of(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> list[tuple[Path, float]]:
    """DIR=SHARE pairs."""
    found = []
    for value in values:
        folder, separator, share = value.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            separator = ""
        if not separator or not 0 <= number <= 1:
            raise DyetraceError(f"--calibrate takes DIR=SHARE with a share from 0 to 1 (got {value!r})")
        found.append((Path(folder), number))
    return found


@trace.command()
@click.argument("model_dir", metavar="MODEL_DIR", type=click.Path(path_type=Path))
@option(
    "--read",
    "texts",
    required=True,
    multiple=True,
    help="What the suspect reads: your served answers (JSONL of `dyetrace generate`) or other text; may be repeated.  "
    "[e.g. --read answers.jsonl]",
)
@_spec
@tested_key
@_output
@option(
    "--reference",
    "references",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A model to compare with: the suspect's base model, an earlier checkpoint, or any other; may be repeated.  "
    "[e.g. --reference ./base]",
)
@option(
    "--control",
    "controls",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A model known not to have seen the mark, tested the same way.  [e.g. --control ./clean]",
)
@option(
    "--calibrate",
    "calibration",
    multiple=True,
    callback=_share_of,
    help="A student that you trained on a known marked share, as DIR=SHARE; may be repeated. Several students of each "
    "of several shares (three or more of each, with other seeds) give an interval for the suspect's share.  "
    "[e.g. --calibrate ./tenth-1=0.1]",
)
@option(
    "--served",
    help="Served answers, or a server's ledger of them that nobody writes to: of unmarked readings only contexts that "
    "stand in them are read, those in more of them weigh more, and each is tested under the sub-keys that it was "
    "served with. What was served is the key's work where the answers are marked: then counts weigh only as far as the "
    "key had not decided them yet, and the verdict rests on the e-value.  [e.g. --served served.ledger]",
)
@_served_tenant
@option("--read-tenant", help="Read only the answers made for this account.  [e.g. --read-tenant acme]")
@option(
    "--taken",
    type=click.Choice(["all", "random", "filtered"]),
    help="How the marked answers that are read were taken from those that were served: all of them, a random part "
    "(drawn without looking at them), or filtered by what they say, how long they are or whether they ended. Filtered "
    "ones are refused: the key decided what the filter looked at, and an innocent model would look guilty.  "
    "[e.g. --taken all]",
)
@option(
    "--complete",
    type=click.Path(path_type=Path),
    help="What was recorded when the answers were served: a server's ledger, or a list of hashes (`dyetrace ledger "
    "hashes`). Every answer in it must be among those that are read.  [e.g. --complete served.sha256]",
)
@option(
    "--placebo",
    "placebo_answers",
    help="Answers that `dyetrace generate --placebo` made and that nobody was served: the same trace runs on them and "
    "must find nothing, else no verdict is given. It needs the master key.  [e.g. --placebo placebo.jsonl]",
)
@tenant_names
@tenants_in_file
@option(
    "--readout",
    type=click.Choice(["argmax", "mass", "entropy", "log", "reference"]),
    help="How predictions become weights; by default reference, or entropy without one.  [e.g. --readout entropy]",
)
@option(
    "--contexts",
    type=click.IntRange(1),
    default=50_000,
    help="Most distinct contexts to read in each text.  [e.g. --contexts 5000]",
)
@_tokenizer
@_alpha
@_sided
@decoy_count
@decoy_public_seed
@commitment_on_record
@option(
    "--dtype",
    default="bfloat16",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    help="Number format that models run in.  [e.g. --dtype float32]",
)
@_pdf
@json_option
@examiner_name
@case_text
@replace_report_option
@fail_when_found
@working
def weights(
    model_dir: Path,
    texts: tuple[str, ...],
    spec_path: Path,
    key: str,
    output: Path,
    references: tuple[Path, ...],
    controls: tuple[Path, ...],
    calibration: list[tuple[Path, float]],
    served: str | None,
    served_tenant: str | None,
    read_tenant: str | None,
    taken: Any,
    complete: Path | None,
    placebo_answers: str | None,
    tenants: tuple[str, ...],
    tenants_file: Path | None,
    readout: Any,
    contexts: int,
    tokenizer: str | None,
    alpha: float,
    two_sided: bool,
    decoys: int,
    decoy_seed: str,
    commitment_path: Path | None,
    dtype: str,
    pdf: bool,
    as_json: bool,
    examiner: str | None,
    case: str | None,
    force: bool,
    fail: bool,
) -> None:
    """Trace a suspect whose weights are in MODEL_DIR. A trace that was stopped goes on when the same command is given
    again.

    \b
    Example: dyetrace trace weights ./suspect --reference ./base --read answers.jsonl \\
                 --spec spec.json --key file:owner.key -o evidence/
    """
    from detect.folders.published import Unwritten
    from detect.records.made import made_by
    from detect.student.open_weights import Placebo, WeightsJob, trace_weights
    from detect.student.verdict.evidence import TraceSettings
    from detect.text.artefacts import check_text
    from watermark.commitment import load_commitment
    from watermark.keys import load_master
    from watermark.keys.placebo import placebo as placebo_of
    from watermark.models.folder import check_folder
    from watermark.spec import load_spec

    refuse_seed_of_no_decoys(decoys)
    maker = made_by(examiner, case)
    made = load_spec(spec_path)
    commitment = None if commitment_path is None else load_commitment(commitment_path)
    if taken == "filtered":
        raise DyetraceError(
            "answers that were chosen by what they say, their length or whether they ended can't be read: the key "
            "decided all of that, and an innocent model would look guilty; read all that were served, or a random part "
            "of them"
        )
    accounts = (*tenants, *read_names(tenants_file))
    ring = load_ring(key, made, accounts, counted=served is not None)
    _check_served(served, served_tenant)
    for text in texts:
        check_text(text, "--read")
    if placebo_answers is not None:
        check_text(placebo_answers, "--placebo")
    for folder in (model_dir, *references, *controls, *(student for student, _ in calibration)):
        check_folder(folder)
    placebo = None
    if placebo_answers is not None:
        placebo = Placebo(placebo_answers, *placebo_of(made, load_master(key), accounts))
    job = WeightsJob(
        student=model_dir,
        texts=texts,
        references=references,
        controls=controls,
        calibration=calibration,
        served=served,
        served_tenant=served_tenant,
        tenant=read_tenant,
        taken=taken,
        complete=complete,
        placebo=placebo,
        contexts=contexts,
        readout=readout,
        dtype=dtype,
        settings=TraceSettings(alpha, "two-sided" if two_sided else "upper", decoys, decoy_seed),
    )
    arguments = {
        "model": str(model_dir),
        "read": list(texts),
        "references": [str(path) for path in references],
        "controls": [str(path) for path in controls],
        "calibrate": [f"{path}={share}" for path, share in calibration],
        "served": served,
        "served_tenant": served_tenant,
        "read_tenant": read_tenant,
        "taken": taken,
        "complete": None if complete is None else str(complete),
        "placebo": placebo_answers,
        "tenants": list(ring.tenants),
        "readout": readout,
        "contexts": contexts,
        "decoys": decoys,
        "dtype": dtype,
    }
    _check_output(output, pdf, [*texts, served, complete, placebo_answers, model_dir, *references, *controls], force)
    note("the report will quote no text; evidence.npz will hold, as token ids, the contexts of the texts that are read")
    failed = None
    goes_on(f"what the models have read is kept in {output}")
    try:
        record = trace_weights(
            job,
            made,
            ring,
            tokenizer or model_folder(None),
            output,
            commitment=commitment,
            arguments=arguments,
            made=maker,
            progress=_show_reading,
        )
    except Unwritten as error:
        record, failed = error.record, error
    _publish(record, output, pdf, as_json, failed)
    if fail:
        end_by_verdict(record.found, record.refused)


@trace.command()
@click.argument("url", metavar="URL")
@option("--model", required=True, help="The suspect's name at the endpoint.  [e.g. --model their-model]")
@_spec
@tested_key
@option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The plan to write.  [e.g. -o plan.json]"
)
@_served_answers
@_served_tenant
@option(
    "--prompts",
    "prompts_path",
    help="Prompts to offer, one a line or JSONL with 'prompt'; by default those of the --served answers (a ledger "
    "holds none). Offer prompts that nobody chose by what was answered to them.  [e.g. --prompts prompts.txt]",
)
@option(
    "--count",
    type=click.IntRange(1),
    default=500,
    help="Most prompts to ask: of those that are offered, the first in the order of their hashes under --seed.  "
    "[e.g. --count 2000]",
)
@option(
    "--seed",
    default="dyetrace",
    help="Public seed of the choice of prompts; it stands in the plan. Best one that nobody could choose, such as a "
    "lottery's numbers of a coming day.  [e.g. --seed 2026-12-24]",
)
@option("--samples", type=click.IntRange(1), default=4, help="Answers to each prompt.  [e.g. --samples 8]")
@option(
    "--per-request",
    type=click.IntRange(1),
    default=1,
    help="Answers that one request asks for (n).  [e.g. --per-request 4]",
)
@option(
    "--endpoint",
    default="chat",
    type=click.Choice(["chat", "completions"]),
    help="Which of the two OpenAI-compatible endpoints to ask.  [e.g. --endpoint completions]",
)
@option(
    "--logprobs",
    type=click.IntRange(1),
    help="Ask for so many alternatives at each position, where the endpoint offers them.  [e.g. --logprobs 20]",
)
@option("--temperature", type=float, default=1.0, help="Of sampling.  [e.g. --temperature 0.7]")
@option("--max-tokens", type=click.IntRange(1), default=200, help="Most tokens of an answer.  [e.g. --max-tokens 100]")
@_endpoint_reference
@option(
    "--tokenizer",
    help="Model folder or tokenizer.json of the spec: looks for the mark in the prompts already now, and not only when "
    "they are about to be asked.  [e.g. --tokenizer ./my-model]",
)
@tenant_names
@tenants_in_file
@_alpha
@option("--target", type=float, default=-10.0, help="log10 p at which asking may stop.  [e.g. --target -12]")
@option("--max-requests", type=click.IntRange(1), help="Budget in requests.  [e.g. --max-requests 5000]")
@option("--max-total-tokens", type=click.IntRange(1), help="Budget in tokens.  [e.g. --max-total-tokens 1000000]")
@decoy_count
@decoy_public_seed
@commitment_on_record
@json_option
@working
def plan(
    url: str,
    model: str,
    spec_path: Path,
    key: str,
    output: Path,
    served: str | None,
    served_tenant: str | None,
    prompts_path: str | None,
    count: int,
    seed: str,
    samples: int,
    per_request: int,
    endpoint: Any,
    logprobs: int | None,
    temperature: float,
    max_tokens: int,
    reference: Path | None,
    tokenizer: str | None,
    tenants: tuple[str, ...],
    tenants_file: Path | None,
    alpha: float,
    target: float,
    max_requests: int | None,
    max_total_tokens: int | None,
    decoys: int,
    decoy_seed: str,
    commitment_path: Path | None,
    as_json: bool,
) -> None:
    """Fix prompts, statistic, keys and target of a trace through the endpoint at URL, before the first query; print the
    plan's SHA-256, to be published or deposited. Prompts are picked by a public seed, whatever was answered to them:
    the key had a say in every answer, and a choice by answers can make an innocent endpoint look guilty.

    \b
    Example: dyetrace trace plan https://host/v1 --model their-model --served answers.jsonl \\
                 --spec spec.json --key file:owner.key -o plan.json
    """
    from datetime import UTC, datetime

    from detect.document.blind import tested_keys
    from detect.records.results import TracePlanned
    from detect.student.asking.plan import Budgets, SamplingPlan, TracePlan, write_plan
    from detect.student.endpoint import check_prompts, statistic_of
    from detect.student.texts.served import counted_account
    from watermark.commitment import load_commitment
    from watermark.spec import load_spec

    refuse_seed_of_no_decoys(decoys)
    refuse_unused("per_request", per_request > samples, f"--samples {samples} asks for fewer answers than that")
    if reference is not None and logprobs is None:
        raise DyetraceError("a reference serves answers with logprobs only: give --logprobs, or leave --reference out")
    made = load_spec(spec_path)
    ring = load_ring(key, made, (*tenants, *read_names(tenants_file)), counted=served is not None)
    _check_served(served, served_tenant)
    doing("reading the served answers, and hashing them and the reference")
    account = counted_account(served, made, ring, served_tenant)
    prompts, choice = _chosen_prompts(prompts_path, served, account, count, seed)
    fixed = TracePlan(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        url=url,
        model=model,
        endpoint=endpoint,
        evidence="samples" if logprobs is None else "logprobs",
        prompts=prompts,
        choice=choice,
        samples=samples,
        per_request=min(per_request, samples),
        sampling=SamplingPlan(temperature=temperature, max_tokens=max_tokens, top_logprobs=logprobs or 0),
        readout="entropy" if reference is None else "reference",
        statistic=statistic_of(served, reference, account),
        hypotheses=list(tested_keys(made, ring)),
        spec_id=made.spec_id,
        key_fingerprint=ring.master_fingerprint,
        commitment=None if commitment_path is None else load_commitment(commitment_path),
        decoy_seed=decoy_seed,
        decoys=decoys,
        target_log10_p=target,
        alpha=alpha,
        budgets=Budgets(requests=max_requests, tokens=max_total_tokens),
    )
    if tokenizer is not None:
        doing("looking for the mark in the prompts")
        check_prompts(fixed, made, ring, tokenizer)
    digest = write_plan(output, fixed)
    rest()
    note(f"wrote {output}: {len(prompts)} of {choice.offered} prompts by seed {seed!r}, {samples} answers each")
    if not as_json:
        click.echo(digest)
        return
    print_result(
        TracePlanned(
            path=str(output),
            sha256=digest,
            prompts=len(prompts),
            offered=choice.offered,
            seed=seed,
            samples=samples,
            spec_id=made.spec_id,
            key_fingerprint=ring.master_fingerprint,
        )
    )


def _chosen_prompts(
    prompts_path: str | None, served: str | None, account: str | None, count: int, seed: str
) -> tuple[list[PlannedPrompt], PromptChoice]:
    """The prompts that a seed picks from a file, and what the plan says of that."""
    from detect.student.asking.plan import PlannedPrompt, PromptChoice
    from detect.student.asking.prompts import choose_prompts, prompts_of, read_answers
    from detect.student.texts.served import served_file
    from detect.text.artefacts import check_text
    from watermark.generate import read_prompts
    from watermark.ledger_file import is_ledger

    source = prompts_path or served
    if source is not None and prompts_path is None:
        say(
            "note: prompts come from the served answers. Later turns of conversations that speak of an earlier answer "
            "carry what the key decided, and an innocent endpoint would look guilty: leave them out"
        )
    if source is None:
        raise DyetraceError("a plan needs prompts: give --prompts, or --served answers to choose them from")
    if prompts_path is None and is_ledger(Path(source)):
        raise DyetraceError(f"{source} is a ledger, which holds no prompts to choose from: give --prompts as well")
    if prompts_path is not None:
        check_text(prompts_path, "--prompts")
        offered = [PlannedPrompt(prompt=text) for text in read_prompts(prompts_path)]
    else:
        offered = list(prompts_of(a for a in read_answers(Path(source)) if account in (None, a.tenant)))
    choice = PromptChoice(
        source=source,
        sha256="" if source == "-" else served_file(source).sha256,
        offered=len({planned.prompt for planned in offered if isinstance(planned.prompt, str)}),
        seed=seed,
        account=account if prompts_path is None else None,
    )
    return choose_prompts(offered, count, seed), choice


@trace.command()
@click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
@_spec
@tested_key
@_output
@_served_answers
@_endpoint_reference
@tenant_names
@tenants_in_file
@_tokenizer
@option(
    "--api-key",
    "api_key_source",
    help="Where the endpoint's API key is: file:PATH, env:NAME or cmd:COMMAND; none where it wants none.  "
    "[e.g. --api-key env:OPENAI_API_KEY]",
)
@option("--max-requests", type=click.IntRange(1), help="A tighter budget in requests.  [e.g. --max-requests 100]")
@option(
    "--max-total-tokens", type=click.IntRange(1), help="A tighter budget in tokens.  [e.g. --max-total-tokens 50000]"
)
@request_concurrency(32)
@request_timeout
@request_attempts
@option("--dry-run", is_flag=True, help="Say what asking would cost, and stop.  [e.g. --dry-run]")
@_pdf
@json_option
@examiner_name
@case_text
@replace_report_option
@fail_when_found
@working
def api(
    plan_path: Path,
    spec_path: Path,
    key: str,
    output: Path,
    served: str | None,
    reference: Path | None,
    tenants: tuple[str, ...],
    tenants_file: Path | None,
    tokenizer: str | None,
    api_key_source: str | None,
    max_requests: int | None,
    max_total_tokens: int | None,
    concurrency: int,
    timeout: float,
    attempts: int,
    dry_run: bool,
    pdf: bool,
    as_json: bool,
    examiner: str | None,
    case: str | None,
    force: bool,
    fail: bool,
) -> None:
    """Trace a suspect through its endpoint, as PLAN says (`dyetrace trace plan`). Every answer is kept in OUTPUT's
    ledger before it is used: the same command goes on after a stop, and pays for nothing twice. The evidence may be
    watched: it is valid at every moment.

    \b
    Example: dyetrace trace api plan.json --served answers.jsonl --api-key env:THEIR_KEY \\
                 --spec spec.json --key file:owner.key -o evidence/
    """
    from detect.folders.published import Unwritten
    from detect.records.made import made_by
    from detect.student.asking.account import ClientSettings, estimate
    from detect.student.asking.credentials import load_api_key
    from detect.student.asking.ledger import LEDGER_FILE, Ledger
    from detect.student.asking.plan import Budgets, load_plan
    from detect.student.endpoint import trace_endpoint
    from watermark.spec import load_spec

    maker = made_by(examiner, case)
    fixed, made = load_plan(plan_path), load_spec(spec_path)
    budgets = Budgets(requests=max_requests, tokens=max_total_tokens)
    for name, tighter, planned in (
        ("max_requests", max_requests, fixed.budgets.requests),
        ("max_total_tokens", max_total_tokens, fixed.budgets.tokens),
    ):
        looser = planned is not None and tighter is not None and tighter >= planned
        refuse_unused(name, looser, f"the plan's own budget is {planned:,}" if planned else "")
    refuse_unused("fail", dry_run, "--dry-run asks nothing and looks for no mark")
    if dry_run:
        ledger = Ledger(output / LEDGER_FILE, write=False) if (output / LEDGER_FILE).exists() else None
        _print_cost(estimate(fixed, ledger, budgets), plan_path, fixed, as_json)
        return
    ring = load_ring(key, made, (*tenants, *read_names(tenants_file)), counted=served is not None)
    _check_served(served, None)
    arguments = {
        "plan": str(plan_path),
        "served": served,
        "reference": None if reference is None else str(reference),
        "tenants": list(ring.tenants),
        "target_log10_p": fixed.target_log10_p,
        "alpha": fixed.alpha,
        "decoys": fixed.decoys,
        "decoy_seed": fixed.decoy_seed,
    }
    _check_output(output, pdf, [served, reference], force)
    note(
        "the report will quote no text; evidence.npz will hold, as token ids, contexts of the answers in their order, "
        f"and {output / LEDGER_FILE}, which is no part of the report, every answer whole"
    )
    failed = None
    goes_on(f"all answers are kept in {output / LEDGER_FILE}")
    doing("reading the served answers, the reference and what is on record")
    try:
        record = trace_endpoint(
            fixed,
            made,
            ring,
            tokenizer or model_folder(None),
            output,
            served=served,
            reference=reference,
            api_key=None if api_key_source is None else load_api_key(api_key_source),
            budgets=budgets,
            client=ClientSettings(timeout=timeout, most=concurrency, attempts=attempts),
            arguments=arguments,
            made=maker,
            progress=_LiveEvidence(),
            tell=note,
        )
    except Unwritten as error:
        record, failed = error.record, error
    _publish(record, output, pdf, as_json, failed)
    if fail:
        end_by_verdict(record.found, record.refused)


def _print_cost(cost: Estimate, plan_path: Path, fixed: TracePlan, as_json: bool) -> None:
    """What asking a plan would take."""
    if not as_json:
        fits = "within" if cost.within_budget else "more than"
        click.echo(
            f"{cost.requests:,} requests to send, {cost.cached:,} answered already; about {cost.prompt_tokens:,} "
            f"prompt and {cost.completion_tokens:,} completion tokens, at most {cost.most_tokens:,}: {fits} the budget"
        )
        return
    from detect.records.results import AskingForecast
    from detect.student.asking.plan import plan_sha256

    print_result(
        AskingForecast(
            plan=str(plan_path),
            plan_sha256=plan_sha256(fixed),
            requests=cost.requests,
            cached=cost.cached,
            prompt_tokens=cost.prompt_tokens,
            completion_tokens=cost.completion_tokens,
            most_tokens=cost.most_tokens,
            spent_requests=cost.spent.requests,
            spent_tokens=cost.spent.tokens,
            within_budget=cost.within_budget,
        )
    )


def _check_served(served: str | None, tenant: str | None) -> None:
    """Refuse an account of no answers, and say where a ledger is too full to tell much."""
    from detect.student.texts.served import crowding
    from detect.text.artefacts import check_text

    if served is not None:
        check_text(served, "--served", ledger=True)

    if tenant is not None and served is None:
        raise DyetraceError("--served-tenant says whose answers of --served count: give --served, or leave it out")
    if (told := crowding(served)) is not None:
        say(f"warning: {told}")


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


def _check_output(output: Path, pdf: bool, inputs: Sequence[str | Path | None], force: bool) -> None:
    """Find before the work what would come in the way of the report after it."""
    from detect.folders.published import TRACE_FORMAT, check_folder

    if pdf:
        check_pdf()
    check_folder(output, TRACE_FORMAT, inputs=[path for path in inputs if path is not None], force=force)


def _publish(record: TraceRecord, output: Path, pdf: bool, as_json: bool, failed: DyetraceError | None) -> None:
    """Write the pages of a trace's report and show it."""
    from detect.records.reading import encode_record
    from detect.report.trace.terminal import print_trace

    def drawn(_: Path) -> dict[str, bytes]:
        from detect.report.trace.page import render_trace_html

        drawings = {"report.html": render_trace_html(record).encode()}
        if pdf:
            from detect.report.trace.pdf import render_trace_pdf

            drawings["report.pdf"] = render_trace_pdf(record)
        return drawings

    publish(output, encode_record(record), drawn, lambda console: print_trace(record, console), as_json, failed)


def _show_reading(what: str, done: int, total: int) -> None:
    """How far a model is with a text; a line when it is done, for logs."""
    doing(what, done, total, "positions" if total else "")
    if done == total and total and not is_watched():
        note(f"{what}: {total:,} positions")
