"""The commands that trace the mark into a student model."""

from __future__ import annotations

import click

from detect.cli.declaring import command
from detect.cli.options.trace import TraceEndpoint, TracePlanning, TraceWeights


@click.group()
def trace() -> None:
    """Prove that a model was trained on marked outputs: from its weights, or through its endpoint.

    \b
    Example: dyetrace trace weights ./suspect --read answers.jsonl --spec spec.json --key file:owner.key -o evidence/
    """


trace.add_command(command(TraceWeights, "weights"))
trace.add_command(command(TracePlanning, "plan"))
trace.add_command(command(TraceEndpoint, "api"))
