"""The commands that check, draw and sign reports. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detect.cli.common import note, option, say
from detect.cli.results import json_option, print_result
from detect.cli.working import doing, rest, working
from watermark.errors import EvidenceError

if TYPE_CHECKING:
    from detect.records.detection import Record
    from detect.records.scan import ScanRecord
    from detect.records.trace import TraceRecord
    from detect.report.verify.report import Verification

_NAMES = {"html": "report.html", "pdf": "report.pdf", "text": "report.txt"}
_WIDTH = 100  # of report.txt


@click.group()
def report() -> None:
    """Check, draw and sign reports of scans, traces and detections.

    \b
    Example: dyetrace report verify evidence/report.json --public-key owner.pub
    """


@report.command()
@click.argument("path", metavar="REPORT", type=click.Path(path_type=Path))
@option(
    "--inputs",
    type=click.Path(path_type=Path),
    help="Folder with the files that were read, to compare their SHA-256.  [e.g. --inputs data/]",
)
@option(
    "--public-key",
    type=click.Path(path_type=Path),
    help="Who must have signed it: a PEM file, or 64 hex digits in a file.  [e.g. --public-key owner.pub]",
)
@json_option
@working
def verify(path: Path, inputs: Path | None, public_key: Path | None, as_json: bool) -> None:
    """Check REPORT (a report.json) without any key: signature, files, inputs, and all numbers that follow from others.

    \b
    Example: dyetrace report verify evidence/report.json --inputs data/ --public-key owner.pub
    """
    from detect.records.reading import read_report
    from detect.report.verify.report import verify_report

    with contextlib.suppress(EvidenceError):  # it is a report that contradicts itself, which the checks say
        read_report(path)  # what is no report at all is bad input
    doing("hashing the files and computing what follows from other numbers")
    found = verify_report(path, public_key=public_key, inputs=inputs)
    rest()
    _print_checks(path, found, as_json)
    if not found.holds:
        lines = "; ".join(f"{check.name}: {check.line}" for check in found.failed[:3])
        raise EvidenceError(f"the report does not hold: {_clean(lines)}")


@report.command()
@click.argument("path", metavar="REPORT", type=click.Path(path_type=Path))
@option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for what is drawn.  [e.g. -o evidence/]",
)
@option(
    "--format",
    "forms",
    multiple=True,
    default=("html",),
    type=click.Choice(sorted(_NAMES)),
    help="What to draw; may be repeated.  [e.g. --format html --format pdf]",
)
@option(
    "--force",
    is_flag=True,
    help="Replace drawings in OUTPUT that lie there without their report.json; other files stay.  [e.g. --force]",
)
@json_option
@working
def render(path: Path, output: Path, forms: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Draw REPORT (a report.json of a scan, a trace or a detection) as a page, a PDF or plain text, and print the
    drawings' paths.

    \b
    Example: dyetrace report render evidence/report.json -o evidence/ --format html --format pdf
    """
    from detect.folders.published import add_drawings, check_folder, drawn_from
    from detect.records.reading import read_report

    check_folder(output, None)
    data, record = read_report(path)
    drawn = {}
    for form in dict.fromkeys(forms):
        doing(f"drawing {_NAMES[form]}")
        drawn[form] = _drawn(record, form)
    rest()
    if "text" in drawn:
        drawn["text"] += drawn_from(data)
    drawings = {_NAMES[form]: content for form, content in drawn.items()}
    add_drawings(output, data, drawings, force=force)
    note(f"wrote {', '.join(drawings)} to {output}")
    if not as_json:
        click.echo("\n".join(str(output / name) for name in drawings))
        return
    from detect.records.results import Drawn
    from detect.records.scan import FileHash

    files = [FileHash.of(name, content) for name, content in drawings.items()]
    print_result(Drawn(path=str(path), folder=str(output), files=files))


