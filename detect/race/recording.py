"""The end of a race readout: from what was heard to the record, and all of it to the report's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from detect.race.evidence import RaceEvidence
from detect.race.job import RaceJob
from detect.race.served import ServedText
from detect.records.made import Made
from detect.records.race import RaceRecord, SamplingSeen
from detect.records.trace import ModelSeen, PlanSeen, Queries
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec


def write_report(
    output: Path,
    evidence: RaceEvidence,
    spec: WatermarkSpec,
    ring: KeyRing,
    tokenizer: Any,
    *,
    job: RaceJob,
    mode: Literal["weights", "api"],
    served: ServedText,
    cuts: int,
    suspect: ModelSeen,
    owner: ModelSeen,
    sampling: SamplingSeen,
    plan: PlanSeen | None = None,
    queries: Queries | None = None,
    early: bool = False,
    objection: str | None = None,
    made: Made | None = None,
) -> RaceRecord:
    """Conclude from the evidence, and write it and the record to ``output``."""
    raise NotImplementedError
