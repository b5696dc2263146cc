"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from detect.cli import working
from detect.cli.declaring import Options, option
from detect.cli.statuses import FOUND, UNDECIDED
from detect.laws.level import DEFAULT_ALPHA
from watermark.errors import DyetraceError

SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 0.1, 86_400.0

KEY_HELP = (
    "Where the secret key is: file:PATH, env:NAME or cmd:COMMAND (any command that prints it). "
    "Never give the key itself: other users see process arguments."
)


class Printed(Options):
    """A result for programs."""

    as_json: bool = option(
        "--json",
        help="Print the result as one JSON document on standard output (its form: `dyetrace schema`).  [e.g. --json]",
    )


class Working(Options):
    """A command that takes its time, and tells what it is doing."""

    quiet: bool = option("--quiet", help="Say nothing on standard error but errors and warnings.  [e.g. --quiet]")

    def run(self) -> None:
        """Run, and tell what is being done."""
        with working.Working(self.quiet):
            super().run()


class Keyed(Options):
    """The secret key."""

    key: str = option("--key", help=f"{KEY_HELP}  [e.g. --key file:owner.key]")


class Tested(Options):
    """Under which keys a mark is looked for."""

    key: str = option("--key", help=f"{KEY_HELP} A tenant's own key serves as well.  [e.g. --key file:owner.key]")
    tenants: tuple[str, ...] = option(
        "--tenant", help="An account to test; may be repeated.  [e.g. --tenant acme --tenant zenith]"
    )
    tenants_file: Path | None = option(
        "--tenants-file", help="Accounts to test, one a line.  [e.g. --tenants-file accounts.txt]"
    )


class Decoys(Options):
    """The decoy keys beside them."""

    decoys: int = option(
        "--decoys", default=100, help="Decoy keys that the same test runs under.  [e.g. --decoys 1000]"
    )
    decoy_seed: str = option(
        "--decoy-seed", default="dyetrace", help="Public seed of the decoy keys.  [e.g. --decoy-seed 2026-11]"
    )


class Committed(Options):
    """A commitment that goes on record."""

    commitment_path: Path | None = option(
        "--commitment", help="The published commitment, to put on record.  [e.g. --commitment commitment.json]"
    )


class Reporting(Options):
    """Of commands that make reports: by whom, what for, over which others, and how they end."""

    examiner: str | None = option(
        "--examiner",
        help="Who makes the report: a line of plain text that it bears. No number depends on it.  "
        "[e.g. --examiner 'N. N., Institute of Dyes']",
    )
    case: str | None = option(
        "--case",
        help="What the report is made for: a line of plain text that it bears. No number depends on it.  "
        "[e.g. --case '2026/7']",
    )
    force: bool = option(
        "--force",
        help="Replace the report in OUTPUT even if it is signed or of another kind; files that are no report's stay.  "
        "[e.g. --force]",
    )
    fail: bool = option(
        "--fail",
        help=f"End with status {FOUND.number} when the mark is found, and with {UNDECIDED.number} when no verdict is "
        "given, as where a control failed.  [e.g. --fail]",
    )


class Drawn(Options):
    """A report that is drawn as a PDF as well."""

    pdf: bool = option("--pdf/--no-pdf", default=True, help="Write report.pdf as well.  [e.g. --no-pdf]")


class Quoting(Options):
    """A report that quotes what it is about."""

    no_quotes: bool = option(
        "--no-quotes",
        help="Leave every passage of the suspect's texts out of the report, and the ids of its records; hashes, places "
        "and numbers stay, so that it can be recomputed all the same.  [e.g. --no-quotes]",
    )


def _seconds(_context: click.Context, parameter: click.Parameter, value: float) -> float:
    """A time that a request may take."""
    if not SHORTEST_TIMEOUT <= value <= LONGEST_TIMEOUT:
        raise DyetraceError(
            f"--{parameter.name} must lie between {SHORTEST_TIMEOUT:g} and {LONGEST_TIMEOUT:,.0f} seconds "
            f"(got {value:g})"
        )
    return value


class Asking(Options):
    """Of commands that ask an endpoint; they differ in how many requests they send at once."""

    api_key_source: str | None = option(
        "--api-key",
        help="Where the endpoint's API key is: file:PATH, env:NAME or cmd:COMMAND; none where it wants none.  "
        "[e.g. --api-key env:MY_API_KEY]",
    )
    api_key_header: str | None = option(
        "--api-key-header",
        metavar="NAME",
        help="The header that the API key goes into as it is, such as api-key at Azure; by default it is sent as a "
        "bearer token (Authorization).  [e.g. --api-key-header api-key]",
    )
    timeout: float = option(
        "--timeout",
        default=120.0,
        callback=_seconds,
        help="Seconds that one request may take, to the last byte of its answer. An endpoint that takes requests and "
        "never answers ends the command after --timeout times --attempts, and the pauses in between.  "
        "[e.g. --timeout 300]",
    )
    attempts: int = option(
        "--attempts",
        type=click.IntRange(1, 100),
        default=6,
        help="How often a request is tried that was not answered, throttled (429) or met a failing endpoint (5xx); "
        "pauses grow up to a minute, or are as long as the endpoint asks for. Where nobody can be reached at the "
        "start, the command ends at once.  [e.g. --attempts 12]",
    )


class Settings(Options):
    """Of commands whose requests can do without a setting that an endpoint refuses."""

    leave_out: tuple[Literal["temperature", "top_p", "max_tokens"], ...] = option(
        "--leave-out",
        help="A setting that no request is to have, where the endpoint refuses it; the server's own holds then. "
        "max_tokens leaves out the limit under either name. May be repeated.  [e.g. --leave-out top_p]",
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] | None = option(
        "--limit-field",
        help="What the endpoint calls the most tokens of an answer; by default max_tokens, or the other where that is "
        "refused by name.  [e.g. --limit-field max_completion_tokens]",
    )


def concurrency_option(most: int) -> int:
    """How many requests at once, a field of `Asking` commands."""
    declared: int = option(
        "--concurrency",
        type=click.IntRange(1, 1024),
        default=most,
        help="Most requests at once; fewer where the endpoint is throttled or slow.  [e.g. --concurrency 8]",
    )
    return declared


def spec_option(what: str = "The watermark to look for.") -> Path:
    """The spec, as a field."""
    declared: Path = option("--spec", help=f"{what}  [e.g. --spec spec.json]")
    return declared


def tokenizer_option(what: str = "; by default the demo model's") -> str | None:
    """The tokenizer of the spec, as a field."""
    told = f"Model folder or tokenizer.json of the spec{what}.  [e.g. --tokenizer ./my-model]"
    declared: str | None = option("--tokenizer", help=told)
    return declared


def alpha_option(of: str) -> float:
    """The level of a test, as a field."""
    declared: float = option("--alpha", default=DEFAULT_ALPHA, help=f"{of}  [e.g. --alpha 1e-3]")
    return declared


def dtype_option(of: str) -> str:
    """The number format of a model, as a field."""
    declared: str = option(
        "--dtype",
        type=click.Choice(["bfloat16", "float16", "float32"]),
        default="bfloat16",
        help=f"{of}  [e.g. --dtype float32]",
    )
    return declared


def force_option(what: str) -> bool:
    """Leave to replace an output that is there already and is of the same kind, and no other file; as a field."""
    declared: bool = option(
        "--force",
        help=f"Replace an existing {what} at the output's path; any other file there is refused.  [e.g. --force]",
    )
    return declared
