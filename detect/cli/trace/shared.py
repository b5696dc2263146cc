"""What the commands that trace share: checks before the work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from detect.cli.options.trace import TraceEndpoint
from detect.cli.unused import refuse_unused
from detect.cli.working import say
from detect.student.asking.budget import Budgets
from detect.student.texts.served import crowding
from detect.text.artefacts import check_text
from watermark.errors import DyetraceError
from watermark.models.given import NoBaseError, find_model


def tighter_budgets(asked: TraceEndpoint, planned: Budgets) -> Budgets:
    """The budgets of one run, which must be tighter than the plan's own."""
    for name, tighter, own in (
        ("max_requests", asked.max_requests, planned.requests),
        ("max_total_tokens", asked.max_total_tokens, planned.tokens),
    ):
        looser = own is not None and tighter is not None and tighter >= own
        refuse_unused(name, looser, f"the plan's own budget is {own:,}" if own else "")
    return Budgets(requests=asked.max_requests, tokens=asked.max_total_tokens)


def check_models(folders: Iterable[Path], base: Path | None) -> None:
    """Refuse what is no model that can be read, and a --base of no adapter, before any work."""
    adapters = 0
    for folder in folders:
        try:
            adapters += find_model(folder, base).adapter is not None
        except NoBaseError as error:
            raise DyetraceError(f"{error}; or name its base model with --base") from None
    refuse_unused("base", not adapters, "none of the models is an adapter")


def check_served(served: str | None, tenant: str | None) -> None:
    """Refuse an account of no answers, and say where a ledger is too full to tell much."""
    if served is not None:
        check_text(served, "--served", ledger=True)

    if tenant is not None and served is None:
        raise DyetraceError("--served-tenant says whose answers of --served count: give --served, or leave it out")
    if (told := crowding(served)) is not None:
        say(f"warning: {told}")
