"""What the type of a plan of power's record allows and no run writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from detect.records.power_plan import PowerPlan


def contradictions(plan: PowerPlan) -> Iterator[str]:
    """Yield them, a few words each."""
    for name, value in (("share", plan.share), ("seen", plan.seen), ("alpha", plan.alpha)):
        if not 0 <= value <= 1:
            yield f"{name} must lie in 0 .. 1 (got {value})"
    for where, power in [
        *((f"the look {row.name!r}", row.power) for row in (plan.asked, *plan.looks, *plan.widths)),
        *((f"the curve at {point.contexts:,}", point.power) for point in plan.curve),
    ]:
        if not 0 <= power <= 1:
            yield f"the power of {where} must lie in 0 .. 1 (got {power})"
    counts = [point.contexts for point in plan.curve]
    if not counts or counts[0] < 1 or any(after <= before for before, after in itertools.pairwise(counts)):
        yield "the curve's contexts must ascend"
