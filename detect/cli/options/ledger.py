"""The options of the commands for what a server keeps of its answers, and of the one that prints schemas."""

from __future__ import annotations

from pathlib import Path

from detect.cli.declaring import argument, option
from detect.cli.options.shared import Printed


class LedgerInfo(Printed, runs="ledger:info"):
    """Say what LEDGER is of, how much it has counted and how noisy its counts are by now; no key is needed.

    \b
    Example: dyetrace ledger info served.ledger
    """

    path: Path = argument(metavar="LEDGER")


class LedgerHashes(Printed, runs="ledger:hashes"):
    """Print a SHA-256 for each of the served ANSWERS (JSONL), with its account: a list to keep when they are served,
    by which a trace shows that it read all of them (--complete). It holds no text.

    \b
    Example: dyetrace ledger hashes answers.jsonl > served.sha256
    """

    answers: Path = argument(metavar="ANSWERS")


class LedgerMerge(Printed, runs="ledger:merge"):
    """Add up the ledgers of several servers of one spec, key and size, and print the new one's SHA-256; no key is
    needed, and servers may go on.

    \b
    Example: dyetrace ledger merge server-1.ledger server-2.ledger -o served.ledger
    """

    paths: tuple[Path, ...] = argument(metavar="LEDGER...")
    output: Path = option(
        "-o", "--output", help="The new ledger; an existing file is never overwritten.  [e.g. -o served.ledger]"
    )


class Schema(Printed, runs="schemas:schema"):
    """Print the JSON Schema NAME; without NAME, print the names of all schemas. Those of documents (detection, scan,
    spec, ...) describe files and reports, "result-" and a command's words what this command prints with --json.

    \b
    Example: dyetrace schema
             dyetrace schema scan > scan-schema.json
    """

    name: str | None = argument()
