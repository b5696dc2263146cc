"""Find a watermark in suspect text, and prove it with an exact false-positive rate.

This is the public surface. Importing it loads nothing else; each name loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detect.corpus.settings import ScanSettings as ScanSettings
    from detect.detector import Detector as Detector
    from detect.document.aware import aware_test as aware_test
    from detect.document.blind import BlindTest as BlindTest
    from detect.document.blind import blind_test as blind_test
    from detect.document.detection import Model as Model
    from detect.document.detection import Settings as Settings
    from detect.document.detection import detect as detect
    from detect.laws.tails import log10_sf as log10_sf
    from detect.laws.tails import log10_sf_many as log10_sf_many
    from detect.race.job import RaceJob as RaceJob
    from detect.readers.suspects import Suspect as Suspect
    from detect.readers.suspects import read_suspects as read_suspects
    from detect.records.detection import Record as Record
    from detect.result import DetectionResult as DetectionResult
    from detect.result import RaceResult as RaceResult
    from detect.result import ScanResult as ScanResult
    from detect.result import TraceResult as TraceResult
    from detect.result import TwinResult as TwinResult
    from detect.result import read_report as read_report
    from detect.running import scan as scan
    from detect.running import trace_endpoint as trace_endpoint
    from detect.running import trace_race as trace_race
    from detect.running import trace_twins as trace_twins
    from detect.running import trace_weights as trace_weights
    from detect.student.open_weights import WeightsJob as WeightsJob
    from detect.text.distinct import distinct_tuples as distinct_tuples
    from detect.text.encode import Encoder as Encoder

DISTRIBUTION = "dyetrace"
"""Tells this package from others of its name: `watermark` looks for it."""

_HOMES = {
    "BlindTest": "detect.document.blind",
    "DetectionResult": "detect.result",
    "Detector": "detect.detector",
    "Encoder": "detect.text.encode",
    "Model": "detect.document.detection",
    "RaceJob": "detect.race.job",
    "RaceResult": "detect.result",
    "Record": "detect.records.detection",
    "ScanResult": "detect.result",
    "ScanSettings": "detect.corpus.settings",
    "Settings": "detect.document.detection",
    "Suspect": "detect.readers.suspects",
    "TraceResult": "detect.result",
    "TwinResult": "detect.result",
    "WeightsJob": "detect.student.open_weights",
    "aware_test": "detect.document.aware",
    "blind_test": "detect.document.blind",
    "detect": "detect.document.detection",
    "distinct_tuples": "detect.text.distinct",
    "log10_sf": "detect.laws.tails",
    "log10_sf_many": "detect.laws.tails",
    "read_report": "detect.result",
    "read_suspects": "detect.readers.suspects",
    "scan": "detect.running",
    "trace_endpoint": "detect.running",
    "trace_race": "detect.running",
    "trace_twins": "detect.running",
    "trace_weights": "detect.running",
}
__all__ = list(_HOMES)

if not TYPE_CHECKING:  # type checkers read the imports above, and so still see misspelt names

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def _refuse_foreign_watermark() -> None:
    """Raise ImportError where `watermark` is another distribution's package."""
    import watermark

    if getattr(watermark, "DISTRIBUTION", None) != DISTRIBUTION:
        where = getattr(watermark, "__file__", None) or list(getattr(watermark, "__path__", ()))
        raise ImportError(
            f"the package 'watermark' found in {where} is not dyetrace's own: another distribution of that name, "
            "or a folder or file of yours, stands in its way; install dyetrace in a virtual environment of its own"
        )


def _begin_early() -> None:
    """Take signals over in ``python -m detect.cli``, which loads all of the command line before it runs any of it."""
    import sys

    if sys.argv[:1] == ["-m"] and "detect.cli" in sys.orig_argv:
        from detect.interruption import begin

        begin()


_refuse_foreign_watermark()
_begin_early()
