"""A race readout of a suspect whose weights are at hand: it reads every served answer as the owner's model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detect.models.bench import Progress
from detect.race.job import RaceJob
from detect.records.made import Made
from detect.records.race import RaceRecord
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec


def trace_race_weights(
    job: RaceJob,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    output: Path,
    *,
    made: Made | None = None,
    progress: Progress | None = None,
) -> RaceRecord:
    """Let a suspect read served answers; write race.npz and report.json to ``output``."""
    raise NotImplementedError
