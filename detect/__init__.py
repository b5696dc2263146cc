"""Find a watermark in suspect text, and prove it with an exact false-positive rate.

This is the public surface. Importing it loads nothing else; each name loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detect.aware import aware_test as aware_test
    from detect.detection import Model as Model
    from detect.detection import Settings as Settings
    from detect.detection import detect as detect
    from detect.distinct import distinct_tuples as distinct_tuples
    from detect.document import BlindTest as BlindTest
    from detect.document import blind_test as blind_test
    from detect.encode import Encoder as Encoder
    from detect.evidence import Record as Record
    from detect.inputs import Suspect as Suspect
    from detect.inputs import read_suspects as read_suspects
    from detect.tails import log10_sf as log10_sf
    from detect.tails import log10_sf_many as log10_sf_many

DISTRIBUTION = "dyetrace"
"""Tells this package from others of its name: `watermark` looks for it."""

_HOMES = {
    "BlindTest": "detect.document",
    "Encoder": "detect.encode",
    "Model": "detect.detection",
    "Record": "detect.evidence",
    "Settings": "detect.detection",
    "Suspect": "detect.inputs",
    "aware_test": "detect.aware",
    "blind_test": "detect.document",
    "detect": "detect.detection",
    "distinct_tuples": "detect.distinct",
    "log10_sf": "detect.tails",
    "log10_sf_many": "detect.tails",
    "read_suspects": "detect.inputs",
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
