"""The commands that check, draw and sign reports."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import click

from detect.cli.options.reports import DRAWINGS, Render, Sign, SigningKey, Verify
from detect.cli.results import print_either, print_result
from detect.cli.working import doing, note, rest, say
from detect.folders.published import add_drawings, check_folder, drawn_from
from detect.records.reading import read_report
from detect.records.report import Report
from detect.records.results import Drawn, ReportChecked, ReportSigned, SigningKeyMade
from detect.records.scan import FileHash
from detect.records.written import clean
from detect.report import signature
from detect.report.kinds import story_of
from detect.report.paper.markdown import markdown
from detect.report.paper.page import page
from detect.report.paper.pdf import pdf
from detect.report.paper.terminal import text
from detect.report.story import Story
from detect.report.verification import Verification, verify_report
from watermark.errors import EvidenceError

_DRAW: dict[str, Callable[[Story], str | bytes]] = {"html": page, "markdown": markdown, "pdf": pdf, "text": text}


def verify(asked: Verify) -> None:
    """Print what was checked of a report, and end with its own status where it does not hold."""
    with contextlib.suppress(EvidenceError):  # it is a report that contradicts itself, which the checks say
        read_report(asked.path)  # what is no report at all is bad input
    doing("hashing the files and computing what follows from other numbers")
    found = verify_report(asked.path, public_key=asked.public_key, inputs=asked.inputs)
    rest()
    _print_checks(asked.path, found, asked.as_json)
    if not found.holds:
        lines = "; ".join(f"{check.name}: {check.line}" for check in found.failed[:3])
        raise EvidenceError(f"the report does not hold: {_clean(lines)}")


def render(asked: Render) -> None:
    """Draw a report into a folder."""
    check_folder(asked.output, None)
    data, record = read_report(asked.path)
    drawings = {}
    for form in dict.fromkeys(asked.forms):
        doing(f"drawing {DRAWINGS[form]}")
        drawings[DRAWINGS[form]] = _drawn(record, form, asked.path)
    rest()
    for name in {DRAWINGS["text"], DRAWINGS["markdown"]} & drawings.keys():
        drawings[name] += drawn_from(data)
    add_drawings(asked.output, data, drawings, force=asked.force)
    note(f"wrote {', '.join(drawings)} to {asked.output}")
    files = [FileHash.of(name, content) for name, content in drawings.items()]
    paths = "\n".join(str(asked.output / name) for name in drawings)
    print_either(paths, Drawn(path=str(asked.path), folder=str(asked.output), files=files), asked.as_json)


def sign(asked: Sign) -> None:
    """Sign a report."""
    read_report(asked.path)  # nobody should sign what is no report
    beside = signature.sign(asked.path, asked.signing_key)
    made = signature.read_signature(beside)
    say(f"wrote {beside}, by the key {made.public_key}")
    signed = {"sha256": made.sha256, "public_key": made.public_key}
    result = ReportSigned(path=str(asked.path), signature_path=str(beside), **signed)
    print_either(made.public_key, result, asked.as_json)


def keygen(asked: SigningKey) -> None:
    """Make a key that signs."""
    beside = signature.write_signing_key(asked.path)
    public = signature.load_public_key(beside).hex()
    say(f"wrote {asked.path}, which is secret, and {beside}, which whoever checks your reports needs")
    result = SigningKeyMade(path=str(asked.path), public_path=str(beside), public_key=public)
    print_either(public, result, asked.as_json)


def _drawn(record: Report, form: str, path: Path) -> bytes:
    try:
        drawn = _DRAW[form](story_of(record))
    except (ArithmeticError, ValueError) as error:
        if verify_report(path).holds:  # the fault is ours
            raise
        raise EvidenceError(
            f"there are numbers in the report that no run writes, and that can't be drawn ({type(error).__name__}): "
            "dyetrace report verify says which don't hold"
        ) from None
    return drawn if isinstance(drawn, bytes) else drawn.encode()


def _print_checks(path: Path, found: Verification, as_json: bool) -> None:
    if as_json:
        print_result(ReportChecked(path=str(path), holds=found.holds, checks=list(found.checks)))
        return
    for check in found.checks:
        click.echo(f"{check.outcome:<9}{check.name}: {_clean(check.line)}")


def _clean(text: str) -> str:
    return clean(text, 400)
