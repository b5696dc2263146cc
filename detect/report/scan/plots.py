"""The plots of a scan's report, drawn from numbers alone (see `svg`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from detect.records.scan import HISTOGRAM_BINS, Hit, Interval, Shares
from detect.records.written import percent
from detect.report.paper import svg
from detect.report.wording import interval

_STRIP = 132  # height of a document's plot
_BAND = 3.0  # standard deviations that the counts of a bin vary by


def histogram(bins: Sequence[int], ident: str, title: str) -> Markup:
    """Draw documents by p-value, with what chance gives: a line, and a band of three standard deviations."""
    total = sum(bins)
    expected = total / HISTOGRAM_BINS
    spread = _BAND * math.sqrt(expected * (1 - 1 / HISTOGRAM_BINS))
    high = max(*bins, expected + spread, 1.0) * 1.05
    step = max(1.0, svg.step(high))

    def place(x: float, count: float) -> tuple[float, float]:
        return svg.unit(x, min(1.0, count / high))

    band = [place(0, max(0, expected - spread)), place(1, max(0, expected - spread))]
    band += [place(1, expected + spread), place(0, expected + spread)]
    bars = [
        svg.rectangle(*place((i + 0.08) / HISTOGRAM_BINS, count), *place((i + 0.92) / HISTOGRAM_BINS, 0), "bar")
        for i, count in enumerate(bins)
        if count
    ]
    body = [
        *(svg.tick_y(place(0, value)[1], f"{value:,.0f}") for value in svg.ticks(step, high)),
        svg.polygon(band, "area"),
        *bars,
        svg.line(*place(0, expected), *place(1, expected), "chance"),
        svg.line(*svg.unit(0, 0), *svg.unit(1, 0), "axis"),
        *(svg.tick_x(svg.unit(x, 0)[0], f"{x:g}") for x in (0, 0.25, 0.5, 0.75, 1)),
        svg.axis_title_x("p-value of a document"),
        svg.axis_title_y("documents"),
    ]
    text = (
        f"{total:,} documents by p-value in {HISTOGRAM_BINS} bins, chance would give {expected:,.1f} in each. "
        f"{bins[0]:,} are at or below {1 / HISTOGRAM_BINS:g}, {bins[-1]:,} above {1 - 1 / HISTOGRAM_BINS:g}."
    )
    return svg.figure(ident, title, text, body)


def shares(found: Shares, ident: str) -> Markup:
    """Draw the estimates of both shares with their intervals."""
    rows = [("tested documents", found.documents), ("distinct tuples", found.tokens)]
    end = min(1.0, svg.step(max(0.01, *(_right_end(share) for _, share in rows)) * 1.08, 1))
    height = 118
    body = []
    for i, (name, share) in enumerate(rows):
        y = 30 + 40 * i
        body += [svg.label(svg.LEFT, y - 12, name, "start"), *_whisker(share, y, end)]
    floor = 30 + 40 * len(rows) - 18
    ticks = svg.ticks(svg.step(end), end)
    body.append(svg.across(floor, "axis"))
    body += [svg.label(_across(x, end), floor + 15, percent(x), "middle") for x in ticks]
    text = f"Documents: {interval(found.documents)}. Tuples: {interval(found.tokens)}."
    return svg.figure(ident, "Marked shares with their intervals", text, body, height)


def _right_end(share: Interval) -> float:
    """How far the axis must go: an interval without an upper end is drawn open, not to 100%."""
    return max(share.low * 1.6, (share.estimate or 0.0) * 1.2) if share.high is None else share.high


def _whisker(share: Interval, y: float, end: float) -> list[str]:
    low = _across(share.low, end)
    high = _across(min(end, 1.0 if share.high is None else share.high), end)
    kind = "whisker" if share.high is not None else "whisker open"
    drawn = [svg.line(low, y, high, y, kind), svg.line(low, y - 6, low, y + 6, "whisker")]
    if share.high is None:
        drawn.append(svg.polygon([(high, y), (high - 8, y - 5), (high - 8, y + 5)], "whisker-end"))
    else:
        drawn.append(svg.line(high, y - 6, high, y + 6, "whisker"))
    if share.estimate is not None:
        drawn.append(svg.circle(_across(share.estimate, end), y, 4.0, "estimate"))
    return drawn


def _across(share: float, end: float) -> float:
    return svg.LEFT + svg.PLOT_WIDTH * share / end


def positions(hit: Hit, unit: str, ident: str) -> Markup:
    """Draw a document's mean score along its tokens, its marked segments shaded."""
    top, floor = 10.0, _STRIP - 36.0
    scores = [score for score in hit.scores if score is not None]
    low = min(0.0, *scores, hit.expected) if scores else 0.0
    high = max(hit.expected * 2, *scores, hit.score, 1e-9) if scores else max(hit.expected * 2, 1e-9)
    tokens = max(1, hit.tokens)

    def x(token: float) -> float:
        return svg.LEFT + svg.PLOT_WIDTH * token / tokens

    def y(score: float) -> float:
        return floor - (floor - top) * (score - low) / (high - low)

    shaded = [svg.rectangle(x(s.start), top, x(s.end), floor, "segment") for s in hit.segments]
    width = tokens / max(1, len(hit.scores))
    bars = [
        svg.rectangle(x((i + 0.1) * width), min(y(score), y(low)), x((i + 0.9) * width), floor, "bar")
        for i, score in enumerate(hit.scores)
        if score is not None
    ]
    step = svg.step((high - low) * 2)  # at most four of them
    body = [
        *shaded,
        *(svg.tick_y(y(value), f"{value:g}") for value in svg.ticks(step, high)),
        *bars,
        svg.across(y(hit.expected), "chance"),
        svg.across(floor, "axis"),
        *(svg.label(x(t), floor + 14, f"{t:,}", "middle") for t in sorted({0, tokens // 2, tokens})),
        svg.label(svg.LEFT + svg.PLOT_WIDTH / 2, _STRIP - 5, "token", "middle", "axis-title"),
    ]
    parts = ", ".join(f"{s.start:,} to {s.end:,}" for s in hit.segments) or "none"
    text = (
        f"Mean score, in {unit}, along {hit.tokens:,} tokens: {hit.score:.3g} on the whole, {hit.expected:.3g} "
        f"expected without the key. Marked segments, in tokens: {parts}."
    )
    return svg.figure(ident, "Score by position", text, body, _STRIP)
