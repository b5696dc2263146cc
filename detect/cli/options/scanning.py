"""The options of the command that scans whole corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from detect.cli.declaring import argument, option
from detect.cli.options.shared import (
    Committed,
    Decoys,
    Drawn,
    Printed,
    Quoting,
    Reporting,
    Tested,
    Working,
    alpha_option,
    tokenizer_option,
)


class Scan(Tested, Decoys, Committed, Drawn, Printed, Reporting, Quoting, Working, runs="scanning:scan"):
    """Scan a corpus for the mark: PATHS are files, folders or globs of JSONL (.gz, .zst), Parquet, text, or Hugging
    Face data sets. A scan that was stopped goes on when the same command is given again.

    Give all the text that there is: documents that were picked with the key look marked without being so. What else the
    answer assumes stands at the end of the report.

    \b
    Example: dyetrace scan data/ --spec spec.json --key file:owner.key -o evidence/
             dyetrace scan 'crawl/*.jsonl.zst' --spec spec.json --key file:owner.key --on-error skip -o evidence/
    """

    paths: tuple[str, ...] = argument(metavar="PATHS...")
    spec_paths: tuple[Path, ...] = option(
        "--spec",
        required=True,
        help="The watermark to look for; repeat it for several epochs.  [e.g. --spec epoch1.json --spec epoch2.json]",
    )
    output: Path = option("-o", "--output", help="Folder for the report.  [e.g. -o evidence/]")
    tokenizer: str | None = tokenizer_option(", for text; by default the demo model's")
    form: Literal["auto", "jsonl", "json", "csv", "warc", "tar", "parquet", "arrow", "text"] = option(
        "--format",
        default="auto",
        help="What the files are; auto goes by their first bytes and their names.  [e.g. --format jsonl]",
    )
    fields: tuple[str, ...] = option(
        "--field",
        help="Field or column to read: text, chats, lists of texts or token ids, also within others (a.b or "
        "choices.*.text). May be repeated: documents of several fields stay apart. By default answers are looked for, "
        "and what is chosen is said first.  [e.g. --field response]",
    )
    id_field: str | None = option("--id-field", help="Field with the record's own id.  [e.g. --id-field uuid]")
    roles: tuple[str, ...] = option(
        "--role",
        default=("assistant",),
        help="Whose turns of chats are read; 'assistant' stands for its usual names too. May be repeated.  "
        "[e.g. --role assistant --role user]",
    )
    leave_out: tuple[Literal["reasoning", "tools"], ...] = option(
        "--leave-out",
        help="What of these turns is not read: their reasoning, or the arguments of calls of tools. Both are read by "
        "default, each by itself; may be repeated.  [e.g. --leave-out reasoning]",
    )
    on_error: Literal["stop", "skip"] = option(
        "--on-error",
        default="stop",
        help="What to do at a broken line or file; skipped ones are counted and listed.  [e.g. --on-error skip]",
    )
    limit: int | None = option(
        "--limit", type=click.IntRange(1), help="Only the first N documents of each file.  [e.g. --limit 1000]"
    )
    sample: float = option("--sample", default=1.0, help="Share of the documents to scan.  [e.g. --sample 0.1]")
    alpha: float = alpha_option(
        "Family-wise false-positive rate of 'found' over all keys, and of documents that point to a key over all "
        "documents and keys."
    )
    rate: float = option(
        "--fdr", default=0.05, help="False-discovery rate of the list of documents.  [e.g. --fdr 0.01]"
    )
    reference: tuple[str, ...] = option(
        "--reference",
        help="Text that is known to be marked, such as your own answers: with it the marked share of tokens has an "
        "upper limit.  [e.g. --reference answers.jsonl]",
    )
    null_corpus: tuple[str, ...] = option(
        "--null-corpus",
        default=("natural",),
        help="Text that is known not to be marked, tested as a control: if it is marked, no answer is given. 'natural' "
        "is the prose that comes with dyetrace (for text alone), 'none' leaves it out.  "
        "[e.g. --null-corpus wiki.jsonl]",
    )
    engine: Literal["local", "ray", "datatrove"] = option(
        "--engine", default="local", help="What runs the work: processes here, or a cluster.  [e.g. --engine ray]"
    )
    address: str | None = option(
        "--address", help="With --engine ray: the cluster; by default one on this machine.  [e.g. --address auto]"
    )
    workers: int | None = option(
        "--workers", type=click.IntRange(1), help="Parallel workers; by default one a core.  [e.g. --workers 8]"
    )
    work: Path | None = option(
        "--work",
        help="Folder in which dyetrace makes one for intermediate results (.dyetrace-scan, about 10 bytes a token), "
        "which all workers must share; by default OUTPUT. Only what dyetrace has made there is ever removed.  "
        "[e.g. --work /scratch]",
    )
    keep_work: bool = option(
        "--keep-work", help="Leave it there, for a quick scan with other keys.  [e.g. --keep-work]"
    )
    dry_run: bool = option("--dry-run", help="Say what the scan would cost and could find, and stop.  [e.g. --dry-run]")

    def before(self) -> None:
        """Start what workers are forked from: it gets ready while this process loads its own packages."""
        if self.engine == "local" and not self.dry_run:
            from detect.corpus.engines.forkserver import start_early

            start_early()
