"""The command that looks at a running server from outside, and says whether the mark is in its answers."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detect.cli.common import KEY_HELP, note, option, request_attempts, request_concurrency, request_timeout, say
from detect.cli.results import json_option, print_result
from detect.cli.statuses import DOES_NOT_HOLD
from detect.cli.working import doing, rest, working
from detect.laws.level import DEFAULT_ALPHA, check_alpha
from watermark.errors import DyetraceError, UndecidedError

if TYPE_CHECKING:
    from detect.records.server_check import ServeCheck
    from detect.server.ask import Manner
    from detect.server.evidence import Keys
    from detect.student.asking.credentials import ApiKey
    from watermark.spec import WatermarkSpec


@click.command("serve-check")
@click.argument("url")
@option(
    "--spec",
    "spec_path",
    required=True,
    type=click.Path(path_type=Path),
    help="The watermark that the server should put in.  [e.g. --spec spec.json]",
)
@option(
    "--key",
    required=True,
    help=f"{KEY_HELP} A tenant's own key serves as well.  [e.g. --key file:owner.key]",
)
@option("--tenant", help="The account to send, and to find in the answers.  [e.g. --tenant acme]")
@option(
    "--control",
    "controls",
    multiple=True,
    help="Another account, which must show nothing; may be repeated.  [e.g. --control zenith]",
)
@option(
    "--argument",
    "arguments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A further top-level field of every request, JSON or a string; may be repeated. The account is sent as vLLM "
    "takes it (vllm_xargs) unless one of these holds dyetrace_tenant.  [e.g. --argument dyetrace_tenant=acme]",
)
@option("--model", help="The model's name there; by default the first that /v1/models lists.  [e.g. --model my-model]")
@option(
    "--endpoint",
    type=click.Choice(["auto", "chat", "completions"]),
    default="auto",
    help="Which endpoint to ask; auto tries chat first.  [e.g. --endpoint completions]",
)
@option(
    "--tokenizer",
    help="Model folder or tokenizer.json of the spec, for servers that send no token ids.  "
    "[e.g. --tokenizer ./my-model]",
)
@option(
    "--prompts",
    "prompts_path",
    help="File of prompts, one a line or JSONL with a prompt field; by default a built-in list.  "
    "[e.g. --prompts prompts.txt]",
)
@option("--count", type=click.IntRange(1), default=16, help="Answers to ask for.  [e.g. --count 64]")
@option("--max-tokens", type=click.IntRange(1), default=200, help="Tokens of an answer.  [e.g. --max-tokens 400]")
@option("--temperature", type=float, default=1.0, help="Of the answers.  [e.g. --temperature 0.7]")
@request_concurrency(4)
@request_timeout
@request_attempts
@option(
    "--api-key",
    "api_key_source",
    help="Where the server's API key is: file:PATH, env:NAME or cmd:COMMAND; none where it wants none.  "
    "[e.g. --api-key env:MY_API_KEY]",
)
@option(
    "--alpha",
    type=float,
    default=DEFAULT_ALPHA,
    help="A key's mark is there when its p-value is at or below this.  [e.g. --alpha 1e-9]",
)
@option(
    "--special/--no-special",
    default=True,
    show_default=True,
    help="Whether to try a greedy request, n = 3, opting out and a seed as well.  [e.g. --no-special]",
)
@option(
    "--every",
    type=click.FloatRange(0.0),
    metavar="SECONDS",
    help="Go on as a canary: a round each so many seconds, one line each, until one fails. A round that can't tell "
    "does not count as failed, and is said to be one.  [e.g. --every 300]",
)
@option("--rounds", type=click.IntRange(1), help="With --every: end after so many rounds.  [e.g. --rounds 12]")
@json_option
@working
def serve_check(
    url: str,
    spec_path: Path,
    key: str,
    tenant: str | None,
    controls: tuple[str, ...],
    arguments: tuple[str, ...],
    model: str | None,
    endpoint: Any,
    tokenizer: str | None,
    prompts_path: str | None,
    count: int,
    max_tokens: int,
    temperature: float,
    concurrency: int,
    timeout: float,
    attempts: int,
    api_key_source: str | None,
    alpha: float,
    special: bool,
    every: float | None,
    rounds: int | None,
    as_json: bool,
) -> None:
    """Ask a running server at URL (OpenAI-compatible) for answers, and say whether the mark is in them.

    Status 0: marked as it should be. 3: it answers, and the mark is missing, another account's, or not in all answers.
    4: the answers are too few or too short to tell. 5: the server can't be reached. 2: bad input, or it refuses.

    \b
    Example: dyetrace serve-check http://127.0.0.1:8000/v1 --spec spec.json --key file:owner.key --tenant acme
             dyetrace serve-check http://127.0.0.1:8000/v1 --spec spec.json --key file:owner.key --every 300
    """
    import asyncio

    from detect.server.answers import Reader
    from detect.server.ask import PROMPTS, Manner, parse_argument, served_models
    from detect.server.evidence import make_keys
    from detect.student.asking.credentials import load_api_key
    from watermark.generate import read_prompts
    from watermark.keys import load_key
    from watermark.spec import load_spec

    spec = load_spec(spec_path)
    _check_numbers(alpha, temperature, rounds, every, samples=spec.build_scheme().samples)
    keys = make_keys(load_key(key), spec, tenant, controls)
    account = tenant or next(iter(keys.ring.tenants), None)
    reader = Reader(spec, tokenizer)
    prompts = list(PROMPTS) if prompts_path is None else read_prompts(prompts_path)
    api_key = None if api_key_source is None else load_api_key(api_key_source)
    fields = dict(parse_argument(argument) for argument in arguments)
    kind = None if endpoint == "auto" else endpoint
    manner = Manner(
        url, model or "", kind, account, fields, max_tokens, temperature, concurrency, timeout, attempts=attempts
    )
    if model is None:
        doing("asking the server for its models")
        first, *others = asyncio.run(served_models(manner, api_key, note))
        manner = replace(manner, model=first)
        if others:
            note(f"asking {first}, the first of {len(others) + 1} models; choose by --model")
    number = undecided = 0
    while True:
        started = time.monotonic()
        with_special = special and every is None
        record = _round(manner, api_key, spec, keys, reader, prompts, count, number, alpha, with_special)
        number += 1
        undecided += not record.decided
        rest()
        _show(record, as_json, number if every is not None else None)
        if not record.passed:
            sys.exit(DOES_NOT_HOLD.number)
        if every is None or number == rounds:
            break
        doing("")
        time.sleep(max(0.0, started + every - time.monotonic()))
    _say_undecided(undecided, number)


def _say_undecided(undecided: int, rounds: int) -> None:
    """Say how many rounds could not tell.

    Raises
    ------
    UndecidedError
        None could.
    """
    how = "ask for more by --count or --max-tokens, or ask what gets longer and less predictable answers"
    if undecided and undecided == rounds:
        raise UndecidedError(f"the answers don't tell whether the server marks as it should; {how}")
    if undecided:
        say(f"{undecided:,} of {rounds:,} rounds could not tell, and count neither as passed nor as failed; {how}")


def _check_numbers(alpha: float, temperature: float, rounds: int | None, every: float | None, *, samples: bool) -> None:
    check_alpha(alpha)
    if not 0 <= temperature <= 100 or (samples and temperature == 0):
        raise DyetraceError(
            f"temperature must be above 0 (got {temperature}): at 0 there is nothing to choose and mark"
        )
    if rounds is not None and every is None:
        raise DyetraceError("--rounds goes with --every; give both, or neither")


def _round(
    manner: Manner,
    api_key: ApiKey | None,
    spec: WatermarkSpec,
    keys: Keys,
    reader: Any,
    prompts: list[str],
    count: int,
    number: int,
    alpha: float,
    with_special: bool,
) -> ServeCheck:
    """Ask anew, with connections of its own: what balances load may then choose another worker."""
    import asyncio

    from detect.server.ask import Server, ask_for_answers, ask_special
    from detect.server.check import conclude
    from detect.server.special import judge_special

    created = datetime.now(UTC).isoformat(timespec="seconds")

    async def ask() -> tuple[Any, Any, Any, str]:
        server = Server(manner, api_key, note)
        try:
            async with server.watched():
                doing("asking the server", 0, count, "answers")
                served, lacking = await ask_for_answers(
                    server,
                    reader,
                    prompts,
                    count,
                    number * count,
                    lambda done, total: doing("asking the server", done, total, "answers"),
                )
                doing("asking for what a hook must treat with care")
                special = await ask_special(server, reader, manner, prompts) if with_special else None
            return served, lacking, special, str(server.kind)
        finally:
            await server.close()

    served, lacking, special, kind = asyncio.run(ask())
    doing("testing the answers")
    checks = [] if special is None else judge_special(spec, keys, special)
    return conclude(spec, keys, served, lacking, checks, alpha, manner, kind, created)


def _show(record: ServeCheck, as_json: bool, number: int | None) -> None:
    from detect.server.text import lines, one_line

    if as_json:
        print_result(record, one_line=number is not None)
    elif number is not None:
        click.echo(one_line(record, number))
    else:
        click.echo("\n".join(lines(record)))
