"""`dyetrace demo`: the whole job on a real model."""

from __future__ import annotations

from detect.cli.options.detection import Demo
from detect.cli.publishing import publish
from detect.cli.working import doing, note
from detect.demo import finish_demo, is_unfinished, run_demo
from detect.interruption import leaves


def demo(asked: Demo) -> None:
    """Run the demo and show its report."""
    leaves(
        lambda: (
            f"{asked.output} holds an unfinished demo, which the same command begins anew"
            if is_unfinished(asked.output)
            else "nothing was written; run the same command again"
        )
    )

    def tell(step: str) -> None:
        doing(step.strip())
        note(step)

    record = run_demo(asked.output, asked.scheme, tell)
    try:
        publish(record, asked.output, asked.as_json)
    finally:
        finish_demo(asked.output)
