"""The plots of a trace's report, drawn from numbers and escaped names alone (see `svg`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from detect.report import svg
from detect.report.scan_wording import percent
from detect.report.trace_wording import AIM, deviations, needed, readouts, strongest_keys, target, unit
from detect.report.wording import clean, format_e, format_p, key_label
from detect.student.record import CurvePoint, TraceHypothesis, TraceRecord, TrainingShare

KEYS = 16  # rows of the plot of keys
_READOUTS = 10
_POINTS = 300  # of a curve; of more, an even selection
_NAME = 22  # characters of a name beside its row
_SIDE = 132.0  # units for the names
_ROW = 22.0
_ABOVE = 24.0


def curve(record: TraceRecord, ident: str) -> Markup:
    """Draw the evidence against contexts or answers, with the lines that it had to reach."""
    points = _selected(record.curve)
    last = points[-1].count
    level = -math.log10(record.alpha)
    aim = target(record)
    lines = [("level", level)]
    if aim is not None and abs(-aim - level) > 0.5:
        lines.append(("target", -aim))
    values = [v for point in points for v in (point.log10_evalue, -(point.log10_pvalue or 0.0))]
    high = max(*values, *(height for _, height in lines)) * 1.06
    low = min(0.0, max(-0.25 * high, *(point.log10_evalue for point in points if point.log10_evalue < 0), -1e9)
              if any(point.log10_evalue < 0 for point in points) else 0.0)  # fmt: skip
    low = max(low, -0.2 * high)
    step = svg.step(high - low)

    def place(count: float, value: float) -> tuple[float, float]:
        return svg.unit(count / last, (min(high, max(low, value)) - low) / (high - low))

    tick = svg.step(last)
    whole = max(1.0, tick)
    e_line = [place(0, 0), *(place(point.count, point.log10_evalue) for point in points)]
    p_line = [place(point.count, -point.log10_pvalue) for point in points if point.log10_pvalue is not None]
    body = [
        *(svg.tick_y(place(0, value)[1], f"{value:g}") for value in svg.ticks(step, high)),
        svg.line(*place(0, low), *place(last, low), "axis"),
        *(svg.tick_x(place(value, low)[0], _short(value)) for value in svg.ticks(whole, last)),
        svg.polyline(e_line, "decoys"),
    ]
    if p_line:
        body.append(svg.polyline([place(0, 0), *p_line], "true-line"))
    for name, height in lines:
        y = place(0, height)[1]
        body += [
            svg.line(svg.LEFT, y, svg.WIDTH - svg.RIGHT, y, "limit"),
            svg.label(svg.LEFT + 4, y - 4, name, "start"),
        ]
    body += _ends(p_line, e_line)
    body += [svg.axis_title_x(f"{unit(record)} in the order in which they came"), svg.axis_title_y("powers of ten")]
    end = points[-1]
    p_text = "" if end.log10_pvalue is None else f" p = {format_p(end.log10_pvalue)},"
    text = (
        f"Evidence against the number of {unit(record)}, in powers of ten. At {last:,}:{p_text} "
        f"e = {format_e(end.log10_evalue)}. Level of the report: {format_p(-level)}."
    )
    return svg.figure(ident, f"Evidence against {unit(record)}", text, body)


def _ends(p_line: Sequence[tuple[float, float]], e_line: Sequence[tuple[float, float]]) -> list[str]:
    """Name both curves at their right ends, apart from each other."""
    e_y = e_line[-1][1]
    right = svg.WIDTH - svg.RIGHT
    if not p_line:
        return [svg.label(right + 3, e_y + 4, "e", "start", "curve-label")]
    p_y = p_line[-1][1]
    if abs(p_y - e_y) < 11:
        middle = (p_y + e_y) / 2
        p_y, e_y = (middle - 5.5, middle + 5.5) if p_y <= e_y else (middle + 5.5, middle - 5.5)
    return [
        svg.label(right + 3, p_y + 4, "p", "start", "true-label"),
        svg.label(right + 3, e_y + 4, "e", "start", "curve-label"),
    ]


def _selected(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    if len(points) <= _POINTS:
        return list(points)
    kept = sorted({round(i * (len(points) - 1) / (_POINTS - 1)) for i in range(_POINTS)})
    return [points[i] for i in kept]


def keys(record: TraceRecord, ident: str) -> Markup:
    """Draw each key's p-value, alone and with the choice among keys paid for, and the level of the report."""
    shown = strongest_keys(record)[:KEYS]
    level = -math.log10(record.alpha)
    high = max(level, *(-h.log10_pvalue_tested for h in shown)) * 1.08
    height = _ABOVE + _ROW * len(shown) + svg.BOTTOM
    floor = height - svg.BOTTOM
    step = svg.step(high * 1.4)

    def x(log10_p: float) -> float:
        return _across(-log10_p / high)

    body = [
        svg.line(_SIDE, floor, svg.WIDTH - svg.RIGHT, floor, "axis"),
        *(svg.line(_across(v / high), _ABOVE - 6, _across(v / high), floor, "grid") for v in svg.ticks(step, high)),
        *(svg.label(_across(v / high), floor + 15, svg.power(-v), "middle") for v in svg.ticks(step, high)),
        svg.line(x(-level), _ABOVE - 8, x(-level), floor, "limit"),
        svg.label(x(-level), _ABOVE - 12, "level", "middle"),
    ]
    for i, h in enumerate(shown):
        y = _ABOVE + _ROW * (i + 0.5)
        found = -h.log10_pvalue_adjusted >= level
        kind = "found-dot" if found else "unfound-dot"
        body += [
            _side(y, key_label(h.key)),
            svg.line(x(h.log10_pvalue_adjusted), y, x(h.log10_pvalue_tested), y, "stem"),
            svg.line(x(h.log10_pvalue_tested), y - 4, x(h.log10_pvalue_tested), y + 4, "stem"),
            svg.circle(x(h.log10_pvalue_adjusted), y, 4.0, kind),
        ]
    axis = svg.label(_SIDE + (svg.WIDTH - svg.RIGHT - _SIDE) / 2, height - 6, "p-value, smaller to the right", "middle",
                     "axis-title")  # fmt: skip
    text = "; ".join(f"{clean(key_label(h.key), 60)}: p = {format_p(h.log10_pvalue_adjusted)}" for h in shown)
    return svg.figure(ident, "P-values of the keys", f"{text}. All keys are paid for.", [*body, axis], height)


