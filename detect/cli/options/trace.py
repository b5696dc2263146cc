"""The options of the commands that trace a mark into a student."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from detect.cli.declaring import Options, argument, option
from detect.cli.options.shared import (
    Asking,
    Committed,
    Decoys,
    Drawn,
    Printed,
    Quoting,
    Reporting,
    Settings,
    Tested,
    Working,
    alpha_option,
    concurrency_option,
    dtype_option,
    spec_option,
    tokenizer_option,
)
from detect.cli.options.twins import TwinKeyed
from watermark.errors import DyetraceError


class _Traced(Tested, Printed, Working):
    spec_path: Path = spec_option()


class _Served(Options):
    served: str | None = option(
        "--served",
        help="Your served answers (JSONL of `dyetrace generate`), or a server's ledger of them that nobody writes to: "
        "only contexts that were served count, under the sub-keys that they were served with. Where the answers are "
        "marked, the evidence counts at looks that are fixed beforehand (after 1, 2, 4, 8, ... prompts and the last).  "
        "[e.g. --served answers.jsonl]",
    )
    reference: Path | None = option(
        "--reference",
        help="A model with the spec's tokenizer, such as the suspect's base model, to compare answers with logprobs "
        "with; in a race readout (--owner-model at `trace plan`) one of any tokenizer, best the suspect's base model.  "
        "[e.g. --reference ./base]",
    )


class _ServedTo(Options):
    served_tenant: str | None = option(
        "--served-tenant",
        help="Count only the answers served to this account; a ledger needs its key (--tenant).  "
        "[e.g. --served-tenant acme]",
    )


class _Reported(Reporting, Drawn):
    output: Path = option("-o", "--output", help="Folder for the report.  [e.g. -o evidence/]")
    tokenizer: str | None = tokenizer_option()


def _share_of(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[Path, float], ...]:
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
    return tuple(found)


class _Read(Options):
    tenant: str | None = option(
        "--read-tenant", help="Read only the answers made for this account.  [e.g. --read-tenant acme]"
    )
    taken: Literal["all", "random", "filtered"] | None = option(
        "--taken",
        help="How the marked answers that are read were taken from those that were served: all of them, a random part "
        "(drawn without looking at them), or filtered by what they say, how long they are or whether they ended. "
        "Filtered ones are refused: the key decided what the filter looked at, and an innocent model would look "
        "guilty.  [e.g. --taken all]",
    )
    complete: Path | None = option(
        "--complete",
        help="What was recorded when the answers were served: a server's ledger, or a list of hashes (`dyetrace ledger "
        "hashes`). Every answer in it must be among those that are read.  [e.g. --complete served.sha256]",
    )


class _Raced(_Read):
    """Of the race readout: the suspect is asked at places of served answers what it would say next."""

    owner_model: Path | None = option(
        "--owner-model",
        help="The model that made the answers of --read: a race readout. At each place of an answer the key had chosen "
        "one of the words that this model was about to say; the suspect is asked what it would say there. No base "
        "model of the suspect is needed.  [e.g. --owner-model ./my-model]",
    )
    owner_temperature: float | None = option(
        "--owner-temperature",
        help="Temperature that --owner-model answered at, where the answers' records don't say it. What is wrong here "
        "costs evidence, and the test stays exact; so with the next three.  [e.g. --owner-temperature 0.8]",
    )
    owner_top_p: float | None = option("--owner-top-p", help="The same of its top-p.  [e.g. --owner-top-p 0.95]")
    owner_top_k: int | None = option(
        "--owner-top-k", type=click.IntRange(0), help="The same of its top-k; 0 is none.  [e.g. --owner-top-k 50]"
    )
    owner_min_p: float | None = option("--owner-min-p", help="The same of its min-p.  [e.g. --owner-min-p 0.05]")
    device: Literal["auto", "cpu", "cuda", "mps"] = option(
        "--device",
        default="auto",
        help="Where a race readout's models run; auto takes a graphics card where there is one.  [e.g. --device cpu]",
    )


def _unquoted() -> bool:
    declared: bool = option(
        "--no-quotes",
        help="Leave the words of served answers out of the report of a race readout; places and numbers stay, so that "
        "it can be recomputed all the same.  [e.g. --no-quotes]",
    )
    return declared


def _base_option() -> Any:
    return option(
        "--base",
        help="The base model of adapters (LoRA and others of peft), where one of the models is an adapter's folder; by "
        "default the folder that its adapter_config.json names. Its path and hash stand in the report.  "
        "[e.g. --base ./base]",
    )


class TraceWeights(_Raced, _ServedTo, Decoys, Committed, _Traced, _Reported, runs="trace.weights:weights"):
    """Trace a suspect whose weights are in MODEL_DIR. A trace that was stopped goes on when the same command is given
    again. With --owner-model it is a race readout, which needs far less text.

    \b
    Example: dyetrace trace weights ./suspect --reference ./base --read answers.jsonl \\
                 --spec spec.json --key file:owner.key -o evidence/
             dyetrace trace weights ./suspect --owner-model ./my-model --read answers.jsonl \\
                 --spec spec.json --key file:owner.key -o evidence/
    """

    student: Path = argument(metavar="MODEL_DIR")
    texts: tuple[str, ...] = option(
        "--read",
        required=True,
        help="What the suspect reads: your served answers (JSONL of `dyetrace generate`) or other text; may be "
        "repeated. With --owner-model one file of served answers, in the order of serving.  [e.g. --read "
        "answers.jsonl]",
    )
    references: tuple[Path, ...] = option(
        "--reference",
        help="A model to compare with: the suspect's base model, an earlier checkpoint, or any other; may be "
        "repeated, but with --owner-model, where a suspect of another family needs it.  [e.g. --reference ./base]",
    )
    controls: tuple[Path, ...] = option(
        "--control",
        help="A model known not to have seen the mark, tested the same way.  [e.g. --control ./clean]",
    )
    base: Path | None = _base_option()
    calibration: tuple[tuple[Path, float], ...] = option(
        "--calibrate",
        type=str,
        callback=_share_of,
        help="A student that you trained on a known marked share, as DIR=SHARE; may be repeated. Several students of "
        "each of several shares (three or more of each, with other seeds) give an interval for the suspect's share.  "
        "[e.g. --calibrate ./tenth-1=0.1]",
    )
    served: str | None = option(
        "--served",
        help="Served answers, or a server's ledger of them that nobody writes to: of unmarked readings only contexts "
        "that stand in them are read, those in more of them weigh more, and each is tested under the sub-keys that it "
        "was served with. What was served is the key's work where the answers are marked: then counts weigh only as "
        "far as the key had not decided them yet, and the verdict rests on the e-value.  [e.g. --served served.ledger]",
    )
    placebo_answers: str | None = option(
        "--placebo",
        help="Answers that `dyetrace generate --placebo` made and that nobody was served: the same trace runs on them "
        "and must find nothing, else no verdict is given. It needs the master key.  [e.g. --placebo placebo.jsonl]",
    )
    readout: Literal["argmax", "mass", "entropy", "log", "reference"] | None = option(
        "--readout",
        help="How predictions become weights; by default reference, or entropy without one.  [e.g. --readout entropy]",
    )
    contexts: int = option(
        "--contexts",
        type=click.IntRange(1),
        default=50_000,
        help="Most distinct contexts to read in each text.  [e.g. --contexts 5000]",
    )
    alpha: float = alpha_option("Family-wise false-positive rate of 'found', over all keys.")
    two_sided: bool = option("--two-sided", help="Also see a mark that was subtracted too far.  [e.g. --two-sided]")
    dtype: str = dtype_option("Number format that models run in.")
    no_quotes: bool = _unquoted()


class TracePlanning(_Raced, _Served, _ServedTo, Asking, Settings, Decoys, Committed, _Traced, runs="trace.plan:plan"):
    """Fix prompts, statistic, keys and target of a trace through the endpoint at URL, before the first query; print the
    plan's SHA-256, to be published or deposited. Prompts are picked by a public seed, whatever was answered to them:
    the key had a say in every answer, and a choice by answers can make an innocent endpoint look guilty. What the
    endpoint takes of the requests is found by one question of its own, which asks for one token. With --read
    and --owner-model it is the plan of a race readout: how the endpoint is asked is found by a few neutral questions,
    and no free answers are asked for.

    \b
    Example: dyetrace trace plan https://host/v1 --model their-model --served answers.jsonl \\
                 --spec spec.json --key file:owner.key -o plan.json
             dyetrace trace plan https://host/v1 --model their-model --read answers.jsonl \\
                 --owner-model ./my-model --api-key env:THEIR_KEY --spec spec.json --key file:owner.key -o plan.json
    """

    url: str = argument(metavar="URL")
    model: str = option("--model", help="The suspect's name at the endpoint.  [e.g. --model their-model]")
    output: Path = option("-o", "--output", help="The plan to write.  [e.g. -o plan.json]")
    texts: tuple[str, ...] = option(
        "--read",
        help="For a race readout: the served answers (JSONL of `dyetrace generate`), in the order of serving, of which "
        "beginnings are shown to the suspect.  [e.g. --read answers.jsonl]",
    )
    ask: Literal["auto", "prompt-logprobs", "echo", "logprobs", "bias", "greedy"] = option(
        "--ask",
        default="auto",
        help="For a race readout, what is read of the endpoint: log-probabilities of a whole answer (one request an "
        "answer) with those of likely tokens beside (prompt-logprobs) or of the answer's own alone (echo); or of what "
        "it would say next at one place its log-probabilities, or the likeliest words, with a bias against words that "
        "are likely anyway or without. auto asks what the endpoint offers and takes the strongest.  "
        "[e.g. --ask greedy]",
    )
    via: Literal["auto", "completions", "prefill"] = option(
        "--via",
        default="auto",
        help="For a race readout: whether a text that is begun goes to /completions, or to /chat/completions as the "
        "beginning of the answer.  [e.g. --via prefill]",
    )
    per_answer: int = option(
        "--per-answer",
        type=click.IntRange(1),
        default=24,
        help="For a race readout that asks what the suspect would say next: most requests about each answer, at the "
        "first places where the owner's model was undecided.  [e.g. --per-answer 12]",
    )
    dtype: str = dtype_option("For a race readout: number format that --owner-model runs in.")
    prompts_path: str | None = option(
        "--prompts",
        help="Prompts to offer, one a line or JSONL with 'prompt'; by default those of the --served answers (a ledger "
        "holds none). Offer prompts that nobody chose by what was answered to them.  [e.g. --prompts prompts.txt]",
    )
    count: int = option(
        "--count",
        type=click.IntRange(1),
        default=500,
        help="Most prompts to ask: of those that are offered, the first in the order of their hashes under --seed.  "
        "[e.g. --count 2000]",
    )
    seed: str = option(
        "--seed",
        default="dyetrace",
        help="Public seed of the choice of prompts; it stands in the plan. Best one that nobody could choose, such as "
        "a lottery's numbers of a coming day.  [e.g. --seed 2026-12-24]",
    )
    samples: int = option(
        "--samples", type=click.IntRange(1), default=4, help="Answers to each prompt.  [e.g. --samples 8]"
    )
    per_request: int = option(
        "--per-request",
        type=click.IntRange(1),
        default=1,
        help="Answers that one request asks for (n).  [e.g. --per-request 4]",
    )
    endpoint: Literal["chat", "completions"] = option(
        "--endpoint",
        default="chat",
        help="Which of the two OpenAI-compatible endpoints to ask.  [e.g. --endpoint completions]",
    )
    logprobs: int | None = option(
        "--logprobs",
        type=click.IntRange(1),
        help="Ask for so many alternatives at each position, where the endpoint offers them.  [e.g. --logprobs 20]",
    )
    temperature: float = option(
        "--temperature", default=1.0, help="At which the suspect is to answer.  [e.g. --temperature 0.7]"
    )
    max_tokens: int = option(
        "--max-tokens", type=click.IntRange(1), default=200, help="Most tokens of an answer.  [e.g. --max-tokens 100]"
    )
    no_probe: bool = option(
        "--no-probe",
        help="Ask the endpoint nothing now: whether it takes what the plan sends shows when the plan is asked.  "
        "[e.g. --no-probe]",
    )
    tokenizer: str | None = tokenizer_option(
        ": looks for the mark in the prompts already now, and not only when they are about to be asked"
    )
    alpha: float = alpha_option("Family-wise false-positive rate of 'found', over all keys.")
    target_log10_p: float = option(
        "--target", default=-10.0, help="log10 p at which asking may stop.  [e.g. --target -12]"
    )
    max_requests: int | None = option(
        "--max-requests", type=click.IntRange(1), help="Budget in requests.  [e.g. --max-requests 5000]"
    )
    max_total_tokens: int | None = option(
        "--max-total-tokens", type=click.IntRange(1), help="Budget in tokens.  [e.g. --max-total-tokens 1000000]"
    )


class TraceEndpoint(_Served, Asking, _Traced, _Reported, runs="trace.api:api"):
    """Trace a suspect through its endpoint, as PLAN says (`dyetrace trace plan`). Every answer is kept in OUTPUT's
    ledger before it is used: the same command goes on after a stop, and pays for nothing twice. The evidence may be
    watched: it is valid at every moment.

    \b
    Example: dyetrace trace api plan.json --served answers.jsonl --api-key env:THEIR_KEY \\
                 --spec spec.json --key file:owner.key -o evidence/
             dyetrace trace api race-plan.json --read answers.jsonl --api-key env:THEIR_KEY \\
                 --spec spec.json --key file:owner.key -o evidence/
    """

    plan_path: Path = argument(metavar="PLAN")
    texts: tuple[str, ...] = option(
        "--read",
        help="For the plan of a race readout: the served answers that it was made of.  [e.g. --read answers.jsonl]",
    )
    no_quotes: bool = _unquoted()
    concurrency: int = concurrency_option(32)
    max_requests: int | None = option(
        "--max-requests", type=click.IntRange(1), help="A tighter budget in requests.  [e.g. --max-requests 100]"
    )
    max_total_tokens: int | None = option(
        "--max-total-tokens",
        type=click.IntRange(1),
        help="A tighter budget in tokens.  [e.g. --max-total-tokens 50000]",
    )
    dry_run: bool = option("--dry-run", help="Say what asking would cost, and stop.  [e.g. --dry-run]")


class TraceTwins(TwinKeyed, Asking, Settings, Printed, Working, Reporting, Drawn, Quoting, runs="trace.twins:twins"):
    """Test whether SUSPECT prefers the answers that were served to their twins, which nobody was shown. SUSPECT is a
    model folder or the address of an endpoint. No mark is needed: under the null hypothesis each pair's sign is a fair
    coin. Pairs, questions and target are fixed in a plan in OUTPUT before anything is asked; every reply is kept there,
    and the same command goes on after a stop. The evidence may be watched: it is valid at every moment.

    \b
    Example: dyetrace trace twins ./suspect --ledger twins.ledger --twin-key file:twins.key -o evidence/
             dyetrace trace twins https://host/v1 --model their-model --ledger twins.ledger \\
                 --twin-key file:twins.key --api-key env:THEIR_KEY --tenant acme -o evidence/
    """

    suspect: str = argument(metavar="SUSPECT")
    ledger: Path = option("--ledger", help="The private ledger of pairs.  [e.g. --ledger twins.ledger]")
    output: Path = option("-o", "--output", help="Folder for the report, plan and replies.  [e.g. -o evidence/]")
    model: str | None = option("--model", help="The suspect's name at its endpoint.  [e.g. --model their-model]")
    ask: Literal["auto", "logprobs", "parting", "answers"] = option(
        "--ask",
        default="auto",
        help="What is read of an endpoint: log-probabilities of both twins (2 requests a pair), how the suspect goes "
        "on with their beginnings (a few tokens each), or its own free answers, which any chat has. auto tries what "
        "it offers, the strongest first, with a question that is no pair's. Of a folder log-probabilities are read.  "
        "[e.g. --ask answers]",
    )
    samples: int = option(
        "--samples",
        type=click.IntRange(0, 64),
        default=0,
        help="Free answers to each prompt beside the likeliest one.  [e.g. --samples 4]",
    )
    reference: Path | None = option(
        "--reference",
        help="A model to compare log-probabilities with, best the suspect's base model.  [e.g. --reference ./base]",
    )
    owner: Path | None = option(
        "--owner",
        help="The model that made the answers: what it finds likelier itself is taken out of the suspect's "
        "differences, and it finds the places to ask about.  [e.g. --owner ./my-model]",
    )
    controls: tuple[Path, ...] = option(
        "--control",
        help="For twins that were drawn later: a model of another family, which can't have learnt from the answers and "
        "must prefer neither; may be repeated.  [e.g. --control ./unrelated]",
    )
    base: Path | None = _base_option()
    unserved: Path | None = option(
        "--unserved",
        help="For twins that were drawn later: a ledger of `dyetrace twins regenerate --unserved`, whose pairs nobody "
        "can have learnt from. The law test rests on them too, and so on more pairs; a suspect whose weights are at "
        "hand must prefer neither answer there.  [e.g. --unserved unserved.ledger]",
    )
    tenants: tuple[str, ...] = option(
        "--tenant",
        help="Only pairs of this account, which is also tested by itself; may be repeated.  [e.g. --tenant acme]",
    )
    level: Literal["withheld", "regenerated"] | None = option(
        "--level",
        help="Twins that were withheld at serving, or drawn later; by default withheld ones where there are any.  "
        "[e.g. --level regenerated]",
    )
    since: str | None = option("--since", help="Only requests from this time on (UTC).  [e.g. --since 2026-11-01]")
    until: str | None = option("--until", help="Only requests before this time (UTC).  [e.g. --until 2026-12-01]")
    sample: float = option("--sample", default=1.0, help="Share of the pairs, picked by --seed.  [e.g. --sample 0.5]")
    seed: str = option(
        "--seed",
        default="dyetrace",
        help="Public seed of the sample. Best one that nobody could choose, such as a lottery's numbers of a coming "
        "day.  [e.g. --seed 2026-12-24]",
    )
    most: int | None = option(
        "--pairs", type=click.IntRange(1), help="Most pairs to ask about, the first in time.  [e.g. --pairs 500]"
    )
    commitment_path: Path | None = option(
        "--commitment",
        help="What was published of the ledger beforehand (`dyetrace twins commit`), to put on record.  "
        "[e.g. --commitment twins.json]",
    )
    beside: Path | None = option(
        "--watermark-trace",
        help="The report.json of a trace of the watermark in the same suspect, a second line of evidence: the report "
        "then says what each says alone, and both together.  [e.g. --watermark-trace traced/report.json]",
    )
    target_log10: float = option(
        "--target", default=10.0, help="log10 of the e-value at which asking stops.  [e.g. --target 6]"
    )
    alpha: float = alpha_option("Level of 'found', and of naming an account.")
    max_requests: int | None = option(
        "--max-requests", type=click.IntRange(1), help="Budget in requests.  [e.g. --max-requests 1000]"
    )
    max_total_tokens: int | None = option(
        "--max-total-tokens", type=click.IntRange(1), help="Budget in tokens.  [e.g. --max-total-tokens 200000]"
    )
    concurrency: int = concurrency_option(32)
    dtype: str = dtype_option("Number format that local models run in.")
    dry_run: bool = option(
        "--dry-run", help="Say what asking would cost and how many pairs it may take, and stop.  [e.g. --dry-run]"
    )
