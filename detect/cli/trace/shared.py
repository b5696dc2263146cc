"""What the commands that trace share: checks before the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detect.cli.publishing import check_pdf
from detect.cli.working import say
from detect.folders.published import TRACE_FORMAT, check_folder
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
