"""How a result is printed: for programs, which asked for it by --json, as one document."""

from __future__ import annotations

import click
import msgspec

from detect.records.reading import portable, printed


def print_result(result: msgspec.Struct, *, one_line: bool = False) -> None:
    """Print a result as JSON, fields in the order in which they are documented.

    Raises
    ------
    DyetraceError
        A number is not finite, which JSON doesn't have.
    """
    click.echo(printed(portable(result), one_line=one_line).decode(), nl=False)


def print_either(line: str, result: msgspec.Struct, as_json: bool) -> None:
    """Print one line for people, or the result for programs."""
    if as_json:
        print_result(result)
    else:
        click.echo(line)