def comparison(record: TraceRecord, ident: str) -> Markup:
    """Draw the contexts that each readout needs, on a logarithmic scale."""
    rows = readouts(record)[:_READOUTS]
    counts = [result.contexts_needed for _, result in rows if result.contexts_needed]
    low = math.floor(math.log10(max(1, min(counts)))) if counts else 0
    high = max(low + 1, math.ceil(math.log10(max(counts)))) if counts else 1
    floor = 8 + _ROW * len(rows)
    height = floor + svg.BOTTOM

    def x(count: float) -> float:
        return _across((math.log10(count) - low) / (high - low))

    powers = range(low, high + 1)
    every = max(1, math.ceil(len(powers) / 5))
    body = [
        *(svg.line(x(10.0**k), 4, x(10.0**k), floor, "grid") for k in powers),
        *(svg.label(x(10.0**k), floor + 15, _short(10.0**k), "middle") for k in powers if (k - low) % every == 0),
        svg.line(_SIDE, floor, svg.WIDTH - svg.RIGHT, floor, "axis"),
    ]
    for i, (own, result) in enumerate(rows):
        y = 8 + _ROW * (i + 0.5)
        body.append(_side(y, result.readout, "own" if own else ""))
        if result.contexts_needed is None:
            body.append(svg.label(_SIDE + 4, y + 4, "no lean seen", "start"))
            continue
        end = max(x(max(1, result.contexts_needed)), _SIDE + 1.5)
        body.append(svg.rectangle(_SIDE, y - 6, end, y + 6, "own-bar" if own else "bar"))
        inside = end > svg.WIDTH - svg.RIGHT - 48
        text = f"{result.contexts_needed:,}"
        body.append(svg.label(end - 4 if inside else end + 4, y + 4, text, "end" if inside else "start",
                              "in-bar" if inside else ""))  # fmt: skip
    title = svg.label(_SIDE + (svg.WIDTH - svg.RIGHT - _SIDE) / 2, height - 6, "contexts to p = 10" + _raised(AIM),
                      "middle", "axis-title")  # fmt: skip
    text = "; ".join(
        f"{clean(result.readout, 60)}{', which the verdict uses' if own else ''}: "
        + ("no lean seen" if result.contexts_needed is None else f"{result.contexts_needed:,}")
        for own, result in rows
    )
    return svg.figure(ident, "Contexts that each readout needs", f"{text}.", [*body, title], height)


