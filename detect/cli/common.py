"""What the commands share: options, messages, and reading keys, names and models as they are given."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detect.cli.statuses import FOUND, UNDECIDED
from watermark.errors import DyetraceError

if TYPE_CHECKING:
    from watermark.keys import KeyRing
    from watermark.spec import WatermarkSpec

SECONDS_BETWEEN_LINES = 30.0
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 0.1, 86_400.0

KEY_HELP = (
    "Where the secret key is: file:PATH, env:NAME or cmd:COMMAND (any command that prints it). "
    "Never give the key itself: other users see process arguments."
)


def option(*names: str, **options: Any) -> Callable[[Any], Any]:
    """`click.option` that shows its default where it has one."""
    options.setdefault("show_default", options.get("default") is not None)
    return click.option(*names, **options)


def say(message: str) -> None:
    """Tell people; standard output stays for results. Where nobody can be told, the work goes on all the same."""
    with contextlib.suppress(OSError):
        click.echo(message, err=True)


def load_ring(source: str, made: WatermarkSpec, tenants: tuple[str, ...], *, counted: bool = False) -> KeyRing:
    """The keys that this party holds: a master key gives any tenant's, a tenant's key gives its own."""
    from detect.corpus.keys import rings_of

    return rings_of(source, [made], tenants, counted=counted)[0]


# Options that `detect` and `scan` share.
tested_key = option(
    "--key",
    required=True,
    help=f"{KEY_HELP} A tenant's own key serves as well.  [e.g. --key file:owner.key]",
)
tenant_names = option(
    "--tenant",
    "tenants",
    multiple=True,
    help="An account to test; may be repeated.  [e.g. --tenant acme --tenant zenith]",
)
tenants_in_file = option(
    "--tenants-file",
    type=click.Path(path_type=Path),
    help="Accounts to test, one a line.  [e.g. --tenants-file accounts.txt]",
)
decoy_count = option(
    "--decoys", type=int, default=100, help="Decoy keys that the same test runs under.  [e.g. --decoys 1000]"
)
decoy_public_seed = option(
    "--decoy-seed", default="dyetrace", help="Public seed of the decoy keys.  [e.g. --decoy-seed 2026-11]"
)
commitment_on_record = option(
    "--commitment",
    "commitment_path",
    type=click.Path(path_type=Path),
    help="The published commitment, to put on record.  [e.g. --commitment commitment.json]",
)
fail_when_found = option(
    "--fail",
    is_flag=True,
    help=f"End with status {FOUND.number} when the mark is found, and with {UNDECIDED.number} when no verdict is "
    "given, as where a control failed.  [e.g. --fail]",
)


def _label(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A line that goes into a report as it stands."""
    from detect.made import label

    return None if value is None else label(value, f"--{parameter.name}")


# Options of all commands that make reports.
examiner_name = option(
    "--examiner",
    callback=_label,
    help="Who makes the report: a line of plain text that it bears. No number depends on it.  "
    "[e.g. --examiner 'N. N., Institute of Dyes']",
)
case_text = option(
    "--case",
    callback=_label,
    help="What the report is made for: a line of plain text that it bears. No number depends on it.  "
    "[e.g. --case '2026/7']",
)
without_quotes = option(
    "--no-quotes",
    is_flag=True,
    help="Leave every passage of the suspect's texts out of the report, and the ids of its records; hashes, places and "
    "numbers stay, so that it can be recomputed all the same.  [e.g. --no-quotes]",
)


def _seconds(_context: click.Context, parameter: click.Parameter, value: float) -> float:
    """A time that a request may take."""
    if not SHORTEST_TIMEOUT <= value <= LONGEST_TIMEOUT:
        raise DyetraceError(
            f"--{parameter.name} must lie between {SHORTEST_TIMEOUT:g} and {LONGEST_TIMEOUT:,.0f} seconds "
            f"(got {value:g})"
        )
    return value


