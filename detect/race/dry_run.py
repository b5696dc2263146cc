"""What a race readout through an endpoint would take, without asking: requests, tokens, and evidence by its chances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detect.records.results import RaceForecast
from detect.student.asking.budget import Budgets
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def dry_run(
    plan_path: Path,
    read: str,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Tokenizer,
    output: Path | None = None,
    *,
    budgets: Budgets | None = None,
) -> RaceForecast:
    """Say what `trace_race_endpoint` would take with the same arguments; replies in ``output`` are paid for already.

    Raises
    ------
    DyetraceError
        As for the readout itself.
    """
    raise NotImplementedError
