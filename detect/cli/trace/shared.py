"""What the commands that trace share: checks before the work."""

from __future__ import annotations

from detect.cli.working import say
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
