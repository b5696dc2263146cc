"""The options of the command that draws twins of answers which were served before."""

from __future__ import annotations

from pathlib import Path

import click

from detect.cli.declaring import argument, option
from detect.cli.options.shared import KEY_HELP, Asking, Printed, Working, concurrency_option, dtype_option
from detect.cli.options.twins import TwinKeyed


class TwinsRegenerate(TwinKeyed, Printed, Working, Asking, runs="twins_regenerate:regenerate"):
    """Draw a twin of each answer in SERVED (JSON lines of `dyetrace generate`, or a server's log) from the same model
    at the same settings, and keep both in a private ledger of twins. Settings that the log doesn't hold are given by
    options; wrong ones would convict the innocent. After an interrupt the same command goes on: no answer gets a
    second twin.

    \b
    Example: dyetrace twins regenerate served.jsonl --model ./my-model --twin-ledger twins.ledger \\
                 --twin-key file:twins.key --temperature 0.8 --top-p 0.95 --max-tokens 400
             dyetrace twins regenerate log.jsonl --model http://localhost:8000/v1 --twin-ledger twins.ledger \\
                 --twin-key file:twins.key
    """

    served: Path = argument(metavar="SERVED")
    model: str = option(
        "--model",
        help="What served the answers: a model's folder, or the base address of an OpenAI-compatible API.  "
        "[e.g. --model ./my-model]",
    )
    ledger: Path = option(
        "--twin-ledger", help="The private ledger, which is made if need be.  [e.g. --twin-ledger twins.ledger]"
    )
    model_name: str | None = option(
        "--model-name", help="What the log or the API calls the model.  [e.g. --model-name my-model-v2]"
    )
    temperature: float | None = option("--temperature", help="With which it was served.  [e.g. --temperature 0.8]")
    top_p: float | None = option("--top-p", help="With which it was served; 1 keeps all tokens.  [e.g. --top-p 0.95]")
    top_k: int | None = option("--top-k", help="With which it was served; by default 0, all.  [e.g. --top-k 50]")
    max_tokens: int | None = option(
        "--max-tokens", help="Longest answer that was allowed, in tokens.  [e.g. --max-tokens 400]"
    )
    system: str | None = option(
        "--system", help="The system prompt that was in force, where the log has none.  [e.g. --system 'Be brief.']"
    )
    unserved: bool = option(
        "--unserved",
        help="SERVED holds answers that nobody was ever served, or not before the suspect was made: pairs that no "
        "suspect can have learnt from, for the law test, in a ledger of their own.  [e.g. --unserved]",
    )
    spec_path: Path | None = option(
        "--spec", help="The watermark of the served answers, which their twins get likewise.  [e.g. --spec spec.json]"
    )
    key: str | None = option("--key", help=f"With --spec: the watermark's key. {KEY_HELP}  [e.g. --key file:owner.key]")
    dtype: str = dtype_option("Arithmetic of the model: that of the server.")
    batch: int = option("--batch", type=click.IntRange(1), default=16, help="Answers at a time.  [e.g. --batch 8]")
    concurrency: int = concurrency_option(8)
