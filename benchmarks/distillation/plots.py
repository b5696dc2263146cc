"""The experiment's plots: -log10 p against contexts, one plot for each student, in one page without outside parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from detect.report.paper.svg import (
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    axis_title_x,
    axis_title_y,
    circle,
    figure,
    label,
    line,
    polyline,
    tick_x,
    tick_y,
    unit,
)
from watermark.files.writing import write_atomically

Points = Sequence[tuple[float, float]]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
_STYLE = """body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 1rem }
svg { width: 100% } svg text { font-size: 11px; fill: currentColor } .axis-title { font-size: 12px }
.grid { stroke: #8884; stroke-width: 1 } .target { stroke: #888; stroke-dasharray: 4 3 }
figure { margin: 0 } figcaption { font-weight: 600 }
""" + "".join(
    f".c{i} {{ stroke: {c}; fill: none; stroke-width: 2 }} .d{i} {{ fill: {c} }}\n" for i, c in enumerate(_COLOURS)
)
_LEAST, _MOST = 0.1, 3000.0  # -log10 p that is shown


@dataclass(frozen=True)
class Plot:
    """One student's: name of each test -> (contexts, log10 p)."""

    title: str
    series: Mapping[str, Points]


def drawn(plot: Plot, number: int) -> Markup:
    """Both axes are logarithmic; a dashed line stands at log10 p = -10."""
    points = [point for some in plot.series.values() for point in some]
    low, high = min((x for x, _ in points), default=1.0), max((x for x, _ in points), default=10.0)
    bottom, span = math.log10(low), max(0.1, math.log10(high) - math.log10(low))
    tall = math.log10(_MOST / _LEAST)

    def place(x: float, log10_p: float) -> tuple[float, float]:
        y = min(max(-log10_p, _LEAST), _MOST)
        return unit((math.log10(x) - bottom) / span, math.log10(y / _LEAST) / tall)

    body = []
    for value in (0.1, 1, 10, 100, 1000):
        body.append(tick_y(place(low, -value)[1], f"{value:g}"))
    for power in range(math.ceil(bottom), math.floor(bottom + span) + 1):
        body.append(tick_x(place(10.0**power, -1)[0], f"{10**power:,}"))
    y = place(low, -10)[1]
    body.append(line(LEFT, y, WIDTH - 18, y, "target"))
    for i, (name, some) in enumerate(plot.series.items()):
        at = [place(*point) for point in some]
        body.append(polyline(at, f"c{i % 5}"))
        body += [circle(*point, 2, f"d{i % 5}") for point in at]
        body.append(label(LEFT + 6, TOP + 12 + 13 * i, str(escape(name)), "start", f"d{i % 5}"))
    body += [axis_title_x("contexts"), axis_title_y("&minus;log10 p")]
    return figure(f"p{number}", plot.title, "Evidence against the number of contexts, by test", body, HEIGHT)


def write_page(path: Path, title: str, plots: Sequence[Plot]) -> None:
    """Write all plots as one page."""
    figures = "".join(
        f"<figure><figcaption>{escape(plot.title)}</figcaption>{drawn(plot, number)}</figure>"
        for number, plot in enumerate(plots)
    )
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    page = f"{head}<h1>{escape(title)}</h1><main>{figures}</main></html>\n"
    write_atomically(path, page.encode())
