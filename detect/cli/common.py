"""What the commands share: options, messages, and reading keys, names and models as they are given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detect.cli.statuses import FOUND, UNDECIDED
from watermark.errors import DyetraceError, MachineError

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


class _Told:
    """Whether the command that runs in this process was asked to say nothing but errors and warnings."""

    quiet = False


@contextlib.contextmanager
def silence(quiet: bool) -> Iterator[None]:
    """A block in which notes are dropped."""
    before, _Told.quiet = _Told.quiet, quiet
    try:
        yield
    finally:
        _Told.quiet = before


def note(message: str) -> None:
    """Tell people what is being done or was made, unless they asked for silence (--quiet)."""
    if not _Told.quiet:
        say(message)


def load_ring(source: str, made: WatermarkSpec, tenants: tuple[str, ...], *, counted: bool = False) -> KeyRing:
    """The keys that this party holds: a master key gives any tenant's, a tenant's key gives its own."""
    from detect.keyed.rings import rings_of

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
    from detect.records.made import label

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


quiet_option = option(
    "--quiet", is_flag=True, help="Say nothing on standard error but errors and warnings.  [e.g. --quiet]"
)


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
    from detect.text.artefacts import check_text

    check_text(path, "--tenants-file")  # a key's text must not be taken for names, which messages repeat
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DyetraceError(f"cannot read tenants file {path}: {reason}") from None
    if not names:
        raise DyetraceError(f"--tenants-file {path} names no account; write one a line, or leave it out")
    return names


def required(value: str | None, message: str) -> str:
    """The value, or one line that says what is missing."""
    if value is None:
        raise DyetraceError(message)
    return value


def model_folder(model_dir: str | None) -> Any:
    """The given folder, or the demo model's, which is fetched when it isn't there yet."""
    if model_dir is not None:
        return model_dir
    from watermark.models.demo import demo_model_dir

    try:
        return demo_model_dir(note)
    except MachineError as error:
        raise MachineError(f"{error}{_own_model()}") from None


def _own_model() -> str:
    """By which option of the running command another model than the demo's is given, if there is one."""
    context = click.get_current_context(silent=True)
    names = {name for p in (context.command.params if context else ()) for name in p.opts}
    return next((f" ({name})" for name in ("--tokenizer", "--model") if name in names), "")


def load_model(model_dir: str | None, dtype: str) -> tuple[Any, Any]:
    """Model and tokenizer of a folder, or of the demo model."""
    from watermark.models.folder import load_model as load

    note("loading the model")
    return load(model_folder(model_dir), dtype, note)
