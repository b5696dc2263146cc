"""The command that says, before a trace, what it could show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detect.cli.common import note, option, say
from detect.cli.results import json_option, print_result
from detect.cli.unused import refuse_unused
from detect.cli.working import doing, rest, working
from detect.laws.level import DEFAULT_ALPHA
from watermark.errors import DyetraceError

if TYPE_CHECKING:
    from detect.records.power_plan import PlanRow, PowerPlan
    from detect.student.verdict.weights import Floats
    from watermark.spec import WatermarkSpec

_POSITIONS = 1500  # of the owner's text that are measured
_BAR = 50


@click.command()
@option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The watermark.  [e.g. --spec spec.json]",
)
@option(
    "--model",
    "model_dir",
    help="Folder of the owner's model: its own distributions on --text are used.  [e.g. --model ./my-model]",
)
@option("--text", "text_path", help="Text or JSONL of the owner's domain, with --model.  [e.g. --text answers.jsonl]")
@option("--entropy", type=float, help="Without --model: mean nats a token; 1 by default.  [e.g. --entropy 0.6]")
@option("--share", type=float, default=0.05, help="Marked share of the training tokens.  [e.g. --share 0.01]")
@option("--training-tokens", type=float, default=1e6, help="All training tokens.  [e.g. --training-tokens 1e8]")
@option(
    "--overlap",
    type=float,
    help="Share of the answers that are read which the suspect was trained on; by default --share.  [e.g. --overlap 1]",
)
@option("--contexts", type=int, default=20_000, help="Distinct contexts to read.  [e.g. --contexts 5000]")
@option(
    "--reference",
    default="base",
    type=click.Choice(["base", "other", "none"]),
    help="Model to compare with: the suspect's base, any other, or none.  [e.g. --reference other]",
)
@option(
    "--reading",
    default="served",
    type=click.Choice(["served", "other"]),
    help="Read the owner's own answers, or any other text.  [e.g. --reading other]",
)
@option(
    "--mode",
    default="weights",
    type=click.Choice(["weights", "logprobs", "api"]),
    help="What is at hand: the suspect's weights, an endpoint with logprobs, or its samples.  [e.g. --mode api]",
)
@option("--samples", type=int, default=4, help="Samples of each context, for --mode api.  [e.g. --samples 16]")
@option("--answer-tokens", type=int, default=200, help="Tokens of an endpoint's answer.  [e.g. --answer-tokens 500]")
@option("--alpha", type=float, default=DEFAULT_ALPHA, help="Level of the test.  [e.g. --alpha 1e-3]")
@option(
    "--memory",
    type=float,
    default=50.0,
    help="Sights of a context after which half of a prediction comes from them; 50 fits our students of two epochs.  "
    "[e.g. --memory 20]",
)
@option("--drift", type=float, default=0.3, help="Random change of each logit in training, nats.  [e.g. --drift 0.5]")
@option("--mismatch", type=float, default=0.75, help="Another model's difference, nats.  [e.g. --mismatch 1]")
@option("--seed", type=click.IntRange(0), default=0, help="Of the simulation.  [e.g. --seed 7]")
@json_option
@option("--html", type=click.Path(path_type=Path), help="Write the plan as a page as well.  [e.g. --html plan.html]")
@working
def plan(
    spec_path: Path,
    model_dir: str | None,
    text_path: str | None,
    entropy: float | None,
    share: float,
    training_tokens: float,
    overlap: float | None,
    contexts: int,
    reference: str,
    reading: str,
    mode: str,
    samples: int,
    answer_tokens: int,
    alpha: float,
    memory: float,
    drift: float,
    mismatch: float,
    seed: int,
    as_json: bool,
    html: Path | None,
) -> None:
    """Say what tracing a student could show, and what it takes.

    Students are simulated with the scheme's own marking and scores; how fast a real one learns (--memory, --drift) is
    an assumption.

    \b
    Example: dyetrace plan --spec spec.json --share 0.05 --training-tokens 1e7 --reference other
             dyetrace plan --spec spec.json --mode api --samples 16 --model ./my-model --text answers.jsonl
    """
    import msgspec

    from detect.student.power.planner import Question
    from detect.student.power.planner import plan as make
    from detect.student.power.simulated import Look, Student
    from watermark.files.writing import check_output
    from watermark.spec import load_spec

    refuse_unused("overlap", reading != "served" or share == 0, "it is the share of served answers that it learnt from")
    refuse_unused("reference", mode == "api", "samples of an endpoint are weighed without a reference")
    if html is not None:
        check_output(html, inputs=[spec_path, None if text_path is None else Path(text_path)])
    spec = load_spec(spec_path)
    if (model_dir is None) != (text_path is None):
        raise DyetraceError("--model and --text go together: the model's entropy is measured on the text")
    if model_dir is not None and entropy is not None:
        raise DyetraceError("--entropy is measured where --model is given; leave one of them out")
    evidence = {"weights": "weights", "logprobs": "logprobs", "api": "samples"}[mode]
    settings = {"reading": reading, "reference": reference, "evidence": evidence}
    question = Question(
        spec=spec,
        student=Student(share=share, training_tokens=training_tokens, overlap=overlap, memory=memory, drift=drift),
        look=msgspec.convert({**settings, "samples": samples, "mismatch": mismatch}, Look),
        contexts=contexts,
        alpha=alpha,
        entropy=1.0 if entropy is None else entropy,
        answer_tokens=answer_tokens,
        seed=seed,
    )
    measured = None
    if model_dir is not None and text_path is not None:
        measured = _measured(spec, model_dir, text_path)
    doing("simulating students")
    made = make(question, measured)
    rest()
    if as_json:
        print_result(made)
    else:
        _print(made)
    if html is not None:
        from detect.report.plan.page import render_plan_html
        from watermark.files.writing import write_atomically

        write_atomically(html, render_plan_html(made).encode(), replace=False)
        note(f"wrote {html}")
    for warning in made.warnings:
        say(f"warning: {warning}")


def _measured(spec: WatermarkSpec, model_dir: str, text_path: str) -> Floats:
    """What the owner's model predicts on its own text, (n, 64), rows summing to 1."""
    import numpy as np

    from detect.cli.common import load_model
    from detect.models.forward import Model
    from detect.models.reading import positions, read_text
    from detect.models.soundness import check_sound
    from detect.text.encode import Encoder
    from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
    from watermark.spec import check_tokenizer

    tokenizer = load_tokenizer(model_dir)
    check_tokenizer(spec, tokenizer_fingerprint(tokenizer), vocabulary_size(tokenizer))
    doing("reading the text")
    text = read_text(text_path, spec, Encoder.load(model_dir))
    doing("loading the model")
    network, _ = load_model(model_dir, "bfloat16")
    check_sound(network, model_dir, spec.vocabulary_size)
    doing("measuring the model's entropy on the text")
    where = positions(text, max(1, spec.context_width), _POSITIONS, prefixes=1)
    found = Model(network, spec.vocabulary_size).predict(text, where).probabilities.astype(np.float64)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _print(made: PowerPlan) -> None:
    """Tables for a terminal."""
    from rich.table import Table

    from detect.cli.publishing import result_console

    console = result_console()
    wording = {"samples": f"samples of an endpoint, {made.samples} a context", "logprobs": "an endpoint's logprobs"}
    console.print(
        f"{made.scheme}, width {made.context_width}, {made.subkeys} sub-keys; {made.entropy:.2f} nats a token",
        f"Student: {made.share:.2%} of {made.training_tokens:,.0f} training tokens marked; "
        f"{made.seen:.2%} of the contexts followed the mark there",
        f"Reading {'the served answers' if made.reading == 'served' else 'other text'} by "
        f"{wording.get(made.evidence, 'weights')}: {_asked(made)}",
        sep="\n",
        highlight=False,
    )
    if made.share > 0:
        needed = _count(made.marked_tokens_needed)
        console.print(f"Marked training tokens for power 0.95 at this budget: {needed}", highlight=False)
    for title, rows in (("Other ways to look", made.looks), ("Other context widths", made.widths)):
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for name in ("power", "contexts", "tokens to read", "answers"):
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(row.name, f"{row.power:.3g}", *map(_count, _needs(row)))
        console.print()
        console.print(table, highlight=False)
    console.print("(contexts, tokens and answers: for power 0.95)\n\nPower against contexts", highlight=False)
    for point in made.curve[::3]:
        bar = "#" * round(_BAR * point.power)
        console.print(f"{point.contexts:>12,} |{bar:<{_BAR}}| {point.power:.3g}", highlight=False, markup=False)
    console.print(f"\n{made.method[0].upper()}{made.method[1:]}.", highlight=False)


def _asked(made: PowerPlan) -> str:
    power = f"p <= {made.alpha:g} with probability {made.asked.power:.3g} at {made.contexts:,} contexts"
    if made.asked.contexts_needed is None:
        return f"{power}; no budget would reach 0.95"
    queries = made.asked.queries_needed
    more = "" if queries is None else f", {queries:,} answers"
    return (
        f"{power}; 0.95 needs {made.asked.contexts_needed:,} contexts "
        f"(about {made.asked.tokens_needed:,} tokens of text{more})"
    )


def _needs(row: PlanRow) -> tuple[int | None, int | None, int | None]:
    return row.contexts_needed, row.tokens_needed, row.queries_needed


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
