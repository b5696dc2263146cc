"""Hand-written inline SVG: small, without scripts, and drawn from numbers alone.

Colours come from the page's style sheet (classes), so that light, dark and printed pages all work. Every
plot is 360 units wide: it stands unscaled on a phone and two stand side by side on a desk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup, escape

from detect.report.wording import format_p

_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 14, 40
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
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
        _polygon([_unit(*point) for point in area], "area"),
        _line(*_unit(0, 0), *_unit(1, 1), "chance"),
        *(_tick_x(_unit(x, 0)[0], f"{x:g}") for x in (0, 0.25, 0.5, 0.75, 1)),
        *(_tick_y(_unit(0, y)[1], f"{y:g}") for y in (0, 0.25, 0.5, 0.75, 1)),
        _polyline([_unit(*point) for point in points], "decoys"),
        *_true_key(log10_true, lambda log10_p: _unit(min(1.0, 10.0**log10_p), 1)),
        _axis_title_x("p-value"),
        _axis_title_y("share of decoys at or below"),
    ]
    below = sum(p <= 0.05 for p in p_values)
    text = (
        f"Cumulative share of {n} decoy keys by p-value, beside the diagonal of chance. "
        f"{below} of {n} are at or below 0.05. The true key's p-value: {format_p(log10_true)}."
    )
    return _svg(ident, "Decoy p-values against chance", text, body)


def decoy_strip(log10_decoys: Sequence[float], log10_true: float | None, ident: str) -> Markup:
    """Draw every key on the scale of log10 p: how far the true key stands from the decoys."""
    end = min(-4.0, log10_true or 0.0, *log10_decoys)
    step = _step(-end)
    end = -step * math.ceil(-end * 1.04 / step)

    def x(log10_p: float) -> float:
        return _LEFT + _PLOT_WIDTH * log10_p / end

    bottom, middle = _HEIGHT - _BOTTOM, _TOP + _PLOT_HEIGHT * 0.08
    dots = [
        _circle(x(p), _TOP + _PLOT_HEIGHT * (0.3 + 0.6 * ((i * _GOLDEN) % 1)), 2.6, "decoy-dot")
        for i, p in enumerate(log10_decoys)
    ]
    body = [
        *(_tick_x(x(-value), _power(-value)) for value in _ticks(step, -end)),
        _line(_LEFT, bottom, _WIDTH - _RIGHT, bottom, "axis"),
        *dots,
        *_true_key(log10_true, lambda log10_p: (x(log10_p), middle)),
        _label(_LEFT - 8, _TOP + _PLOT_HEIGHT * 0.57, f"{len(log10_decoys)}", "end"),
        _label(_LEFT - 8, _TOP + _PLOT_HEIGHT * 0.57 + 12, "decoys", "end"),
        _axis_title_x("p-value, smaller to the right"),
    ]
    text = (
        f"The true key's p-value: {format_p(log10_true)}; "
        f"the smallest of {len(log10_decoys)} decoys is {format_p(min(log10_decoys))}."
    )
    return _svg(ident, "True key and decoys on a logarithmic scale", text, body)


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
    step = _step(highest)
    top = step * math.ceil(highest / step)

    def place(i: int, log10_p: float) -> tuple[float, float]:
        return _LEFT + _PLOT_WIDTH * (i + 0.5) / n, _TOP + _PLOT_HEIGHT * (1 + log10_p / top)

    drawn = list(range(n)) if n <= _DOTS else sorted({*range(_DOTS // 2), *range(0, n, -(-n * 2 // _DOTS))})
    chance = [place(i, math.log10((i + 0.5) / n)) for i in drawn]
    line = place(0, threshold)[1]
    body = [
        *(_tick_y(place(0, -value)[1], _power(-value)) for value in _ticks(step, top)),
        _line(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, "axis"),
        _polyline(chance, "chance"),
        _line(_LEFT, line, _WIDTH - _RIGHT, line, "limit"),
        _label(_WIDTH - _RIGHT, line - 5, "needed by the strongest", "end"),
        *(_circle(*place(i, ordered[i][0]), 3.0, "found-dot" if ordered[i][1] else "unfound-dot") for i in drawn),
        *(_tick_x(place(i, 0)[0], f"{i + 1:,}") for i in sorted({0, n // 2, n - 1})),
        _axis_title_x("documents, strongest first"),
        _axis_title_y("p-value, smaller upward"),
    ]
    found = sum(hit for _, hit in ordered)
    text = f"P-values of {n} documents from the smallest up; the mark was found in {found}."
    return _svg(ident, "P-values of all documents", text, body)


def _svg(ident: str, title: str, description: str, body: Iterable[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{escape(title)}</title><desc id="{ident}-d">{escape(description)}</desc>'
        f"{''.join(body)}</svg>"
    )


def _unit(x: float, y: float) -> tuple[float, float]:
    """Place a point of the unit square."""
    return _LEFT + _PLOT_WIDTH * x, _TOP + _PLOT_HEIGHT * (1 - y)


def _step(span: float) -> float:
    """Choose a distance of ticks for at most seven of them: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(span / 6))
    return next(factor * power for factor in (1, 2, 5, 10) if span <= 6 * factor * power)


def _ticks(step: float, end: float) -> list[float]:
    return [i * step for i in range(math.floor(end / step + 1e-9) + 1)]


def _power(exponent: float) -> str:
    if exponent == 0:
        return "1"
    return f'10<tspan class="up" dy="-4">&minus;{-exponent:g}</tspan>'


def _true_key(log10_p: float | None, place: Callable[[float], tuple[float, float]]) -> list[str]:
    """Mark the true key with a line to the axis, and label it on the side that has room."""
    if log10_p is None:
        return []
    x, y = place(log10_p)
    right = x < _LEFT + _PLOT_WIDTH * 0.7
    label = _label(x + 9 if right else x - 9, y + 4, "true key", "start" if right else "end", "true-label")
    return [_line(x, y, x, _HEIGHT - _BOTTOM, "true"), _diamond(x, y), label]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _polyline(points: Iterable[tuple[float, float]], kind: str) -> str:
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _polygon(points: Iterable[tuple[float, float]], kind: str) -> str:
    return f'<polygon class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _circle(x: float, y: float, radius: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def _diamond(x: float, y: float) -> str:
    return _polygon([(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)], "true-mark")


def _label(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _tick_x(x: float, text: str) -> str:
    return _label(x, _HEIGHT - _BOTTOM + 15, text, "middle")


def _tick_y(y: float, text: str) -> str:
    grid = _line(_LEFT, y, _WIDTH - _RIGHT, y, "grid")
    return grid + _label(_LEFT - 6, y + 4, text, "end")


def _axis_title_x(text: str) -> str:
    return _label(_LEFT + _PLOT_WIDTH / 2, _HEIGHT - 6, text, "middle", "axis-title")


def _axis_title_y(text: str) -> str:
    turn = f"translate(11 {_TOP + _PLOT_HEIGHT / 2}) rotate(-90)"
    return f'<text class="axis-title" transform="{turn}" text-anchor="middle">{text}</text>'
