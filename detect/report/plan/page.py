"""A plan of power as one HTML page: no scripts, no network, nothing but the plan in it (see `html`)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from markupsafe import Markup

from detect.records.power_plan import PowerPlan
from detect.report.checking import made_now
from detect.report.detection.page import drawn
from detect.report.paper import svg
from detect.student.power.planner import POWER

LOOKED_AT = {"weights": "its weights", "logprobs": "an endpoint's logprobs", "samples": "an endpoint's samples"}


def render_plan_html(plan: PowerPlan) -> str:
    """Render the plan as one self-contained HTML page."""
    return drawn(
        "plan.html.j2",
        plan=plan,
        looked_at=LOOKED_AT[plan.evidence],
        tables=[("Other ways to look", "looks", plan.looks), ("Other context widths", "widths", plan.widths)],
        curve=_curve(plan),
        made_line=made_now(),
        wanted=POWER,
    )


def _curve(plan: PowerPlan) -> Markup:
    """Draw the power against the number of contexts, which is on a logarithmic scale."""
    low, high = (math.log10(point.contexts) for point in (plan.curve[0], plan.curve[-1]))
    points = [svg.unit((math.log10(point.contexts) - low) / (high - low), point.power) for point in plan.curve]
    x = svg.unit((math.log10(max(plan.contexts, plan.curve[0].contexts)) - low) / (high - low), 0)[0]
    description = f"{plan.asked.power:.3g} at {plan.contexts:,} contexts"
    return svg.figure("curve", "Power against contexts", description, _body(points, x, low, high))


def _body(points: list[tuple[float, float]], budget: float, low: float, high: float) -> Iterator[str]:
    for tick in svg.ticks(0.25, 1.0):
        yield svg.tick_y(svg.unit(0, tick)[1], f"{tick:g}")
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        label = f"{10**exponent:,}" if exponent < 6 else f'10<tspan class="up" dy="-4">{exponent}</tspan>'
        yield svg.tick_x(svg.unit((exponent - low) / (high - low), 0)[0], label)
    yield svg.line(*svg.unit(0, 0), *svg.unit(1, 0), "axis")
    yield svg.line(*svg.unit(0, POWER), *svg.unit(1, POWER), "chance")
    yield svg.line(budget, svg.TOP, budget, svg.unit(0, 0)[1], "limit")
    yield svg.polyline(points, "by-p")
    yield svg.axis_title_x("distinct contexts")
    yield svg.axis_title_y("power")
