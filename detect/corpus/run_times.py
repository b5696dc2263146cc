"""What run.json beside a scan's report holds: times and place of the run, which are no part of the evidence."""

from __future__ import annotations

from typing import Literal

import msgspec


class RunTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of a scan went; the same report may have had another.

    Attributes
    ----------
    format, version
        What this is.
    started
        UTC, by this machine's clock.
    seconds
        From then to the last stage's end.
    stages
        Seconds of each stage by its name.
    engine
        "local", "ray" or "datatrove".
    host
        The machine's name.
    """

    format: Literal["dyetrace-scan-run"] = "dyetrace-scan-run"
    version: int = 1
    started: str
    seconds: float
    stages: dict[str, float]
    engine: str
    host: str
