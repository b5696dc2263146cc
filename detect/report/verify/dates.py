"""The plan of what was asked of an endpoint: older than the first query, and nobody was answered before it."""

from __future__ import annotations

from datetime import datetime

from detect.records.race import RaceRecord
from detect.records.twins import TwinRecord
from detect.report.verify.checks import refuse


def dates(record: TwinRecord | RaceRecord) -> str:
    """The plan is older than the first query, and nobody was answered before it."""
    made, asked = record.plan, record.queries
    if made is None:
        return "no plan is on record"
    if asked is not None and asked.before_plan and record.refused is None:
        refuse(f"{asked.before_plan:,} replies were on record before the plan, and yet an answer is given")
    first = made.first_query
    if first is None or (asked is not None and asked.before_plan):
        return "no query went out after the plan"
    if after(made.created, first):
        refuse(f"the plan was made on {made.created}, after the first query")
    return "the plan is older than the first query, by the clocks on record"


def after(moment: str, other: str) -> bool:
    """Whether a moment on record is later than another; refuse what is no time with its zone."""
    try:
        return datetime.fromisoformat(moment) > datetime.fromisoformat(other)
    except (ValueError, TypeError):
        refuse(f"{moment!r} and {other!r} must be times with their zone, such as 2026-02-03T04:05:06+00:00")
