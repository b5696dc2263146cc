"""The plots of a trace's report, drawn from numbers and cleaned names (see `svg`)."""

from __future__ import annotations

import math

from markupsafe import Markup

from detect.records.trace import TraceRecord, TrainingShare, tenant_name
from detect.records.written import clean, format_p, key_label, percent
from detect.report.paper import svg
from detect.report.paper.plots import START, Bar, bars, few, growth, short
from detect.report.trace.wording import number, readouts, strongest_keys

KEYS = 8
_TWO_SIDED = 1.96  # standard errors of a 95% interval
_SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
_AXIS = svg.across(svg.HEIGHT - svg.BOTTOM, "axis")


def evidence(record: TraceRecord, ident: str) -> Markup | None:
    """Draw the evidence as it grew: p-values, inverse e-values, and the level; None where there is no curve."""
    return growth(record.curve, record.alpha, "answers" if record.mode == "api" else "contexts", ident)


def keys(record: TraceRecord, ident: str) -> Markup:
    """Draw each key's p-value, the choice among keys paid for, the strongest first, with the level."""
    shown, named = strongest_keys(record)[:KEYS], {tenant_name(name) for name in record.identified}
    # Where several accounts were tested a key has half of the level, and all accounts together the other half.
    limit = math.log10(record.alpha / 2 if record.together is not None else record.alpha)
    highest = max(-limit, *(-h.log10_pvalue_adjusted for h in shown)) * 1.06
    step = few(highest)
    across = (svg.WIDTH - svg.RIGHT - START) / (step * math.ceil(highest / step))
    drawn: list[Bar] = []
    for h in shown:
        passes = h.log10_pvalue_adjusted <= limit
        found = record.found and (passes if h.key == "global" else tenant_name(h.key) in named)
        drawn.append((short(key_label(h.key)), START - across * h.log10_pvalue_adjusted, found, ""))
    said = "; ".join(f"{clean(key_label(h.key), 60)} {format_p(h.log10_pvalue_adjusted)}" for h in shown)
    text = f"Adjusted p-values of keys: {said}. The level is {format_p(math.log10(record.alpha))}."
    ticks = [(START + across * v, svg.power(-v)) for v in svg.ticks(step, step * math.ceil(highest / step))]
    axis = "adjusted p-value, smaller to the right"
    return bars(ident, "P-value of each key", text, drawn, ticks, axis, START - across * limit)


def comparison(record: TraceRecord, ident: str) -> Markup | None:
    """Draw how many contexts each readout needs, on a logarithmic scale; None where there is one alone."""
    rows = readouts(record)
    wanted = [result.contexts_needed for _, result in rows if result.contexts_needed]
    if len(rows) < 2 or not wanted:
        return None
    low = math.floor(math.log10(min(wanted)) - 0.2)
    high = math.ceil(math.log10(max(wanted)) + 0.35)

    def x(exponent: float) -> float:
        return START + (svg.WIDTH - 32 - START) * (exponent - low) / (high - low)

    drawn: list[Bar] = []
    for own, result in rows:
        needed = result.contexts_needed
        end, note = (x(math.log10(needed)), f"{needed:,}") if needed else (None, "shows nothing")
        name = short(result.readout) + (", used for the verdict" if own else "")
        drawn.append((name, end, own, note))
    powers = range(low, high + 1, max(1, math.ceil((high - low) / 6)))
    said = "; ".join(
        f"{clean(r.readout, 60)} {f'{r.contexts_needed:,}' if r.contexts_needed else 'no number'}" for _, r in rows
    )
    text = f"Contexts at which each readout would reach a p-value of 10^-10: {said}."
    ticks = [(x(v), f"{10**v:,}" if v >= 0 else "") for v in powers]
    axis = f"contexts for a p-value of {svg.power(-10)}"
    return bars(ident, "Contexts that each readout needs", text, drawn, ticks, axis)


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
