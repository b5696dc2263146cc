"""Plots that several kinds of reports share: small, without scripts, from numbers and cleaned names (see `svg`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from detect.records.trace import CurvePoint
from detect.records.written import clean, format_p
from detect.report.paper import svg

_DOTS = 400  # documents drawn one by one; of more, an even selection
_GOLDEN = 0.6180339887498949
_OUTSIDE = 0.05  # chance that sound decoys leave the shaded area
_NAME = 26  # characters of a name in a plot
_ROW = 34  # height of a row with its name above
START = 20.0  # where bars begin


def decoy_curve(log10_decoys: Sequence[float], log10_true: float | None, ident: str) -> Markup:
    """Draw the decoys' sorted p-values against the diagonal that chance gives, with the true key's marked."""
    n = len(log10_decoys)
    p_values = sorted(min(1.0, 10.0**x) for x in log10_decoys)
    points = [(0.0, 0.0)]
    for i, p in enumerate(p_values):
        points += [(p, i / n), (p, (i + 1) / n)]
    points.append((1.0, 1.0))
    # Dvoretzky, Kiefer, Wolfowitz and Massart, one-sided: uniform p-values leave the area with chance <= _OUTSIDE.
    slack = math.sqrt(math.log(1 / _OUTSIDE) / (2 * n))
    area = [(0.0, 0.0), (0.0, min(1.0, slack)), (max(0.0, 1 - slack), 1.0), (1.0, 1.0), (1.0, 0.0)]
    body = [
        svg.polygon([svg.unit(*point) for point in area], "area"),
        svg.line(*svg.unit(0, 0), *svg.unit(1, 1), "chance"),
        *(svg.tick_x(svg.unit(x, 0)[0], f"{x:g}") for x in (0, 0.25, 0.5, 0.75, 1)),
        *(svg.tick_y(svg.unit(0, y)[1], f"{y:g}") for y in (0, 0.25, 0.5, 0.75, 1)),
        svg.polyline([svg.unit(*point) for point in points], "decoys"),
        *_true_key(log10_true, lambda log10_p: svg.unit(min(1.0, 10.0**log10_p), 1)),
        svg.axis_title_x("p-value"),
        svg.axis_title_y("share of decoys at or below"),
    ]
    below = sum(p <= 0.05 for p in p_values)
    text = (
        f"Cumulative share of {n} decoy keys by p-value, beside the diagonal of chance. "
        f"{below} of {n} are at or below 0.05. The true key's p-value: {format_p(log10_true)}."
    )
    return svg.figure(ident, "Decoy p-values against chance", text, body)


def decoy_strip(log10_decoys: Sequence[float], log10_true: float | None, ident: str) -> Markup:
    """Draw every key on the scale of log10 p: how far the true key stands from the decoys."""
    end = min(-4.0, log10_true or 0.0, *log10_decoys)
    step = svg.step(-end)
    end = -step * math.ceil(-end * 1.04 / step)

    def x(log10_p: float) -> float:
        return svg.LEFT + svg.PLOT_WIDTH * log10_p / end

    middle = svg.TOP + svg.PLOT_HEIGHT * 0.08
    dots = [
        svg.circle(x(p), svg.TOP + svg.PLOT_HEIGHT * (0.3 + 0.6 * ((i * _GOLDEN) % 1)), 2.6, "decoy-dot")
        for i, p in enumerate(log10_decoys)
    ]
    body = [
        *(svg.tick_x(x(-value), svg.power(-value)) for value in svg.ticks(step, -end)),
        svg.across(svg.HEIGHT - svg.BOTTOM, "axis"),
        *dots,
        *_true_key(log10_true, lambda log10_p: (x(log10_p), middle)),
        svg.label(svg.LEFT - 8, svg.TOP + svg.PLOT_HEIGHT * 0.57, f"{len(log10_decoys)}", "end"),
        svg.label(svg.LEFT - 8, svg.TOP + svg.PLOT_HEIGHT * 0.57 + 12, "decoys", "end"),
        svg.axis_title_x("p-value, smaller to the right"),
    ]
    text = (
        f"The true key's p-value: {format_p(log10_true)}; "
        f"the smallest of {len(log10_decoys)} decoys is {format_p(min(log10_decoys))}."
    )
    return svg.figure(ident, "True key and decoys on a logarithmic scale", text, body)


def document_plot(results: Sequence[tuple[float, bool]], alpha: float, ident: str) -> Markup:
    """Draw the documents' log10 p-values from the strongest on.

    Parameters
    ----------
    results
        (log10 p, whether the mark was found) of each document that was not refused.
    alpha
        Level of the test; the line that the strongest document must cross is at alpha over their number.
    ident
        Prefix of the ids inside the plot.
    """
    ordered = sorted(results)
    n = len(ordered)
    threshold = math.log10(alpha / n)
    highest = max(-ordered[0][0], -threshold) * 1.08
    step = svg.step(highest)
    top = step * math.ceil(highest / step)

    def place(i: int, log10_p: float) -> tuple[float, float]:
        return svg.LEFT + svg.PLOT_WIDTH * (i + 0.5) / n, svg.TOP + svg.PLOT_HEIGHT * (1 + log10_p / top)

    drawn = list(range(n)) if n <= _DOTS else sorted({*range(_DOTS // 2), *range(0, n, -(-n * 2 // _DOTS))})
    chance = [place(i, math.log10((i + 0.5) / n)) for i in drawn]
    line = place(0, threshold)[1]
    body = [
        *(svg.tick_y(place(0, -value)[1], svg.power(-value)) for value in svg.ticks(step, top)),
        svg.across(svg.HEIGHT - svg.BOTTOM, "axis"),
        svg.polyline(chance, "chance"),
        svg.across(line, "limit"),
        svg.label(svg.WIDTH - svg.RIGHT, line - 5, "needed by the strongest", "end"),
        *(svg.circle(*place(i, ordered[i][0]), 3.0, "found-dot" if ordered[i][1] else "unfound-dot") for i in drawn),
        *(svg.tick_x(place(i, 0)[0], f"{i + 1:,}") for i in sorted({0, n // 2, n - 1})),
        svg.axis_title_x("documents, strongest first"),
        svg.axis_title_y("p-value, smaller upward"),
    ]
    found = sum(hit for _, hit in ordered)
    text = f"P-values of {n} documents from the smallest up; the mark was found in {found}."
    return svg.figure(ident, "P-values of all documents", text, body)


def _true_key(log10_p: float | None, place: Callable[[float], tuple[float, float]]) -> list[str]:
    """Mark the true key with a line to the axis, and label it on the side that has room."""
    if log10_p is None:
        return []
    x, y = place(log10_p)
    right = x < svg.LEFT + svg.PLOT_WIDTH * 0.7
    label = svg.label(x + 9 if right else x - 9, y + 4, "true key", "start" if right else "end", "true-label")
    return [svg.line(x, y, x, svg.HEIGHT - svg.BOTTOM, "true"), svg.diamond(x, y), label]


def growth(points: Sequence[CurvePoint], alpha: float, unit: str, ident: str, exact: str = "p-value") -> Markup | None:
    """Draw evidence as it grew: p-values, inverse e-values, and the level; None where there is no curve.

    Parameters
    ----------
    points
        After so many of what was read or asked.
    alpha
        Level of the test.
    unit
        What the points count: "answers".
    ident
        Prefix of the ids inside the plot.
    exact
        What the p-values are called.
    """
    if not points:
        return None
    level = -math.log10(alpha)
    ps = [(p.count, -p.log10_pvalue) for p in points if p.log10_pvalue is not None]
    es = [(p.count, max(0.0, p.log10_evalue)) for p in points]
    highest = max(level, *(y for _, y in ps + es)) * 1.08
    step = svg.step(highest)
    top, last = step * math.ceil(highest / step), points[-1]
    end = max(1, last.count)

    def place(count: float, y: float) -> tuple[float, float]:
        return svg.unit(count / end, y / top)

    line = place(0, level)[1]
    body = [
        *(svg.tick_y(place(0, value)[1], svg.power(-value)) for value in svg.ticks(step, top)),
        svg.across(line, "limit"),
        svg.label(svg.WIDTH - svg.RIGHT, line - 5, "level of the report", "end"),
        svg.polyline((place(*point) for point in es), "by-e"),
        svg.polyline((place(*point) for point in ps), "by-p") if ps else "",
        svg.across(svg.HEIGHT - svg.BOTTOM, "axis"),
        *(svg.tick_x(place(count, 0)[0], f"{count:,.0f}") for count in svg.ticks(few(end), end)),
        svg.axis_title_x(f"{unit}, in the order in which they came"),
        svg.axis_title_y("p-value, smaller upward"),
    ]
    for i, (name, kind) in enumerate([*([(exact, "by-p")] if ps else []), ("1 / e-value", "by-e")]):
        x = svg.LEFT + 4 + 90 * i
        body += [svg.polyline([(x, 6), (x + 22, 6)], kind), svg.label(x + 28, 10, name, "start")]
    ends = f"{exact} {format_p(last.log10_pvalue)}, " if last.log10_pvalue is not None else ""
    text = (
        f"Evidence after so many {unit}, up to {last.count:,}: at the end {ends}inverse of the e-value "
        f"{format_p(min(0.0, -last.log10_evalue))}; the level is {format_p(math.log10(alpha))}."
    )
    return svg.figure(ident, "Evidence as it grew", text, body)


def few(end: float) -> float:
    """A distance of ticks for at most four numbers with commas side by side."""
    step = svg.step(end)
    return step if end / step <= 4 else svg.step(end * 2)


Bar = tuple[str, float | None, bool, str]
"""The name above a bar, where it ends, if there is one, whether it is the one that counts, and a note at its end."""
Ticks = list[tuple[float, str]]
"""Places in the drawing and what stands at them."""


def bars(
    ident: str, title: str, text: str, given: Sequence[Bar], ticks: Ticks, axis: str, level: float | None = None
) -> Markup:
    """Draw bars from left to right; ends, ticks and the dashed ``level`` are places in the drawing."""
    floor = 12.0 + _ROW * len(given)
    body = [svg.line(x, 6, x, floor, "grid") for x, _ in ticks]
    for i, (name, end, own, note) in enumerate(given):
        y = 8 + _ROW * i
        body.append(svg.label(START + 3, y + 11, name, "start"))
        if end is not None:
            body.append(svg.rectangle(START, y + 16, end, y + 26, "found-bar" if own else "bar"))
        body.append(svg.label((end or START) + 5, y + 25, note, "start"))
        if level is not None:
            body.append(svg.line(level, y + 13, level, y + 29, "limit"))
    body += [
        svg.line(START, 6, START, floor, "axis"),
        *(svg.label(x, floor + 15, tick, "middle") for x, tick in ticks),
        svg.label((START + svg.WIDTH - svg.RIGHT) / 2, floor + 33, axis, "middle", "axis-title"),
    ]
    return svg.figure(ident, title, text, body, floor + 40)


def short(name: str) -> str:
    """A name, cleaned, cut and escaped."""
    name = clean(name)
    return str(escape(name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"))
