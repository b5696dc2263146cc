"""What the commands that trace share: checks before the work, and the report after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from detect.cli.options.trace import TraceEndpoint, TraceWeights
from detect.cli.publishing import check_pdf, end_by_verdict, publish
from detect.cli.working import say
from detect.folders.published import TRACE_FORMAT, Unwritten, check_folder
from detect.records.reading import encode_record
from detect.records.trace import TraceRecord
from detect.report.paper.page import page
from detect.report.paper.pdf import pdf
from detect.report.paper.terminal import print_story
from detect.report.trace.story import story
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

    def drawn(_: Path) -> dict[str, bytes]:
        told = story(record)
        return {"report.html": page(told).encode()} | ({"report.pdf": pdf(told)} if asked.pdf else {})

    data = encode_record(record)
    publish(asked.output, data, drawn, lambda console: print_story(story(record), console), asked.as_json, failed)
    if asked.fail:
        end_by_verdict(record.found, record.refused)
