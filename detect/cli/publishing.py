"""What commands that make reports share: a result is printed whatever becomes of the folder that it should go to."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from detect.cli.options.scanning import Scan
from detect.cli.options.trace import TraceEndpoint, TraceTwins, TraceWeights
from detect.cli.statuses import FOUND
from detect.cli.working import doing, note, rest
from detect.folders.published import NAMES, REPORT, Unwritten, add_drawings, check_folder, replace_report
from detect.interruption import leaves
from detect.records.race import RaceRecord
from detect.records.reading import encode_record
from detect.records.report import Report
from detect.records.scan import ScanRecord
from detect.records.trace import TraceRecord
from detect.records.twins import TwinRecord
from detect.records.written import clean, counted
from detect.report.kinds import story_of
from detect.report.paper.page import page
from detect.report.paper.pdf import pdf as drawn_pdf
from detect.report.paper.terminal import print_story
from detect.report.story import Story
from watermark.errors import DyetraceError, MachineError, UndecidedError, refused_write
from watermark.interruption import held


def check_pdf() -> None:
    """Raise DyetraceError where a PDF can't be made, before the work for it is done."""
    try:
        import typst  # noqa: F401
    except ImportError:
        raise MachineError("a PDF needs typst: pip install 'dyetrace[scan]', or add --no-pdf") from None


def check_place(
    asked: Scan | TraceWeights | TraceEndpoint | TraceTwins, report_format: str, inputs: Iterable[str | Path | None]
) -> None:
    """Find before the work what would come in the way of the report after it."""
    if asked.pdf:
        check_pdf()
    check_folder(asked.output, report_format, inputs=[path for path in inputs if path is not None], force=asked.force)


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


def made_and_published(
    asked: Scan | TraceWeights | TraceEndpoint | TraceTwins,
    make: Callable[[], ScanRecord | TraceRecord | TwinRecord | RaceRecord],
    more: Callable[[], Mapping[str, bytes]] = dict,
) -> None:
    """Make a report that writes its own report.json, `publish` it with ``more`` files, and end as --fail asks for."""
    failed = None
    try:
        record = make()
    except Unwritten as error:
        record, failed = error.record, error
    _tell_of_ids(record)
    publish(record, asked.output, asked.as_json, pdf=asked.pdf, more=more(), failed=failed)
    if asked.fail:
        end_by_verdict(record.found, record.refused)


def _tell_of_ids(record: Report) -> None:
    """Say where token ids were no ids of their text, also where the report is read by no person."""
    readings = record.readings if isinstance(record, TraceRecord) else []
    for reading in [record.reading] if isinstance(record, RaceRecord) else readings:
        if reading.unlike_text:
            note(
                f"{clean(reading.name)}: the token ids of {counted(reading.unlike_text, 'record')} spell other text "
                "than the one beside them (ids of another tokenizer?); the text was read"
            )


def publish(
    record: Report,
    output: Path | None,
    as_json: bool,
    *,
    pdf: bool = False,
    more: Mapping[str, bytes] | None = None,
    failed: DyetraceError | None = None,
) -> None:
    """Draw and write a report's files and print it: the result is said even where it can't be written.

    Parameters
    ----------
    record
        Of any kind. A scan and a trace have written their report.json themselves; it is written here else.
    output
        The folder; None where the report is printed alone.
    as_json
        Whether report.json is printed, and no story of it.
    pdf
        Whether report.pdf is drawn besides report.html.
    more
        Other files for the folder, by name.
    failed
        Why the report was not written at all.

    Raises
    ------
    DyetraceError
        The folder failed; the result was printed before.
    """
    report, told = encode_record(record), story_of(record)
    if output is not None and failed is None:
        doing("drawing and writing the report")
        try:
            _write(output, report, told, pdf, more or {})
        except DyetraceError as error:
            failed = error
        except OSError as error:
            failed = refused_write(f"cannot write to {output}", error)
    rest()
    try:
        if as_json:
            click.echo(report.decode(), nl=False)
        else:
            print_story(told, result_console())
        sys.stdout.flush()
    except OSError as error:
        raise _cut_off(error, output, failed) from None
    if failed is not None:
        kind = MachineError if isinstance(failed, MachineError) else DyetraceError
        raise kind(f"{failed}; the result was printed, but not all of its report was written") from None


def result_console() -> Any:
    """A console for results, which says when nobody reads it any more where rich's own ends the program."""

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


def _write(output: Path, report: bytes, told: Story, pdf: bool, more: Mapping[str, bytes]) -> None:
    path = output / REPORT
    written = path.is_file() and path.read_bytes() == report
    if written:
        leaves(f"{path} is whole, and `dyetrace report render {path} -o {output}` draws it")
    files = {"report.html": page(told).encode(), **more}
    if not written:
        replace_report(output, {REPORT: report, **files})
        files = {}
    if pdf:
        files["report.pdf"] = drawn_pdf(told)
    with held():
        if files:
            add_drawings(output, report, files)
        leaves(f"the report in {output} is whole; nothing was left to do but print it")
    note(f"wrote {', '.join(name for name in NAMES if (output / name).exists())} to {output}")
