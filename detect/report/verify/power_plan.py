"""A plan of power, made again: it takes no key, and every number follows from what was assumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from detect.laws.agreement import RELATIVE
from detect.records.power_plan import PlanRow, PowerPlan
from detect.records.results import Check
from detect.report.verify.checks import NotDone, each, refuse, same
from detect.student.power.planner import plan as make
from detect.student.power.planner import question_of, tokens_to_read

_WIDTH = "width "
# Who made it, when and with which code, and what it says in words.
_APART = frozenset(["created", "versions", "made", "how_to_check", "assumptions", "warnings", "method"])
_WHOLE = 1e-9  # relative, of whole numbers: they are rounded up from floating point


def checks(plan: PowerPlan, report: Path, folder: Path | None) -> Iterator[Check]:
    """All checks of a plan, beside which no file lies and for which none need be read."""
    del report, folder
    yield from each({"tokens": tokens, "simulation": simulation}, plan)


def tokens(plan: PowerPlan) -> str:
    """The tokens to read follow from the contexts that are needed."""
    for row in (plan.asked, *plan.looks):
        _tokens(row, plan.context_width)
    for row in plan.widths:
        width = row.name.removeprefix(_WIDTH)
        if not width.isdecimal():
            refuse(f"{row.name!r} is no width of contexts")
        _tokens(row, int(width))
    return "the tokens to read follow from the contexts that are needed"


def _tokens(row: PlanRow, width: int) -> None:
    needed = None if row.contexts_needed is None else tokens_to_read(row.contexts_needed, width)
    same(f"tokens to read of {row.name!r}", row.tokens_needed, needed)


def simulation(plan: PowerPlan) -> str:
    """The same students, simulated again, give the same numbers."""
    question = question_of(plan)
    if question is None:
        raise NotDone("what was asked is not all on record: an older release wrote it")
    if plan.assumed is not None and plan.assumed.entropy is None:
        raise NotDone("it is of distributions that the owner's model gave, which takes the model and its text")
    again = msgspec.to_builtins(make(question))
    said = msgspec.to_builtins(plan)
    for name in said.keys() - _APART:
        _agree(name, said[name], again[name])
    return "the same students were simulated again, and every number is the same"


def _agree(where: str, said: Any, again: Any) -> None:
    if isinstance(said, dict) and isinstance(again, dict) and said.keys() == again.keys():
        for name, value in said.items():
            _agree(f"{where}.{name}", value, again[name])
    elif isinstance(said, list) and isinstance(again, list) and len(said) == len(again):
        for number, (one, other) in enumerate(zip(said, again, strict=True)):
            _agree(f"{where}[{number}]", one, other)
    elif said != again:
        numbers = isinstance(said, int | float) and isinstance(again, int | float)
        slack = (_WHOLE if isinstance(said, int) else RELATIVE) * max(1.0, abs(again)) if numbers else 0.0
        if not numbers or abs(said - again) > slack:
            refuse(f"{where} is {said} on record, and {again} where the plan is made again")
