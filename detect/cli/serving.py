"""`dyetrace serve-check`: whether a running server marks its answers, seen from outside."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from typing import Any

import click

from detect.cli.options.serving import ServeCheck
from detect.cli.publishing import result_console
from detect.cli.results import print_result
from detect.cli.statuses import DOES_NOT_HOLD
from detect.cli.unused import refuse_unused
from detect.cli.working import doing, note, rest, say
from detect.laws.level import check_alpha
from detect.readers.prompts import read_prompts
from detect.records import server_check
from detect.records.made import now
from detect.records.server_check import Check
from detect.report.paper.terminal import print_story
from detect.report.server.story import one_line, story
from detect.server.answers import Reader
from detect.server.ask import PROMPTS, Manner, Server, ask_for_answers, ask_special, parse_argument, served_models
from detect.server.check import conclude
from detect.server.evidence import make_keys
from detect.server.special import judge_settings, judge_special
from detect.student.asking.credentials import given_api_key
from detect.student.asking.fields import chosen
from watermark.errors import DyetraceError, UndecidedError
from watermark.keys import load_key
from watermark.spec import WatermarkSpec, load_spec


def serve_check(asked: ServeCheck) -> None:
    """Ask and judge, once or in rounds until one fails."""
    refuse_unused("temperature", "temperature" in asked.leave_out, "--leave-out temperature sends none")
    refuse_unused("limit_field", "max_tokens" in asked.leave_out, "--leave-out max_tokens sends no limit")
    spec = load_spec(asked.spec_path)
    _check_numbers(asked, spec)
    keys = make_keys(load_key(asked.key), spec, asked.tenant, asked.controls)
    reader = Reader(spec, asked.tokenizer)
    prompts = list(PROMPTS) if asked.prompts_path is None else read_prompts(asked.prompts_path, note)
    api_key = given_api_key(asked.api_key_source, asked.api_key_header)
    named = {
        "model": asked.model or "",
        "tenant": asked.tenant or next(iter(keys.ring.tenants), None),
        "arguments": dict(parse_argument(argument) for argument in asked.arguments),
        "left_out": tuple(chosen(asked.leave_out, asked.limit_field)),
    }
    manner = Manner(**asked.of(Manner) | named, kind=None if asked.endpoint == "auto" else asked.endpoint)
    if asked.model is None:
        doing("asking the server for its models")
        first, *others = asyncio.run(served_models(manner, api_key, note))
        manner = replace(manner, model=first)
        if others:
            note(f"asking {first}, the first of {len(others) + 1} models; choose by --model")

    async def ask(number: int) -> tuple[Any, Any, list[Check], str]:
        server = Server(manner, api_key, note)
        try:
            async with server.watched():
                doing("asking the server", 0, asked.count, "answers")
                served, lacking = await ask_for_answers(
                    server,
                    reader,
                    prompts,
                    asked.count,
                    number * asked.count,
                    lambda done, total: doing("asking the server", done, total, "answers"),
                )
                doing("asking for what a hook must treat with care")
                with_special = asked.special and asked.every is None
                answered = list(dict.fromkeys(prompts[one.prompt] for one in served)) or prompts
                special = await ask_special(server, reader, manner, answered) if with_special else None
            checks = [] if special is None else judge_special(spec, keys, special)
            return served, lacking, [*checks, *judge_settings(server.left_out, server.refusals)], str(server.kind)
        finally:
            await server.close()

    number = undecided = 0
    while True:
        started, created = time.monotonic(), now()
        # Anew, with connections of its own: what balances load may then choose another worker.
        served, lacking, checks, kind = asyncio.run(ask(number))
        doing("testing the answers")
        record = conclude(spec, keys, served, lacking, checks, asked.alpha, manner, kind, created)
        number += 1
        undecided += not record.decided
        rest()
        _show(record, asked.as_json, number if asked.every is not None else None)
        if not record.passed:
            sys.exit(DOES_NOT_HOLD.number)
        if asked.every is None or number == asked.rounds:
            break
        doing("")
        time.sleep(max(0.0, started + asked.every - time.monotonic()))
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


def _check_numbers(asked: ServeCheck, spec: WatermarkSpec) -> None:
    check_alpha(asked.alpha)
    if not 0 <= asked.temperature <= 100 or (spec.build_scheme().samples and asked.temperature == 0):
        raise DyetraceError(
            f"temperature must be above 0 (got {asked.temperature}): at 0 there is nothing to choose and mark"
        )
    if asked.rounds is not None and asked.every is None:
        raise DyetraceError("--rounds goes with --every; give both, or neither")


def _show(record: server_check.ServeCheck, as_json: bool, number: int | None) -> None:
    if as_json:
        print_result(record, one_line=number is not None)
    elif number is not None:
        click.echo(one_line(record, number))
    else:
        print_story(story(record), result_console())
