"""The options of the commands that check, draw and sign reports."""

from __future__ import annotations

from pathlib import Path

import click

from detect.cli.declaring import argument, option
from detect.cli.options.shared import Printed, Working

DRAWINGS = {"html": "report.html", "markdown": "report.md", "pdf": "report.pdf", "text": "report.txt"}


class Verify(Printed, Working, runs="reports:verify"):
    """Check REPORT (a report.json) without any key: signature, files, inputs, and all numbers that follow from others.

    \b
    Example: dyetrace report verify evidence/report.json --inputs data/ --public-key owner.pub
    """

    path: Path = argument(metavar="REPORT")
    inputs: Path | None = option(
        "--inputs", help="Folder with the files that were read, to compare their SHA-256.  [e.g. --inputs data/]"
    )
    public_key: Path | None = option(
        "--public-key",
        help="Who must have signed it: a PEM file, or 64 hex digits in a file.  [e.g. --public-key owner.pub]",
    )


class Render(Printed, Working, runs="reports:render"):
    """Draw REPORT (a report.json of any kind) as a page, a PDF, Markdown or plain text, and print the drawings' paths.

    \b
    Example: dyetrace report render evidence/report.json -o evidence/ --format html --format pdf
    """

    path: Path = argument(metavar="REPORT")
    output: Path = option("-o", "--output", help="Folder for what is drawn.  [e.g. -o evidence/]")
    forms: tuple[str, ...] = option(
        "--format",
        default=("html",),
        type=click.Choice(sorted(DRAWINGS)),
        help="What to draw; may be repeated.  [e.g. --format html --format pdf]",
    )
    force: bool = option(
        "--force",
        help="Replace drawings in OUTPUT that lie there without their report.json; other files stay.  [e.g. --force]",
    )


class Sign(Printed, runs="reports:sign"):
    """Sign REPORT (a report.json) with Ed25519, and print the public key; the signature goes beside REPORT, into
    report.json.sig.

    \b
    Example: dyetrace report sign evidence/report.json --signing-key file:owner.pem
    """

    path: Path = argument(metavar="REPORT")
    signing_key: str = option(
        "--signing-key",
        help="Where the private key is: file:PATH, env:NAME or cmd:COMMAND (any command that prints it). "
        "Never give the key itself: other users see process arguments.  [e.g. --signing-key file:owner.pem]",
    )


class SigningKey(Printed, runs="reports:keygen"):
    """Make a key for signing reports at PATH, readable by you alone, and its public key at PATH.pub; print the latter
    in hex.

    \b
    Example: dyetrace report keygen owner.pem
    """

    path: Path = argument()
