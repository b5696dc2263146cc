"""The plots of a detection report: small, without scripts, and drawn from numbers alone (see `svg`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from detect.records.written import format_p
from detect.report.paper import svg

_DOTS = 400  # documents drawn one by one; of more, an even selection
_GOLDEN = 0.6180339887498949
_OUTSIDE = 0.05  # chance that sound decoys leave the shaded area


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
