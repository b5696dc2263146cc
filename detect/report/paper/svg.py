"""Pieces of the plots: strings of inline SVG, made from numbers, fixed words and escaped text.

Colours come from the page's style sheet (classes), so that light, dark and printed pages all work. Every
plot is 360 units wide: it stands unscaled on a phone and two stand side by side on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup, escape

from detect.records.written import clean

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 14, 40
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def figure(ident: str, title: str, description: str, body: Iterable[str], height: float = HEIGHT) -> Markup:
    """Put a plot together: ``ident`` is the prefix of the ids inside it, the two texts say what is seen."""
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{escape(clean(title))}</title><desc id="{ident}-d">{escape(clean(description))}</desc>'
        f"{''.join(body)}</svg>"
    )


def unit(x: float, y: float) -> tuple[float, float]:
    """Place a point of the unit square."""
    return LEFT + PLOT_WIDTH * x, TOP + PLOT_HEIGHT * (1 - y)


def step(span: float, parts: int = 6) -> float:
    """Choose a distance of ticks that ``span`` holds at most ``parts`` times: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(span / parts))
    return next(factor * power for factor in (1, 2, 5, 10) if span <= parts * factor * power * (1 + 1e-9))


def ticks(step: float, end: float) -> list[float]:
    """Multiples of ``step`` from 0 to ``end``."""
    return [i * step for i in range(math.floor(end / step + 1e-9) + 1)]


def power(exponent: float) -> str:
    """Write 10 to a power, as the inside of a text element."""
    if exponent == 0:
        return "1"
    sign = "&minus;" if exponent < 0 else ""
    return f'10<tspan class="up" dy="-4">{sign}{abs(exponent):g}</tspan>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of a class."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def polyline(points: Iterable[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def polygon(points: Iterable[tuple[float, float]], kind: str) -> str:
    """A filled area."""
    return f'<polygon class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def rectangle(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A filled rectangle between two corners, the second right of and below the first."""
    size = f'width="{max(0.0, x2 - x1):.1f}" height="{max(0.0, y2 - y1):.1f}"'
    return f'<rect class="{kind}" x="{x1:.1f}" y="{y1:.1f}" {size}/>'


def circle(x: float, y: float, radius: float, kind: str) -> str:
    """A dot."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def diamond(x: float, y: float) -> str:
    """The mark of the true key."""
    return polygon([(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)], "true-mark")


def label(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    """Text that is fixed or escaped already."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def across(y: float, kind: str) -> str:
    """A level line from one side of the plot to the other."""
    return line(LEFT, y, WIDTH - RIGHT, y, kind)


def tick_x(x: float, text: str) -> str:
    """The label of a tick below the plot."""
    return label(x, HEIGHT - BOTTOM + 15, text, "middle")


def tick_y(y: float, text: str) -> str:
    """The label of a tick beside the plot, with its grid line."""
    return across(y, "grid") + label(LEFT - 6, y + 4, text, "end")


def axis_title_x(text: str) -> str:
    """What the horizontal axis shows."""
    return label(LEFT + PLOT_WIDTH / 2, HEIGHT - 6, text, "middle", "axis-title")


def axis_title_y(text: str) -> str:
    """What the vertical axis shows."""
    turn = f"translate(11 {TOP + PLOT_HEIGHT / 2}) rotate(-90)"
    return f'<text class="axis-title" transform="{turn}" text-anchor="middle">{text}</text>'