@report.command()
@click.argument("path", metavar="REPORT", type=click.Path(path_type=Path))
@option(
    "--signing-key",
    required=True,
    help="Where the private key is: file:PATH, env:NAME or cmd:COMMAND (any command that prints it). "
    "Never give the key itself: other users see process arguments.  [e.g. --signing-key file:owner.pem]",
)
@json_option
def sign(path: Path, signing_key: str, as_json: bool) -> None:
    """Sign REPORT (a report.json) with Ed25519, and print the public key; the signature goes beside REPORT, into
    report.json.sig.

    \b
    Example: dyetrace report sign evidence/report.json --signing-key file:owner.pem
    """
    from detect.records.reading import read_report
    from detect.records.results import ReportSigned
    from detect.report import signature

    read_report(path)  # nobody should sign what is no report
    beside = signature.sign(path, signing_key)
    made = signature.read_signature(beside)
    say(f"wrote {beside}, by the key {made.public_key}")
    if as_json:
        signed = {"sha256": made.sha256, "public_key": made.public_key}
        print_result(ReportSigned(path=str(path), signature_path=str(beside), **signed))
    else:
        click.echo(made.public_key)


@report.command()
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def keygen(path: Path, as_json: bool) -> None:
    """Make a key for signing reports at PATH, readable by you alone, and its public key at PATH.pub; print the latter
    in hex.

    \b
    Example: dyetrace report keygen owner.pem
    """
    from detect.records.results import SigningKeyMade
    from detect.report.signature import load_public_key, write_signing_key

    beside = write_signing_key(path)
    public = load_public_key(beside).hex()
    say(f"wrote {path}, which is secret, and {beside}, which whoever checks your reports needs")
    if as_json:
        print_result(SigningKeyMade(path=str(path), public_path=str(beside), public_key=public))
    else:
        click.echo(public)


def _drawn(record: ScanRecord | TraceRecord | Record, form: str) -> bytes:
    from detect.records.scan import ScanRecord
    from detect.records.trace import TraceRecord

    if isinstance(record, TraceRecord):
        return _drawn_trace(record, form)
    return _drawn_scan(record, form) if isinstance(record, ScanRecord) else _drawn_detection(record, form)


def _drawn_scan(record: ScanRecord, form: str) -> bytes:
    if form == "pdf":
        from detect.report.scan.pdf import render_pdf

        return render_pdf(record)
    if form == "html":
        from detect.report.scan.page import render_scan_html

        return render_scan_html(record).encode()
    from detect.report.scan.terminal import print_scan

    return _printed(lambda console: print_scan(record, console, whole=True))


def _drawn_trace(record: TraceRecord, form: str) -> bytes:
    if form == "pdf":
        from detect.report.trace.pdf import render_trace_pdf

        return render_trace_pdf(record)
    if form == "html":
        from detect.report.trace.page import render_trace_html

        return render_trace_html(record).encode()
    from detect.report.trace.terminal import print_trace

    return _printed(lambda console: print_trace(record, console, whole=True))


def _drawn_detection(record: Record, form: str) -> bytes:
    if form == "pdf":
        from detect.report.detection.pdf import render_detection_pdf

        return render_detection_pdf(record)
    if form == "html":
        from detect.report.detection.page import render_html

        return render_html(record).encode()
    from detect.report.detection.terminal import print_record

    return _printed(lambda console: print_record(record, console, whole=True))


def _printed(show: Callable[[Any], None]) -> bytes:
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    show(Console(file=text, width=_WIDTH))
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()).encode()


def _print_checks(path: Path, found: Verification, as_json: bool) -> None:
    if as_json:
        from detect.records.results import CheckMade, ReportChecked

        checks = [CheckMade(name=check.name, outcome=check.outcome, line=check.line) for check in found.checks]
        print_result(ReportChecked(path=str(path), holds=found.holds, checks=checks))
        return
    for check in found.checks:
        click.echo(f"{check.outcome:<9}{check.name}: {_clean(check.line)}")


def _clean(text: str) -> str:
    from detect.records.written import clean

    return clean(text, 400)
