"""The options of the command that looks at a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from detect.cli.declaring import argument, option
from detect.cli.options.shared import (
    KEY_HELP,
    Asking,
    Printed,
    Settings,
    Working,
    alpha_option,
    concurrency_option,
    spec_option,
    tokenizer_option,
)


class ServeCheck(Asking, Settings, Printed, Working, runs="serving:serve_check"):
    """Ask a running server at URL (OpenAI-compatible) for answers, and say whether the mark is in them.

    Status 0: marked as it should be. 3: it answers, and the mark is missing, another account's, or not in all answers.
    4: the answers are too few or too short to tell. 5: the server can't be reached. 2: bad input, or it refuses.

    \b
    Example: dyetrace serve-check http://127.0.0.1:8000/v1 --spec spec.json --key file:owner.key --tenant acme
             dyetrace serve-check http://127.0.0.1:8000/v1 --spec spec.json --key file:owner.key --every 300
    """

    url: str = argument()
    spec_path: Path = spec_option("The watermark that the server should put in.")
    key: str = option("--key", help=f"{KEY_HELP} A tenant's own key serves as well.  [e.g. --key file:owner.key]")
    tenant: str | None = option(
        "--tenant", help="The account to send, and to find in the answers.  [e.g. --tenant acme]"
    )
    controls: tuple[str, ...] = option(
        "--control", help="Another account, which must show nothing; may be repeated.  [e.g. --control zenith]"
    )
    arguments: tuple[str, ...] = option(
        "--argument",
        metavar="NAME=VALUE",
        help="A further top-level field of every request, JSON or a string; may be repeated. The account is sent as "
        "vLLM takes it (vllm_xargs) unless one of these holds dyetrace_tenant.  [e.g. --argument dyetrace_tenant=acme]",
    )
    model: str | None = option(
        "--model", help="The model's name there; by default the first that /v1/models lists.  [e.g. --model my-model]"
    )
    endpoint: Literal["auto", "chat", "completions"] = option(
        "--endpoint",
        default="auto",
        help="Which endpoint to ask; auto tries chat first.  [e.g. --endpoint completions]",
    )
    tokenizer: str | None = tokenizer_option(", for servers that send no token ids")
    prompts_path: str | None = option(
        "--prompts",
        help="File of prompts, one a line or records (JSONL, JSON, CSV, ...) with a prompt field; by default a "
        "built-in list.  [e.g. --prompts prompts.txt]",
    )
    count: int = option("--count", type=click.IntRange(1), default=16, help="Answers to ask for.  [e.g. --count 64]")
    max_tokens: int = option(
        "--max-tokens", type=click.IntRange(1), default=200, help="Tokens of an answer.  [e.g. --max-tokens 400]"
    )
    temperature: float = option("--temperature", default=1.0, help="Of the answers.  [e.g. --temperature 0.7]")
    concurrency: int = concurrency_option(4)
    alpha: float = alpha_option("A key's mark is there when its p-value is at or below this.")
    special: bool = option(
        "--special/--no-special",
        default=True,
        help="Whether to try a greedy request, n = 3, opting out and a seed as well.  [e.g. --no-special]",
    )
    every: float | None = option(
        "--every",
        type=click.FloatRange(0.0),
        metavar="SECONDS",
        help="Go on as a canary: a round each so many seconds, one line each, until one fails. A round that can't tell "
        "does not count as failed, and is said to be one.  [e.g. --every 300]",
    )
    rounds: int | None = option(
        "--rounds", type=click.IntRange(1), help="With --every: end after so many rounds.  [e.g. --rounds 12]"
    )
