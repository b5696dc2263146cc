"""The plots of a trace's report, drawn from numbers and cleaned names (see `svg`)."""

from __future__ import annotations

import math

from markupsafe import Markup, escape

from detect.records.trace import TraceRecord, TrainingShare, tenant_name
from detect.records.written import clean, format_p, key_label, percent
from detect.report.paper import svg
from detect.report.trace.wording import number, readouts, strongest_keys

KEYS = 8
_NAME = 26  # characters of a name in a plot
_ROW = 34  # height of a row with its name above
_START = 20.0  # where bars begin
_TWO_SIDED = 1.96  # standard errors of a 95% interval
_SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
_AXIS = svg.across(svg.HEIGHT - svg.BOTTOM, "axis")


def evidence(record: TraceRecord, ident: str) -> Markup | None:
    """Draw the evidence as it grew: p-values, inverse e-values, and the level; None where there is no curve."""
    points = record.curve
    if not points:
        return None
    unit = "answers" if record.mode == "api" else "contexts"
    level = -math.log10(record.alpha)
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
        _AXIS,
        *(svg.tick_x(place(count, 0)[0], f"{count:,.0f}") for count in svg.ticks(_few(end), end)),
        svg.axis_title_x(f"{unit}, in the order in which they came"),
        svg.axis_title_y("p-value, smaller upward"),
    ]
    for i, (name, kind) in enumerate([*([("p-value", "by-p")] if ps else []), ("1 / e-value", "by-e")]):
        x = svg.LEFT + 4 + 90 * i
        body += [svg.polyline([(x, 6), (x + 22, 6)], kind), svg.label(x + 28, 10, name, "start")]
    ends = f"p-value {format_p(last.log10_pvalue)}, " if last.log10_pvalue is not None else ""
    text = (
        f"Evidence after so many {unit}, up to {last.count:,}: at the end {ends}inverse of the e-value "
        f"{format_p(min(0.0, -last.log10_evalue))}; the level is {format_p(math.log10(record.alpha))}."
    )
    return svg.figure(ident, "Evidence as it grew", text, body)


def _few(end: float) -> float:
    """A distance of ticks for at most four numbers with commas side by side."""
    step = svg.step(end)
    return step if end / step <= 4 else svg.step(end * 2)


_Bar = tuple[str, float | None, bool, str]
"""The name above a bar, where it ends, if there is one, whether it is the one that counts, and a note at its end."""
_Ticks = list[tuple[float, str]]
"""Places in the drawing and what stands at them."""


def _bars(
    ident: str, title: str, text: str, bars: list[_Bar], ticks: _Ticks, axis: str, level: float | None = None
) -> Markup:
    """Draw bars from left to right; ends, ticks and the dashed ``level`` are places in the drawing."""
    floor = 12.0 + _ROW * len(bars)
    body = [svg.line(x, 6, x, floor, "grid") for x, _ in ticks]
    for i, (name, end, own, note) in enumerate(bars):
        y = 8 + _ROW * i
        body.append(svg.label(_START + 3, y + 11, name, "start"))
        if end is not None:
            body.append(svg.rectangle(_START, y + 16, end, y + 26, "found-bar" if own else "bar"))
        body.append(svg.label((end or _START) + 5, y + 25, note, "start"))
        if level is not None:
            body.append(svg.line(level, y + 13, level, y + 29, "limit"))
    body += [
        svg.line(_START, 6, _START, floor, "axis"),
        *(svg.label(x, floor + 15, tick, "middle") for x, tick in ticks),
        svg.label((_START + svg.WIDTH - svg.RIGHT) / 2, floor + 33, axis, "middle", "axis-title"),
    ]
    return svg.figure(ident, title, text, body, floor + 40)


