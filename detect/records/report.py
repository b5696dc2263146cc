"""What the records of all kinds hold."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import msgspec

from detect.records.assumptions import Assumption
from detect.records.made import Made

_PACKAGES = ("dyetrace", "numpy", "numba", "scipy", "tokenizers", "gigatoken", "torch", "transformers")


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the records of all kinds hold.

    Attributes
    ----------
    format, version
        What kind of report it is, and of which version.
    created
        When it was made, in UTC by the maker's clock; "" in older reports that don't say.
    versions
        Of what computed it.
    alpha
        The level of its answers, in (0, 1).
    assumptions
        What the answers rest on, and which of it this run looked at.
    made
        Who made it, and with which code; null in older reports.
    how_to_check
        How somebody else checks this report, a whole sentence or more each; the page says the same. Empty in older
        reports.
    """

    format: str
    version: int
    created: str
    versions: dict[str, str]
    alpha: float
    assumptions: list[Assumption] = []
    made: Made | None = None
    how_to_check: list[str] = []


def versions() -> dict[str, str]:
    """Versions of what computes here."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
