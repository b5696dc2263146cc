"""The options of the commands for private ledgers of twins."""

from __future__ import annotations

from pathlib import Path

from detect.cli.declaring import Options, argument, option
from detect.cli.options.shared import KEY_HELP, Printed

_LEDGER = "LEDGER"


class TwinKeyed(Options):
    """The owner's twin key."""

    twin_key: str = option(
        "--twin-key", help=f"The twin key, which the ledger is encrypted under. {KEY_HELP}  [e.g. --twin-key env:TWINS]"
    )


class TwinsInfo(Printed, runs="twins:info"):
    """Say what LEDGER holds: how many pairs, of which months and, with the twin key, of which accounts; the last hash
    of its chain and its Merkle root. Every hash of the chain is computed anew.

    \b
    Example: dyetrace twins info twins.ledger
             dyetrace twins info twins.ledger --twin-key file:twins.key --json
    """

    path: Path = argument(metavar=_LEDGER)
    twin_key: str | None = option(
        "--twin-key", help=f"The twin key, to name accounts. {KEY_HELP}  [e.g. --twin-key file:twins.key]"
    )


class TwinsCommit(TwinKeyed, Printed, runs="twins:commit"):
    """Commit to all pairs of LEDGER and to their coins: publish the output before a suspect is asked. Prints the
    commitment's Merkle root. The opening beside it holds the coin key: keep it.

    \b
    Example: dyetrace twins commit twins.ledger --twin-key file:twins.key -o twins.json
    """

    path: Path = argument(metavar=_LEDGER)
    output: Path = option(
        "-o",
        "--output",
        help="Where the public commitment goes; the opening goes beside it as NAME.opening.  [e.g. -o twins.json]",
    )


class TwinsReveal(TwinKeyed, Printed, runs="twins:reveal"):
    """Write pairs of LEDGER whole to a file for an expert, with the way from each to the Merkle root. PAIR_ID is as
    reports and `dyetrace twins export` name it. Prints the file's SHA-256.

    \b
    Example: dyetrace twins reveal twins.ledger PAIR_ID --twin-key file:twins.key --commitment twins.json -o shown.json
    """

    path: Path = argument(metavar=_LEDGER)
    ids: tuple[str, ...] = argument(metavar="PAIR_ID...")
    commitment_path: Path | None = option(
        "--commitment",
        help="The published commitment whose root it is to be; by default that of the ledger as it is now.  "
        "[e.g. --commitment twins.json]",
    )
    output: Path = option("-o", "--output", help="Where the pairs go, readable by you alone.  [e.g. -o shown.json]")


class TwinsVerify(Printed, runs="twins:verify"):
    """Check that the pairs in REVEAL were among those committed to, and that each was served as its coin says. It needs
    no key.

    \b
    Example: dyetrace twins verify shown.json --commitment twins.json
    """

    path: Path = argument(metavar="REVEAL")
    commitment_path: Path = option("--commitment", help="The published commitment.  [e.g. --commitment twins.json]")
    opening_path: Path | None = option(
        "--opening",
        help="The commitment's opening, where the owner handed it over: every coin is then tossed anew.  "
        "[e.g. --opening twins.json.opening]",
    )


class TwinsExport(TwinKeyed, Printed, runs="twins:export"):
    """Write the pairs of LEDGER in clear, as JSON lines, for an expert. Prints the file's SHA-256.

    \b
    Example: dyetrace twins export twins.ledger --twin-key file:twins.key --account acme -o pairs.jsonl
    """

    path: Path = argument(metavar=_LEDGER)
    account: str | None = option("--account", help="Only the pairs of this account.  [e.g. --account acme]")
    output: Path = option(
        "-o",
        "--output",
        help="Where the pairs go, readable by you alone; an existing file is never overwritten.  [e.g. -o pairs.jsonl]",
    )


class TwinsErase(TwinKeyed, Printed, runs="twins:erase"):
    """Erase pairs of LEDGER for good, by deleting the keys that they are encrypted under: those of an account, those of
    all months that ended before a date, or with both options those that both mean. Hashes stay, so that commitments
    and reports of before still hold. Delete LEDGER.keys from backups as well. A server may go on writing.

    \b
    Example: dyetrace twins erase twins.ledger --twin-key file:twins.key --account acme
             dyetrace twins erase twins.ledger --twin-key file:twins.key --before 2026-01-01 --yes
    """

    path: Path = argument(metavar=_LEDGER)
    account: str | None = option("--account", help="The account whose pairs go.  [e.g. --account acme]")
    older: str | None = option(
        "--before", help="Pairs of all months that ended before this date go.  [e.g. --before 2026-01-01]"
    )
    yes: bool = option("--yes", help="Do not ask.  [e.g. --yes]")
