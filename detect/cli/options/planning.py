"""The options of the command that says, before a trace, what it could show."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from detect.cli.declaring import option
from detect.cli.options.shared import Printed, Working, alpha_option, spec_option


class Plan(Printed, Working, runs="planning:plan"):
    """Say what tracing a student could show, and what it takes.

    Students are simulated with the scheme's own marking and scores; how fast a real one learns (--memory, --drift) is
    an assumption.

    \b
    Example: dyetrace plan --spec spec.json --share 0.05 --training-tokens 1e7 --reference other
             dyetrace plan --spec spec.json --mode api --samples 16 --model ./my-model --text answers.jsonl
    """

    spec_path: Path = spec_option("The watermark.")
    model: str | None = option(
        "--model",
        help="Folder of the owner's model: its own distributions on --text are used.  [e.g. --model ./my-model]",
    )
    text: str | None = option(
        "--text", help="Text or JSONL of the owner's domain, with --model.  [e.g. --text answers.jsonl]"
    )
    entropy: float | None = option(
        "--entropy", help="Without --model: mean nats a token; 1 by default.  [e.g. --entropy 0.6]"
    )
    share: float = option("--share", default=0.05, help="Marked share of the training tokens.  [e.g. --share 0.01]")
    training_tokens: float = option(
        "--training-tokens", default=1e6, help="All training tokens.  [e.g. --training-tokens 1e8]"
    )
    overlap: float | None = option(
        "--overlap",
        help="Share of the answers that are read which the suspect was trained on; by default --share.  "
        "[e.g. --overlap 1]",
    )
    contexts: int = option("--contexts", default=20_000, help="Distinct contexts to read.  [e.g. --contexts 5000]")
    reference: Literal["base", "other", "none"] = option(
        "--reference",
        default="base",
        help="Model to compare with: the suspect's base, any other, or none.  [e.g. --reference other]",
    )
    reading: Literal["served", "other"] = option(
        "--reading", default="served", help="Read the owner's own answers, or any other text.  [e.g. --reading other]"
    )
    mode: Literal["weights", "logprobs", "api"] = option(
        "--mode",
        default="weights",
        help="What is at hand: the suspect's weights, an endpoint with logprobs, or its samples.  [e.g. --mode api]",
    )
    samples: int = option("--samples", default=4, help="Samples of each context, for --mode api.  [e.g. --samples 16]")
    answer_tokens: int = option(
        "--answer-tokens", default=200, help="Tokens of an endpoint's answer.  [e.g. --answer-tokens 500]"
    )
    alpha: float = alpha_option("Level of the test.")
    memory: float = option(
        "--memory",
        default=50.0,
        help="Sights of a context after which half of a prediction comes from them; 50 fits our students of two "
        "epochs.  [e.g. --memory 20]",
    )
    drift: float = option(
        "--drift", default=0.3, help="Random change of each logit in training, nats.  [e.g. --drift 0.5]"
    )
    mismatch: float = option("--mismatch", default=0.75, help="Another model's difference, nats.  [e.g. --mismatch 1]")
    seed: int = option("--seed", type=click.IntRange(0), default=0, help="Of the simulation.  [e.g. --seed 7]")
    html: Path | None = option("--html", help="Write the plan as a page as well.  [e.g. --html plan.html]")
