"""What commands that make reports share: a result is printed whatever becomes of the folder that it should go to."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from detect.cli.statuses import FOUND
from detect.cli.working import doing, note, rest
from detect.interruption import leaves
from watermark.errors import DyetraceError, MachineError, UndecidedError, refused_write
from watermark.interruption import held


def check_pdf() -> None:
    """Raise DyetraceError where a PDF can't be made, before the work for it is done."""
    try:
        import typst  # noqa: F401
    except ImportError:
        raise MachineError("a PDF needs typst: pip install 'dyetrace[scan]', or add --no-pdf") from None


def goes_on(kept: str) -> None:
    """From here on an interrupt leaves something that the same command goes on from: "all answers are kept"."""
    leaves(f"{kept}: the same command goes on from there")


def end_by_verdict(found: bool, withheld: str | None) -> None:
    """End as --fail asks for, after the result was printed.

    Raises
    ------
    click.exceptions.Exit
        The mark was found.
    UndecidedError
        No verdict was given, so that it can't be told whether it is there.
    """
    if found:
        click.get_current_context().exit(FOUND.number)
    if withheld is not None:
        raise UndecidedError(f"no verdict was given, so --fail can't say whether the mark is there: {withheld}")


def publish(
    output: Path | None,
    report: bytes,
    write: Callable[[Path], Mapping[str, bytes] | None],
    show: Callable[[Any], None],
    as_json: bool,
    failed: DyetraceError | None = None,
) -> None:
    """Write a report's files and print it: the result is said even where it can't be written.

    Parameters
    ----------
    output
        The folder; None where the report is printed alone.
    report
        The bytes of report.json.
    write
        Writes to the folder; returns the drawings that are to be added, by name.
    show
        Prints the report to a console.
    as_json
        Whether ``report`` is printed instead.
    failed
        Why the report was not written at all.

    Raises
    ------
    DyetraceError
        The folder failed; the result was printed before.
    """
    if output is not None and failed is None:
        doing("drawing and writing the report")
        try:
            _write(output, report, write)
        except DyetraceError as error:
            failed = error
        except OSError as error:
            failed = refused_write(f"cannot write to {output}", error)
    rest()
    try:
        if as_json:
            click.echo(report.decode(), nl=False)
        else:
            show(result_console())
        sys.stdout.flush()
    except OSError as error:
        raise _cut_off(error, output, failed) from None
    if failed is not None:
        kind = MachineError if isinstance(failed, MachineError) else DyetraceError
        raise kind(f"{failed}; the result was printed, but not all of its report was written") from None


def result_console() -> Any:
    """A console for results, which says when nobody reads it any more where rich's own ends the program."""
    from rich.console import Console

    class Telling(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return Telling()


def _cut_off(error: OSError, output: Path | None, failed: DyetraceError | None) -> DyetraceError:
    """What to say where standard output took no more; what it still holds is dropped, or Python would try again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    if failed is not None:
        return failed
    kept = "" if output is None else f"; the report is in {output} all the same"
    if isinstance(error, BrokenPipeError):
        return MachineError(f"standard output was closed before everything was written{kept}")
    return MachineError(f"cannot write standard output: {error.strerror or error}{kept}")


def _write(output: Path, report: bytes, write: Callable[[Path], Mapping[str, bytes] | None]) -> None:
    from detect.folders.published import NAMES, REPORT, add_drawings

    path = output / REPORT
    if path.is_file() and path.read_bytes() == report:  # a scan or a trace has written it; a detection does so below
        leaves(f"{path} is whole, and `dyetrace report render {path} -o {output}` draws it")
    drawings = write(output)
    with held():
        if drawings:
            add_drawings(output, report, drawings)
        leaves(f"the report in {output} is whole; nothing was left to do but print it")
    note(f"wrote {', '.join(name for name in NAMES if (output / name).exists())} to {output}")
