"""The plots of a race readout, drawn from numbers and cleaned names (see `svg`)."""

from __future__ import annotations

import math

from markupsafe import Markup

from detect.records.race import RaceRecord
from detect.records.written import clean, format_e
from detect.report.paper import svg
from detect.report.paper.plots import START, Bar, bars, few, growth, short
from detect.report.race.wording import label, share, strongest

KEYS = 6
LIT = 8
_NOTE = 64  # room of a note behind the longest bar


def evidence(record: RaceRecord, ident: str) -> Markup | None:
    """Draw the evidence after so many places; None where there is no curve."""
    return growth(record.curve, record.alpha, "places", ident)


def hits(record: RaceRecord, ident: str) -> Markup | None:
    """Draw for each key in what share of its places the suspect hit, and by chance; None where no hits are known."""
    shown = [found for found in strongest(record)[:KEYS] if found.cuts and found.expected > 0]
    if not shown:
        return None
    most = max(max(found.hits, found.expected) / found.cuts for found in shown)
    step = svg.step(max(0.01, most))
    top = step * math.ceil(max(0.01, most) / step)
    end = svg.WIDTH - _NOTE

    def place(part: float) -> float:
        return START + (end - START) * part / top

    drawn: list[Bar] = []
    for found in shown:
        name = short(label(found))
        drawn.append((name, place(found.hits / found.cuts), True, share(found.hits, found.cuts)))
        drawn.append(("by chance", place(found.expected / found.cuts), False, share(found.expected, found.cuts)))
    said = "; ".join(
        f"{clean(label(found), 60)} {share(found.hits, found.cuts)}, by chance {share(found.expected, found.cuts)}"
        for found in shown
    )
    text = f"Share of each key's places in which the suspect said what the key chose: {said}."
    ticks = [(place(value), f"{value:.0%}") for value in svg.ticks(step, top)]
    return bars(ident, "Hits against chance", text, drawn, ticks, "share of places with a hit")


def lit(record: RaceRecord, ident: str) -> Markup | None:
    """Draw the e-values of the answers that stand out most; None where none does."""
    shown = record.lit[:LIT]
    if not shown:
        return None
    most = max(1.0, shown[0].log10_evalue)
    step = few(most)
    top = step * math.ceil(most / step)
    end = svg.WIDTH - _NOTE

    def place(log10_e: float) -> float:
        return START + (end - START) * max(0.0, log10_e) / top

    drawn: list[Bar] = [
        (short(one.name), place(one.log10_evalue), True, svg.power(math.floor(10 * one.log10_evalue) / 10))
        for one in shown
    ]
    said = "; ".join(f"{clean(one.name, 60)} {format_e(one.log10_evalue)}" for one in shown)
    ticks = [(place(value), svg.power(value)) for value in svg.ticks(step, top)]
    return bars(ident, "Answers that stand out", f"E-values of single answers: {said}.", drawn, ticks, "e-value")