def dose_response(share: TrainingShare, ident: str) -> Markup:
    """Draw the calibration students' effects by their marked share, and where the suspect's effect lies among them."""
    effect, error = share.effect or 0.0, 2 * (share.standard_error or 0.0)
    ends = [v for d in share.doses for v in (d.effect - 2 * d.standard_error, d.effect + 2 * d.standard_error)]
    bottom, top = min(0.0, effect - error, *ends), max(effect + error, *ends, 1e-12)
    room = 0.06 * (top - bottom)
    bottom, top = bottom - (room if bottom < 0 else 0.0), top + room
    interval = share.interval
    wanted = [d.share for d in share.doses] + ([] if interval is None else [interval.high or interval.low])
    right = min(1.0, max(1e-4, *wanted) * 1.08)

    def place(dose: float, value: float) -> tuple[float, float]:
        return svg.unit(min(1.0, dose / right), (value - bottom) / (top - bottom))

    body: list[str] = []
    if interval is not None:
        end = right if interval.high is None else interval.high
        body.append(svg.polygon([place(interval.low, bottom), place(end, bottom), place(end, top),
                                 place(interval.low, top)], "segment"))  # fmt: skip
    step = svg.step(top - bottom)
    body += [svg.tick_y(place(0, v)[1], f"{v:g}") for v in svg.ticks(step, top)]
    if share.effect is not None:
        body.append(svg.polygon([place(0, effect - error), place(right, effect - error), place(right, effect + error),
                                 place(0, effect + error)], "band"))  # fmt: skip
        y = place(0, effect)[1]
        body += [svg.line(svg.LEFT, y, svg.WIDTH - svg.RIGHT, y, "true"),
                 svg.label(svg.LEFT + 4, y - 5, "suspect", "start", "true-label")]  # fmt: skip
    for dose in share.doses:
        x, _ = place(dose.share, 0)
        reach = 2 * dose.standard_error
        body += [
            svg.line(x, place(0, dose.effect - reach)[1], x, place(0, dose.effect + reach)[1], "whisker"),
            svg.circle(*place(dose.share, dose.effect), 3.6, "estimate"),
        ]
    body += [
        svg.line(*place(0, bottom), *place(right, bottom), "axis"),
        *(svg.tick_x(place(v, 0)[0], percent(v) if v else "0") for v in svg.ticks(svg.step(right * 1.3), right)),
        svg.axis_title_x("marked share of the training text"),
        svg.axis_title_y("effect per context"),
    ]
    students = "; ".join(f"{percent(d.share)}: {d.effect:.3g} ± {2 * d.standard_error:.2g}" for d in share.doses)
    own = "" if share.effect is None else f" The suspect: {effect:.3g} ± {error:.2g}."
    text = f"Effect of calibration students by marked share, with two standard errors: {students}.{own}"
    return svg.figure(ident, "Dose and response", text, body)


def expected_needed(h: TraceHypothesis) -> int | None:
    """Contexts that the key would have needed for p = 10^-10."""
    return needed(deviations(h), h.contexts)


def _across(share: float) -> float:
    return _SIDE + (svg.WIDTH - svg.RIGHT - _SIDE) * min(1.0, max(0.0, share))


def _side(y: float, name: str, kind: str = "") -> str:
    cut = clean(name)
    cut = cut if len(cut) <= _NAME else cut[: _NAME - 1] + "…"
    return svg.label(_SIDE - 8, y + 4, str(escape(cut)), "end", kind)


def _short(count: float) -> str:
    """Write a count in few characters: "500", "20k", "3M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"


def _raised(exponent: float) -> str:
    return svg.power(exponent).removeprefix("10")
