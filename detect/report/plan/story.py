"""What a plan of power says: what a trace could show, what else could be looked at, and what is assumed."""

# ruff: noqa: RUF001 (typographic signs are meant)
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from detect.records.power_plan import PlanRow, PowerPlan
from detect.report import closing
from detect.report.checking import made_facts
from detect.report.closing import cell
from detect.report.paper import svg
from detect.report.runs import Runs, level, runs, said
from detect.report.story import Code, Fact, Leaf, Pairs, Plot, Plots, Section, Story, Table, column, text
from detect.student.power.planner import POWER

_LOOKED_AT = {"weights": "its weights", "logprobs": "an endpoint’s logprobs", "samples": "an endpoint’s samples"}
_EVERY = 3  # points of the curve, of which one is written
_BAR = 50  # characters of a power of 1


def story(plan: PowerPlan) -> Story:
    """Tell what a plan of power says."""
    power = f"{plan.asked.power:.3g}"
    return Story(
        kind="plan",
        tone="unmarked",
        headline=f"Power {power} at {plan.contexts:,} contexts",
        lead=[_question(plan), _needed(plan)],
        facts=list(_facts(plan)),
        parts=list(_parts(plan)),
        sections=[
            _rows("Other ways to look", "looks", plan.looks),
            _rows("Other context widths", "widths", plan.widths),
            _power(plan),
            Section("What is assumed", "assumed", [Pairs("What is assumed", list(_assumed(plan)))]),
            closing.checking(plan),
            Section("Record", "record", list(_record(plan))),
        ],
        brief=list(_brief(plan)),
        **closing.by_whom(plan, "Plan of a trace"),
    )


def _question(plan: PowerPlan) -> Runs:
    return runs(
        f"If {100 * plan.share:.4g}% of {plan.training_tokens:,.0f} training tokens are marked, a test at $level "
        f"through {_LOOKED_AT[plan.evidence]} finds it with this probability.",
        level=level(plan.alpha),
    )


def _needed(plan: PowerPlan) -> Runs:
    asked = plan.asked
    if asked.contexts_needed is None:
        return runs(f"No budget would reach {POWER}.")
    answers = "" if asked.queries_needed is None else f", and {asked.queries_needed:,} answers"
    return runs(
        f"A power of {POWER} takes {asked.contexts_needed:,} contexts, which about {asked.tokens_needed:,} tokens of "
        f"text hold{answers}."
    )


def _facts(plan: PowerPlan) -> Iterator[Fact]:
    asked = plan.asked
    yield Fact("Power", f"{asked.power:.3g}", f"at {plan.contexts:,} contexts")
    yield Fact(f"Contexts for {POWER}", _count(asked.contexts_needed))
    yield Fact("Tokens to read", _count(asked.tokens_needed))
    if plan.evidence != "weights":
        yield Fact("Answers", _count(asked.queries_needed))
    yield Fact("Marked tokens", _count(plan.marked_tokens_needed), f"for {POWER} at this budget")


def _parts(plan: PowerPlan) -> Iterator[tuple[str, list[Runs]]]:
    if plan.warnings:
        yield "Warnings", [said(warning, 600) for warning in plan.warnings]
    yield "What it is", [said("A plan is no evidence: how fast a real student learns is assumed.")]


def _brief(plan: PowerPlan) -> Iterator[Runs]:
    """The plan as a terminal has it."""
    asked = plan.asked
    ways = {"samples": f"samples of an endpoint, {plan.samples} a context", "logprobs": "an endpoint's logprobs"}
    yield runs(
        f"p <= {plan.alpha:g} with probability {asked.power:.3g} at {plan.contexts:,} contexts; " + _brief_needs(asked)
    )
    yield said(f"{plan.scheme}, width {plan.context_width}, {plan.subkeys} sub-keys; {plan.entropy:.2f} nats a token")
    yield runs(
        f"Student: {plan.share:.2%} of {plan.training_tokens:,.0f} training tokens marked; {plan.seen:.2%} of the "
        "contexts followed the mark there"
    )
    read = "the served answers" if plan.reading == "served" else "other text"
    yield runs(f"Reading {read} by {ways.get(plan.evidence, 'weights')}")
    if plan.share > 0:
        needed = _count(plan.marked_tokens_needed)
        yield runs(f"Marked training tokens for power {POWER} at this budget: {needed}")
    yield said(f"{plan.method[:1].upper()}{plan.method[1:]}.", 600)


def _brief_needs(asked: PlanRow) -> str:
    if asked.contexts_needed is None:
        return f"no budget would reach {POWER}"
    more = "" if asked.queries_needed is None else f", {asked.queries_needed:,} answers"
    return f"{POWER} needs {asked.contexts_needed:,} contexts (about {asked.tokens_needed:,} tokens of text{more})"


