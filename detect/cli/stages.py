"""How far each stage of a scan is."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime

from detect.cli.working import doing, is_watched, note
from detect.corpus.run_times import RunTimes

_STAGES = {
    "find": "looking for files",
    "hash": "hashing files",
    "gather": "reading and encoding",
    "settle": "finding repeats",
    "score": "scoring",
    "locate": "locating the mark",
    "conclude": "computing p-values, decoys and shares",
}
_BESIDE = {"control": " of the control corpus", "reference": " of the reference"}
_UNITS = {"hash": "bytes", "gather": "bytes", "settle": "tuples", "locate": "files"}


class StageProgress:
    """How far each stage is, as `detect.cli.working` shows it; a line a stage for logs, and times for run.json."""

    def __init__(self) -> None:
        self._started = self._begun = time.time()
        self._stage: str | None = None
        self._seconds: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take down how far a stage is, as `detect.corpus.scan.Progress` has it."""
        if stage != self._stage:
            self._stage, self._begun = stage, time.time()
        corpus, _, own = stage.rpartition(": ")
        label = _STAGES[own] + _BESIDE.get(corpus, "")
        doing(label, done, total, _UNITS.get(own, "tokens") if total else "")
        if corpus or not total:
            return
        seconds = max(time.time() - self._begun, 1e-3)
        self._seconds[stage] = seconds
        if done == total and not is_watched():
            unit = {"hash": "MB/s", "gather": "MB/s", "locate": "M/s"}.get(stage, "Mtokens/s")
            note(f"{label}: done in {seconds:.1f} s ({done / seconds / 1e6:.1f} {unit})")

    def summary(self, engine: str) -> RunTimes:
        """What run.json says: times and place of this run, which are no part of the evidence."""
        return RunTimes(
            started=datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            seconds=round(time.time() - self._started, 3),
            stages={stage: round(seconds, 3) for stage, seconds in self._seconds.items()},
            engine=engine,
            host=platform.node(),
        )
