"""The plots of a test by twins, drawn from numbers and cleaned names (see `svg`)."""

from __future__ import annotations

from markupsafe import Markup

from detect.records.twins import TwinRecord
from detect.records.written import clean
from detect.report.paper import svg
from detect.report.paper.plots import START, Bar, bars, growth, short

MEASURES = 8


def evidence(record: TwinRecord, ident: str) -> Markup | None:
    """Draw the evidence after so many pairs; None where there is no curve."""
    return growth(record.curve, record.alpha, "pairs", ident, "sign test")


def measures(record: TwinRecord, ident: str) -> Markup | None:
    """Draw in what share of the pairs that differ each number spoke for the served twin, beside a half."""
    shown = [found for found in record.measures[:MEASURES] if found.wins + found.losses]
    if not shown:
        return None
    end = svg.WIDTH - 64  # a note of eight letters stands behind the longest bar

    def place(share: float) -> float:
        return START + (end - START) * share

    drawn: list[Bar] = []
    for i, found in enumerate(shown):
        note = f"{found.wins:,} to {found.losses:,}"
        drawn.append((short(found.name), place(found.wins / (found.wins + found.losses)), not i, note))
    said = "; ".join(f"{clean(found.name, 60)} {found.wins:,} to {found.losses:,}" for found in shown)
    text = f"Pairs in which each number spoke for the delivered answer and for the withheld one: {said}."
    ticks = [(place(share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)]
    axis = "share of pairs for the delivered answer"
    return bars(ident, "What each number says", text, drawn, ticks, axis, place(0.5))