def _rows(title: str, ident: str, rows: Sequence[PlanRow]) -> Section:
    ranks = {"Power": 0, f"Contexts for {POWER}": 0, "Tokens to read": 1, "Answers": 2}
    columns = [column("What is read", width=3), *(column(name, "r", rank=rank) for name, rank in ranks.items())]
    cells = [
        [cell(row.name), cell(f"{row.power:.3g}")]
        + [cell(needed) for needed in (row.contexts_needed, row.tokens_needed, row.queries_needed)]
        for row in rows
    ]
    return Section(title, ident, [Table(title, columns, cells)], in_brief=True)


def _power(plan: PowerPlan) -> Section:
    note = runs(f"The upright line is the budget, the dashed one a power of {POWER}.")
    columns = [column("Contexts", "r"), column("Power", "r")]
    points = Table(
        "Power by contexts", columns, [[cell(one.contexts), cell(f"{one.power:.3g}")] for one in plan.curve[::_EVERY]]
    )
    bars = [
        f"{one.contexts:>12,} |{'#' * round(_BAR * one.power):<{_BAR}}| {one.power:.3g}" for one in plan.curve[::_EVERY]
    ]
    title = "Power against contexts"
    return Section(title, "power", [Plots([Plot(_curve(plan), note)]), points], True, brief=[Code("\n".join(bars))])


def _curve(plan: PowerPlan) -> Markup:
    """Draw the power against the number of contexts, which is on a logarithmic scale."""
    low, high = (math.log10(point.contexts) for point in (plan.curve[0], plan.curve[-1]))

    def place(contexts: int, power: float) -> tuple[float, float]:
        return svg.unit(min(1.0, (math.log10(contexts) - low) / (high - low or 1.0)), power)

    points = [place(point.contexts, point.power) for point in plan.curve]
    x, _ = place(max(plan.contexts, plan.curve[0].contexts), 0)
    description = f"{plan.asked.power:.3g} at {plan.contexts:,} contexts"
    return svg.figure("curve", "Power against contexts", description, _body(points, x, low, high))


def _body(points: list[tuple[float, float]], budget: float, low: float, high: float) -> Iterator[str]:
    for tick in svg.ticks(0.25, 1.0):
        yield svg.tick_y(svg.unit(0, tick)[1], f"{tick:g}")
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        label = f"{10**exponent:,}" if exponent < 6 else f'10<tspan class="up" dy="-4">{exponent}</tspan>'
        yield svg.tick_x(svg.unit((exponent - low) / (high - low or 1.0), 0)[0], label)
    yield svg.line(*svg.unit(0, 0), *svg.unit(1, 0), "axis")
    yield svg.line(*svg.unit(0, POWER), *svg.unit(1, POWER), "chance")
    yield svg.line(budget, svg.TOP, budget, svg.unit(0, 0)[1], "limit")
    yield svg.polyline(points, "by-p")
    yield svg.axis_title_x("distinct contexts")
    yield svg.axis_title_y("power")


def _assumed(plan: PowerPlan) -> Iterator[tuple[str, Runs]]:
    read = "the owner’s served answers" if plan.reading == "served" else "other text"
    yield "Watermark", said(f"{plan.scheme}, width {plan.context_width}, {plan.subkeys} sub-keys")
    yield "Entropy", runs(f"{plan.entropy:.2f} nats a token")
    yield "Read", runs(f"{read}; {100 * plan.seen:.3g}% of its contexts followed the mark in training")
    yield "Reference", said(plan.reference)
    yield (
        "Memory",
        runs(f"<i>f</i> / (<i>f</i> + {plan.memory:g}) of a prediction after <i>f</i> sights of its context"),
    )
    yield "Drift", runs(f"{plan.drift:g} nats in each logit")
    if plan.evidence == "samples":
        yield "Samples", runs(f"{plan.samples:,} of each context")
    if plan.assumed is not None:
        overlap = plan.share if plan.assumed.overlap is None else plan.assumed.overlap
        yield "Overlap", runs(f"{overlap:.4g} of the answers that are read were in the training text")
        yield "Mismatch", runs(f"{plan.assumed.mismatch:g} nats between another model and the suspect’s base")
        yield "Answers", runs(f"{plan.assumed.answer_tokens:,} tokens each")
    yield f"Marked tokens for {POWER}", runs(f"{_count(plan.marked_tokens_needed)} at this budget")
    yield "Method", said(f"{plan.method}; seed {plan.seed}", 600)


def _record(plan: PowerPlan) -> Iterator[Leaf]:
    yield text("This simulates the same students again and compares every number; it takes no key:")
    yield Code("dyetrace report verify report.json")
    if plan.assumed is not None:
        yield from closing.spec_blocks(plan.assumed.spec.spec_id, plan.assumed.spec)
    yield Pairs("This plan", [*made_facts(plan), closing.written_as(plan), *closing.packages(plan)])


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"
