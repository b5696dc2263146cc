"""The options of the commands that test documents one by one, show that, and compute reports anew."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from detect.cli.declaring import argument, option
from detect.cli.options.shared import (
    Committed,
    Decoys,
    Keyed,
    Printed,
    Quoting,
    Reporting,
    Tested,
    Working,
    alpha_option,
    spec_option,
    tokenizer_option,
)


class Detect(Tested, Decoys, Committed, Printed, Reporting, Quoting, Working, runs="detection:detect"):
    """Test the documents of FILE for the mark: a plain text, or records of any form that `dyetrace scan` reads (JSONL,
    JSON, CSV, WARC, Parquet, ...).

    Give all the text that there is: documents that were picked with the key look marked without being so. What else the
    answer assumes stands at the end of the report.

    \b
    Example: dyetrace detect suspect.jsonl --spec spec.json --key file:owner.key -o evidence/
             cat essay.txt | dyetrace detect - --spec spec.json --key file:owner.key --json --fail
    """

    source: str = argument(metavar="FILE|-")
    spec_path: Path = spec_option()
    output: Path | None = option(
        "-o", "--output", help="Folder for report.json, report.html and report.pdf.  [e.g. -o evidence/]"
    )
    tokenizer: str | None = tokenizer_option("; by default --model's, or the demo model's")
    format: Literal["auto", "text", "jsonl", "json", "csv", "warc", "tar", "parquet", "arrow"] = option(
        "--format", default="auto", help="What FILE holds; auto goes by what is in it.  [e.g. --format jsonl]"
    )
    text_field: str = option(
        "--text-field",
        default="text",
        help="Field that holds the text. Where the usual one is missing, another is chosen as by `scan`, and named.  "
        "[e.g. --text-field response]",
    )
    from_text: bool = option(
        "--from-text",
        help="Encode the text anew even where a record has token ids, as for a real suspect.  [e.g. --from-text]",
    )
    aware: bool = option(
        "--aware",
        help="Test with the owner's model as well (--model; by default the demo model). It must never have learnt from "
        "text that is marked with this key.  [e.g. --aware]",
    )
    model: str | None = option("--model", help="The owner's model folder, for --aware.  [e.g. --model ./my-model]")
    alpha: float = alpha_option(
        "Family-wise false-positive rate of 'found' over all documents, and of naming a key over all documents and "
        "keys."
    )
    limit: int | None = option(
        "--limit", type=click.IntRange(1), help="Only the first N documents.  [e.g. --limit 100]"
    )
    pdf: bool | None = option(
        "--pdf/--no-pdf",
        help="Write report.pdf as well; by default where typst, which sets it, is installed.  [e.g. --no-pdf]",
    )


class Demo(Printed, Working, runs="demo:demo"):
    """Mark a real model's answers, hide them among natural text, find them again; under 4 minutes on 2 cores.

    \b
    Example: dyetrace demo
    """

    output: Path = option(
        "-o", "--output", default=Path("dyetrace-demo"), help="Folder for the demo's files.  [e.g. -o demo/]"
    )
    scheme: Literal["gumbel", "tournament", "green_list"] = option(
        "--scheme", default="gumbel", help="The scheme to show.  [e.g. --scheme tournament]"
    )


class Recompute(Keyed, Printed, Working, runs="recompute:recompute"):
    """Compute REPORT (a report.json of a detection, a scan or a trace) anew, and compare all numbers. An account's own
    key gives the part that concerns this account.

    \b
    Example: dyetrace recompute evidence/report.json --key file:owner.key
    """

    report: Path = argument()
    tokenizer: str | None = tokenizer_option()
    inputs: Path | None = option(
        "--inputs",
        help="Folder with the files that were read; by default relative names are looked for from here, and from the "
        "report's folder and those above it.  [e.g. --inputs data/]",
    )