def _short(name: str) -> str:
    """A name, cleaned, cut and escaped."""
    name = clean(name)
    return str(escape(name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"))


def keys(record: TraceRecord, ident: str) -> Markup:
    """Draw each key's p-value, the choice among keys paid for, the strongest first, with the level."""
    shown, named = strongest_keys(record)[:KEYS], {tenant_name(name) for name in record.identified}
    # Where several accounts were tested a key has half of the level, and all accounts together the other half.
    limit = math.log10(record.alpha / 2 if record.together is not None else record.alpha)
    highest = max(-limit, *(-h.log10_pvalue_adjusted for h in shown)) * 1.06
    step = _few(highest)
    across = (svg.WIDTH - svg.RIGHT - _START) / (step * math.ceil(highest / step))
    bars: list[_Bar] = []
    for h in shown:
        passes = h.log10_pvalue_adjusted <= limit
        found = record.found and (passes if h.key == "global" else tenant_name(h.key) in named)
        bars.append((_short(key_label(h.key)), _START - across * h.log10_pvalue_adjusted, found, ""))
    said = "; ".join(f"{clean(key_label(h.key), 60)} {format_p(h.log10_pvalue_adjusted)}" for h in shown)
    text = f"Adjusted p-values of keys: {said}. The level is {format_p(math.log10(record.alpha))}."
    ticks = [(_START + across * v, svg.power(-v)) for v in svg.ticks(step, step * math.ceil(highest / step))]
    axis = "adjusted p-value, smaller to the right"
    return _bars(ident, "P-value of each key", text, bars, ticks, axis, _START - across * limit)


def comparison(record: TraceRecord, ident: str) -> Markup | None:
    """Draw how many contexts each readout needs, on a logarithmic scale; None where there is one alone."""
    rows = readouts(record)
    wanted = [result.contexts_needed for _, result in rows if result.contexts_needed]
    if len(rows) < 2 or not wanted:
        return None
    low = math.floor(math.log10(min(wanted)) - 0.2)
    high = math.ceil(math.log10(max(wanted)) + 0.35)

    def x(exponent: float) -> float:
        return _START + (svg.WIDTH - 32 - _START) * (exponent - low) / (high - low)

    bars: list[_Bar] = []
    for own, result in rows:
        needed = result.contexts_needed
        end, note = (x(math.log10(needed)), f"{needed:,}") if needed else (None, "shows nothing")
        name = _short(result.readout) + (", used for the verdict" if own else "")
        bars.append((name, end, own, note))
    powers = range(low, high + 1, max(1, math.ceil((high - low) / 6)))
    said = "; ".join(
        f"{clean(r.readout, 60)} {f'{r.contexts_needed:,}' if r.contexts_needed else 'no number'}" for _, r in rows
    )
    text = f"Contexts at which each readout would reach a p-value of 10^-10: {said}."
    ticks = [(x(v), f"{10**v:,}" if v >= 0 else "") for v in powers]
    axis = f"contexts for a p-value of {svg.power(-10)}"
    return _bars(ident, "Contexts that each readout needs", text, bars, ticks, axis)


def dose_response(share: TrainingShare, ident: str) -> Markup | None:
    """Draw the calibration students' effects by their marked share, and the suspect's; None where there are none."""
    if not share.doses:
        return None
    ranges = [(d.effect, d.standard_error) for d in share.doses]
    if share.effect is not None and share.standard_error is not None:
        ranges.append((share.effect, share.standard_error))
    high = max(0.0, *(effect + _TWO_SIDED * error for effect, error in ranges))
    low = min(0.0, *(effect - _TWO_SIDED * error for effect, error in ranges))
    step = svg.step(max(high - low, 1e-9) * 1.1)
    low, high = step * math.floor(low / step), step * math.ceil(high * 1.02 / step)
    high = high if high > low else low + step

    def place(part: float, effect: float) -> tuple[float, float]:
        return svg.unit(math.sqrt(min(1.0, max(0.0, part))), (effect - low) / (high - low))

    body = []
    if share.interval is not None:
        to = 1.0 if share.interval.high is None else share.interval.high
        body.append(svg.rectangle(*place(share.interval.low, high), *place(to, low), "segment"))
    lines = round((high - low) / step)
    body += [
        svg.tick_y(place(0, low + i * step)[1], f"{low + i * step:.3g}".replace("-", "&minus;"))
        for i in range(lines + 1)
    ]
    if share.effect is not None:
        y = place(0, share.effect)[1]
        body += [
            svg.across(y, "true"),
            svg.label(svg.LEFT + 6, y - 5, "suspect", "start", "true-label"),
        ]
    for dose in share.doses:
        x, y = place(dose.share, dose.effect)
        ends = [place(0, dose.effect + side * _TWO_SIDED * dose.standard_error)[1] for side in (1, -1)]
        body += [svg.line(x, ends[0], x, ends[1], "whisker"), svg.circle(x, y, 3.2, "found-dot")]
    body += [
        _AXIS,
        *(svg.tick_x(place(part, low)[0], percent(part) if part else "0") for part in _SHARES),
        svg.axis_title_x("marked share of the training text"),
        svg.axis_title_y("effect per context"),
    ]
    said = "; ".join(f"{percent(d.share) if d.share else '0'}: {number(d.effect, 3)}" for d in share.doses)
    own = "" if share.effect is None else f" The suspect's: {number(share.effect, 3)}."
    return svg.figure(ident, "Effect by marked share", f"Effects of calibration students by share: {said}.{own}", body)
