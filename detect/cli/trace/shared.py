"""What the commands that trace share: checks before the work, and the report after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from detect.cli.options.trace import TraceEndpoint, TraceWeights
from detect.cli.publishing import check_pdf, end_by_verdict, publish
from detect.cli.working import say
from detect.folders.published import TRACE_FORMAT, Unwritten, check_folder
from detect.records.trace import TraceRecord
from detect.student.texts.served import crowding
from detect.text.artefacts import check_text
from watermark.errors import DyetraceError


def check_served(served: str | None, tenant: str | None) -> None:
    """Refuse an account of no answers, and say where a ledger is too full to tell much."""
    if served is not None:
        check_text(served, "--served", ledger=True)

    if tenant is not None and served is None:
        raise DyetraceError("--served-tenant says whose answers of --served count: give --served, or leave it out")
    if (told := crowding(served)) is not None:
        say(f"warning: {told}")


def check_output(output: Path, pdf: bool, inputs: Sequence[str | Path | None], force: bool) -> None:
    """Find before the work what would come in the way of the report after it."""
    if pdf:
        check_pdf()
    check_folder(output, TRACE_FORMAT, inputs=[path for path in inputs if path is not None], force=force)


def report(asked: TraceWeights | TraceEndpoint, trace: Callable[[], TraceRecord]) -> None:
    """Trace, write the pages of the report and show it."""
    failed = None
    try:
        record = trace()
    except Unwritten as error:
        record, failed = error.record, error
    publish(record, asked.output, asked.as_json, pdf=asked.pdf, failed=failed)
    if asked.fail:
        end_by_verdict(record.found, record.refused)
