"""Results for programs: the --json option of all commands, and how its one document is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from detect.cli.common import option

if TYPE_CHECKING:
    import msgspec

json_option = option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result as one JSON document on standard output (its form: `dyetrace schema`).  [e.g. --json]",
)


def print_result(result: msgspec.Struct, *, one_line: bool = False) -> None:
    """Print a result as JSON, fields in the order in which they are documented.

    Raises
    ------
    DyetraceError
        A number is not finite, which JSON doesn't have.
    """
    from detect.records.reading import portable, printed

    click.echo(printed(portable(result), one_line=one_line).decode(), nl=False)


def print_either(line: str, result: msgspec.Struct, as_json: bool) -> None:
    """Print one line for people, or the result for programs."""
    if as_json:
        print_result(result)
    else:
        click.echo(line)
