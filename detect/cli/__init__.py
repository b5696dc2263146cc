"""The `dyetrace` command. Each command parses its options, calls one function of the packages and prints its result.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

from typing import Any

import click

from detect.cli.common import EXIT_BAD_INPUT
from detect.cli.detection import demo, detect, recompute
from detect.cli.ledger import ledger
from detect.cli.marking import commit, generate, keygen, spec, verify_commitment
from detect.cli.planning import plan
from detect.cli.reports import report
from detect.cli.scanning import scan
from detect.cli.serving import serve_check
from detect.cli.tracing import trace
from watermark.errors import DyetraceError


class _Group(click.Group):
    """Turns every `DyetraceError` into one line on stderr and exit status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DyetraceError as error:
            click.echo(f"dyetrace: {' '.join(str(error).split())}", err=True)
            ctx.exit(EXIT_BAD_INPUT)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dyetrace")
def main() -> None:
    """Watermark what a language model says; prove later where it went.

    \b
    dyetrace demo                                       the whole job on a real model
    dyetrace keygen owner.key                           a secret key
    dyetrace spec spec.json --key file:owner.key        what both sides must agree on
    dyetrace generate --spec spec.json --key file:owner.key --prompts prompts.txt
    dyetrace detect suspect.jsonl --spec spec.json --key file:owner.key
    dyetrace scan corpus/ --spec spec.json --key file:owner.key -o evidence/
    dyetrace trace weights suspect/ --read answers.jsonl --spec spec.json --key file:owner.key -o evidence/
    """


for command in (
    keygen,
    spec,
    commit,
    verify_commitment,
    generate,
    detect,
    demo,
    scan,
    plan,
    trace,
    recompute,
    report,
    ledger,
    serve_check,
):
    main.add_command(command)
