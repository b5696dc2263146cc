"""`dyetrace plan`: what a trace could show."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from rich.table import Table

from detect.cli.common import load_model, note, say
from detect.cli.options.planning import Plan
from detect.cli.publishing import result_console
from detect.cli.results import print_result
from detect.cli.unused import refuse_unused
from detect.cli.working import doing, rest
from detect.models.forward import Model
from detect.models.reading import positions, read_text
from detect.models.soundness import check_sound
from detect.records.power_plan import PlanRow, PowerPlan
from detect.report.plan.page import render_plan_html
from detect.student.power.planner import Question
from detect.student.power.planner import plan as make
from detect.student.power.simulated import Look, Student
from detect.student.verdict.weights import Floats
from detect.text.encode import Encoder
from watermark.errors import DyetraceError
from watermark.files.writing import check_output, write_atomically
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, check_tokenizer, load_spec

_POSITIONS = 1500  # of the owner's text that are measured
_BAR = 50
_EVIDENCE = {"weights": "weights", "logprobs": "logprobs", "api": "samples"}


def plan(asked: Plan) -> None:
    """Simulate students and print what a trace of them would show."""
    unlearnt = asked.reading != "served" or asked.share == 0
    refuse_unused("overlap", unlearnt, "it is the share of served answers that it learnt from")
    refuse_unused("reference", asked.mode == "api", "samples of an endpoint are weighed without a reference")
    if asked.html is not None:
        check_output(asked.html, inputs=[asked.spec_path, None if asked.text is None else Path(asked.text)])
    spec = load_spec(asked.spec_path)
    if (asked.model is None) != (asked.text is None):
        raise DyetraceError("--model and --text go together: the model's entropy is measured on the text")
    if asked.model is not None and asked.entropy is not None:
        raise DyetraceError("--entropy is measured where --model is given; leave one of them out")
    settings = asked.of(Question) | {"entropy": 1.0 if asked.entropy is None else asked.entropy}
    question = Question(
        spec=spec,
        student=Student(**asked.of(Student)),
        look=msgspec.convert(asked.of(Look) | {"evidence": _EVIDENCE[asked.mode]}, Look),
        **settings,
    )
    measured = None
    if asked.model is not None and asked.text is not None:
        measured = _measured(spec, asked.model, asked.text)
    doing("simulating students")
    made = make(question, measured)
    rest()
    if asked.as_json:
        print_result(made)
    else:
        _print(made)
    if asked.html is not None:
        write_atomically(asked.html, render_plan_html(made).encode(), replace=False)
        note(f"wrote {asked.html}")
    for warning in made.warnings:
        say(f"warning: {warning}")


def _measured(spec: WatermarkSpec, model_dir: str, text_path: str) -> Floats:
    """What the owner's model predicts on its own text, (n, 64), rows summing to 1."""
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
