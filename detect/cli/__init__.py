"""The `dyetrace` command. Each command parses its options, calls one function of the packages and prints its result.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from detect.cli.common import EXIT_BAD_INPUT, EXIT_INTERRUPTED, say
from detect.cli.detection import demo, detect, recompute
from detect.cli.ledger import ledger
from detect.cli.marking import commit, generate, keygen, spec, verify_commitment
from detect.cli.planning import plan
from detect.cli.reports import report
from detect.cli.scanning import scan
from detect.cli.serving import serve_check
from detect.cli.tracing import trace
from watermark.errors import DyetraceError

_CUT_OFF = "standard output was closed before everything was written"


class _Group(click.Group):
    """Turns every `DyetraceError`, and whatever the machine refuses, into one line on stderr and exit status 2."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run the command between two checks of standard output, which is where results go."""
        _check_arguments(sys.argv[1:] if args is None else args)
        if sys.stdout is None:
            _end("standard output is closed; give it a file, or /dev/null")
        _take_closed_streams()
        stream = sys.stdout
        try:
            try:
                return super().main(args, *more, **extra)
            finally:
                if sys.stdout is not stream:  # click's way to say nothing of a closed pipe
                    _end(_CUT_OFF)
                sys.stdout.flush()
        except OSError as error:  # of help texts, and of what was still to be written
            _end(_refusal(error))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DyetraceError as error:
            _end(str(error))
        except OSError as error:
            _end(_refusal(error))
        except KeyboardInterrupt:
            say("dyetrace: interrupted")
            ctx.exit(EXIT_INTERRUPTED)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what reports and messages couldn't repeat."""
    for number, argument in enumerate(arguments, 1):
        if "\0" in argument or not _is_utf8(argument):
            _end(f"argument {number} is not UTF-8 text; rename what it names")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _end(reason: str) -> NoReturn:
    say(f"dyetrace: {' '.join(reason.split())}")
    sys.exit(EXIT_BAD_INPUT)


def _refusal(error: OSError) -> str:
    """What the machine refused: to write standard output, or something else."""
    reason = error.strerror or str(error)
    broken = _left_standard_output()
    if isinstance(error, BrokenPipeError):
        return _CUT_OFF
    if broken:
        return f"cannot write standard output: {reason}"
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _take_closed_streams() -> None:
    """Give the places of closed streams away, or the next file that is opened would get what is meant for people."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _left_standard_output() -> bool:
    """Drop what standard output can't take, which Python would try again at its end; return whether there was any."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dyetrace")
def main() -> None:
    """Watermark what a language model says; prove later where it went.

    \b
    dyetrace demo                                       the whole job on a real model
    dyetrace keygen owner.key                           a secret key
    dyetrace spec spec.json --key file:owner.key        what both sides must agree on
    dyetrace generate --spec spec.json --key file:owner.key --prompts prompts.txt
    dyetrace detect suspect.jsonl --spec spec.json --key file:owner.key
    dyetrace scan corpus/ --spec spec.json --key file:owner.key -o evidence/
    dyetrace trace weights suspect/ --read answers.jsonl --spec spec.json --key file:owner.key -o evidence/
    """


for command in (
    keygen,
    spec,
    commit,
    verify_commitment,
    generate,
    detect,
    demo,
    scan,
    plan,
    trace,
    recompute,
    report,
    ledger,
    serve_check,
):
    main.add_command(command)
