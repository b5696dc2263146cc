"""The `dyetrace` command. Each command parses its options, calls one function of the packages and prints its result.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from detect import interruption
from detect.cli import TRACEBACK_VARIABLE
from detect.cli.commands import COMMANDS
from detect.cli.statuses import BAD_INPUT, DONE, INTERNAL, MACHINE, Status, status_of
from detect.cli.working import say
from watermark.errors import DyetraceError, missing_of_machine
from watermark.interruption import forget_written

_CUT_OFF = "standard output was closed before everything was written"
_OWN = ("detect", "watermark")
_AS_LONG_AS_A_KEY = 16
_OPTION = re.compile("--[a-z-]+")
_HIDDEN = "<not shown: it may be secret>"


class _Group(click.Group):
    """Turns whatever ends a command into one line on stderr and a status of `detect.cli.statuses`."""

    _given: Sequence[str] = ()

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run the command between two checks of standard output, which is where results go."""
        interruption.leaves(None)
        forget_written()
        if sys.stderr is None:  # else what is meant for people would go to standard output
            sys.stderr = open(os.devnull, "w", encoding="utf-8")
        try:
            self._run(args, *more, **extra)
        finally:
            _left_standard_output()  # else Python tries again at its end, and has a status of its own for that

    def _run(self, args: Sequence[str] | None, *more: Any, **extra: Any) -> NoReturn:
        self._given = tuple(sys.argv[1:] if args is None else args)
        with _guarded(self._given):
            _check_arguments(self._given)
            if sys.stdout is None:
                _end("standard output is closed; give it a file, or /dev/null", MACHINE)
            _take_closed_streams()
            stream = sys.stdout
            try:
                # Not standalone, as click would end what is interrupted while it fails in words of its own.
                status = super().main(args, *more, **(extra | {"standalone_mode": False}))
            finally:
                if sys.stdout is not stream:  # click's way to say nothing of a closed pipe
                    _end(_CUT_OFF, MACHINE)
                sys.stdout.flush()
            sys.exit(status if isinstance(status, int) else DONE.number)

    def make_context(self, *given: Any, **extra: Any) -> click.Context:
        with _guarded(self._given):  # here as in `invoke`, before click has its own words for what happens
            return super().make_context(*given, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _guarded(self._given):
            return super().invoke(ctx)


@contextmanager
def _guarded(given: Sequence[str]) -> Iterator[None]:
    """One line and a status for whatever goes wrong in the block, which was given these arguments."""
    try:
        yield
    except (click.exceptions.Exit, SystemExit):
        raise
    except BaseException as error:
        if interruption.came() or isinstance(error, KeyboardInterrupt):
            _end_interrupted()
        if isinstance(error, click.ClickException):
            with suppress(OSError):  # whoever can't be told has the status
                _without_secrets(error, given).show()
            sys.exit(BAD_INPUT.number)
        if isinstance(error, DyetraceError):
            _end(str(error), status_of(error))
        if isinstance(error, OSError):
            _end(_refusal(error), MACHINE)
        if (lacking := missing_of_machine(error)) is not None:
            _end(lacking, MACHINE)
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        _end(_fault(error), INTERNAL)


def _end_interrupted() -> NoReturn:
    if not interruption.told():
        say(interruption.line())
    sys.exit(interruption.status())


def _without_secrets(error: click.ClickException, given: Sequence[str]) -> click.ClickException:
    """Leave long values out of what click says of them: one may be a key that was typed where its place belongs."""
    words = [part for word in given for part in (word, word.partition("=")[2]) if len(part) >= _AS_LONG_AS_A_KEY]
    for value in (word for word in words if not _OPTION.fullmatch(word)):
        for shown in (value, repr(value)[1:-1]):
            vars(error)["message"] = error.message.replace(shown, _HIDDEN)
    return error


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what reports and messages couldn't repeat."""
    for number, argument in enumerate(arguments, 1):
        if "\0" in argument or not _is_utf8(argument):
            _end(f"argument {number} is not UTF-8 text; rename what it names", BAD_INPUT)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _end(reason: str, status: Status) -> NoReturn:
    interruption.end()  # this is the line that is said
    say(f"dyetrace: {' '.join(reason.split())}")
    sys.exit(status.number)


def _refusal(error: OSError) -> str:
    """What the machine refused: to write standard output, or something else."""
    reason = error.strerror or str(error) or type(error).__name__
    broken = _left_standard_output()
    if isinstance(error, BrokenPipeError):
        return _CUT_OFF
    if broken or (error.filename is None and _was_printing(error)):
        return f"cannot write standard output: {reason}"
    if error.filename is None and isinstance(error, FileNotFoundError):
        return f"{reason}: the folder that this runs in may be gone"
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _was_printing(error: OSError) -> bool:
    """Whether it was raised by what prints results: a file that was open names itself no more."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    path = Path(frame.filename)
    return path.parts[-2:] in (("click", "utils.py"), ("rich", "console.py")) or path == Path(__file__)


def _fault(error: BaseException) -> str:
    """Where dyetrace itself failed. What the error says is left out: it may quote what is nobody else's business."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    root = Path(__file__).resolve().parents[2]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(Path(frame.filename), root)]
    where = "an unknown place"
    if frames:
        frame = (own or frames)[-1]
        path = Path(frame.filename)
        name = path.relative_to(root) if _is_own(path, root) else Path(*path.parts[-2:])
        where = f"{name}:{frame.lineno} in {frame.name}"
    return (
        f"internal error: {type(error).__name__} at {where}; this is a fault of dyetrace, not of your input; run it "
        f"again with {TRACEBACK_VARIABLE}=1 for the details and report them"
    )


def _is_own(path: Path, root: Path) -> bool:
    return path.is_relative_to(root) and path.relative_to(root).parts[0] in _OWN


def _take_closed_streams() -> None:
    """Give the places of closed streams away, or the next file that is opened would get what is meant for people."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _left_standard_output() -> bool:
    """Drop what standard output can't take, which Python would try again at its end; return whether there was any."""
    if sys.stdout is None:
        return False
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False


_HELP = """Watermark what a language model says; prove later where it went.

\b
dyetrace demo                                       the whole job on a real model
dyetrace keygen owner.key                           a secret key
dyetrace spec spec.json --key file:owner.key        what both sides must agree on
dyetrace generate --spec spec.json --key file:owner.key --prompts prompts.txt
dyetrace detect suspect.jsonl --spec spec.json --key file:owner.key
dyetrace scan corpus/ --spec spec.json --key file:owner.key -o evidence/
dyetrace trace weights suspect/ --read answers.jsonl --spec spec.json --key file:owner.key -o evidence/
"""
main = _Group(
    "main",
    COMMANDS,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
click.version_option(package_name="dyetrace")(main)
