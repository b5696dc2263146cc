"""Reports without their date and their maker, which alone differ between two runs of the same command."""

from __future__ import annotations

import json

TOLD = ("created", "made", "how_to_check")
"""Fields that say when, by whom and with which code; the last one names the code's hash."""


def undated(report: bytes) -> bytes:
    """The bytes of a report.json without those fields, all others as they stand and in their order."""
    fields = json.loads(report)
    assert all(name in fields for name in TOLD)
    return json.dumps({name: value for name, value in fields.items() if name not in TOLD}).encode()
