"""`dyetrace plan`: what a trace could show."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from detect.cli.models import load_model
from detect.cli.options.planning import Plan
from detect.cli.publishing import result_console
from detect.cli.results import print_result
from detect.cli.unused import refuse_unused
from detect.cli.working import doing, note, rest, say
from detect.models.forward import Model
from detect.models.reading import positions, read_text
from detect.models.soundness import check_sound
from detect.report.paper.page import page
from detect.report.paper.terminal import print_story
from detect.report.plan.story import story
from detect.student.power.planner import Question
from detect.student.power.planner import plan as make
from detect.student.power.simulated import Look, Student
from detect.student.verdict.weights import Floats
from detect.text.encode import Encoder
from watermark.errors import DyetraceError
from watermark.files.writing import check_output, write_atomically
from watermark.models.prompts import leading_tokens
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size
from watermark.spec import WatermarkSpec, check_tokenizer, load_spec

_POSITIONS = 1500  # of the owner's text that are measured
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
        print_story(story(made), result_console())
    if asked.html is not None:
        write_atomically(asked.html, page(story(made)).encode(), replace=False)
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
    network, own = load_model(model_dir, "bfloat16")
    check_sound(network, model_dir, spec.vocabulary_size)
    doing("measuring the model's entropy on the text")
    where = positions(text, max(1, spec.context_width), _POSITIONS, prefixes=1)
    model = Model(network, spec.vocabulary_size, leading_tokens(own))
    found = model.predict(text, where).probabilities.astype(np.float64)
    return np.asarray(found / found.sum(axis=1, keepdims=True))