# Options of all commands that ask an endpoint.
request_timeout = option(
    "--timeout",
    type=float,
    default=120.0,
    callback=_seconds,
    help="Seconds that one request may take, to the last byte of its answer. An endpoint that takes requests and never "
    "answers ends the command after --timeout times --attempts, and the pauses in between.  [e.g. --timeout 300]",
)
request_attempts = option(
    "--attempts",
    type=click.IntRange(1, 100),
    default=6,
    help="How often a request is tried that was not answered, throttled (429) or met a failing endpoint (5xx); pauses "
    "grow up to a minute, or are as long as the endpoint asks for. Where nobody can be reached at the start, the "
    "command ends at once.  [e.g. --attempts 12]",
)


def request_concurrency(most: int) -> Callable[[Any], Any]:
    """How many requests at once; commands differ in their default."""
    return option(
        "--concurrency",
        type=click.IntRange(1, 1024),
        default=most,
        help="Most requests at once; fewer where the endpoint is throttled or slow.  [e.g. --concurrency 8]",
    )


quiet_option = option("--quiet", is_flag=True, help="Say nothing on standard error but errors.  [e.g. --quiet]")


def force_option(what: str) -> Callable[[Any], Any]:
    """Leave to replace an output that is there already and is of the same kind, and no other file."""
    return option(
        "--force",
        is_flag=True,
        help=f"Replace an existing {what} at the output's path; any other file there is refused.  [e.g. --force]",
    )


def absolute_source(key: str) -> str:
    """A key source whose file is found from any folder: workers may run elsewhere."""
    kind, separator, path = key.partition(":")
    return f"file:{Path(path).absolute()}" if kind == "file" and separator else key


def read_names(path: Path | None) -> list[str]:
    """Accounts from a file, one a line."""
    if path is None:
        return []
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DyetraceError(f"cannot read tenants file {path}: {reason}") from None


def required(value: str | None, message: str) -> str:
    """The value, or one line that says what is missing."""
    if value is None:
        raise DyetraceError(message)
    return value


def model_folder(model_dir: str | None) -> Any:
    """The given folder, or the demo model's, which is fetched when it isn't there yet."""
    if model_dir is not None:
        return model_dir
    from watermark.demo_model import demo_model_dir

    return demo_model_dir(say)


def load_model(model_dir: str | None, dtype: str, quiet: bool = False) -> tuple[Any, Any]:
    """Model and tokenizer of a folder, or of the demo model."""
    from watermark.demo_model import load_model as load

    if quiet:
        return load(model_dir, dtype)
    say("loading the model")
    return load(model_dir, dtype, say)


class progress_bar:
    """How far a command is, on standard error: a bar where people watch, else a line every 30 seconds.

    Parameters
    ----------
    label
        What is being done: "answering".
    length
        How many steps there are; calling what the block is given moves on by one.
    done
        Steps that an earlier run did.
    quiet
        Whether to say nothing at all.
    """

    def __init__(self, label: str, length: int, done: int = 0, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._lines = not quiet and not console.is_terminal
        self._bar = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._task = self._bar.add_task(label, total=length, completed=done)
        self._label, self._length, self._done = label, length, done
        self._over = threading.Event()
        self._since = time.monotonic()

    def __enter__(self) -> Callable[[], None]:
        self._bar.start()
        if self._lines:
            threading.Thread(target=self._tell, name="dyetrace-progress", daemon=True).start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._bar.stop()

    def _advance(self) -> None:
        self._done += 1
        self._bar.advance(self._task)

    def _tell(self) -> None:
        """From a thread of its own, since one step alone may take minutes."""
        while not self._over.wait(SECONDS_BETWEEN_LINES):
            minutes, seconds = divmod(round(time.monotonic() - self._since), 60)
            say(f"{self._label}: {self._done:,} of {self._length:,} done after {minutes}:{seconds:02} minutes")
