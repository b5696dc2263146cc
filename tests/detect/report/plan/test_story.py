"""What a plan of power says: every number that was asked for, in every form, and what it rests on."""

from __future__ import annotations

from io import StringIO

import msgspec
import pytest
from rich.console import Console

from detect.records.power_plan import PowerPlan, PowerPoint
from detect.report.paper.markdown import markdown
from detect.report.paper.page import page
from detect.report.paper.terminal import print_story, text
from detect.report.plan.story import story
from tests.detect.report.paper.reading import Page
from tests.detect.report.plan.examples import a_plan


def printed(plan: PowerPlan, width: int = 80) -> str:
    """What the command prints."""
    shown = StringIO()
    print_story(story(plan), Console(file=shown, width=width))
    return shown.getvalue()


@pytest.mark.parametrize("evidence", ["weights", "logprobs", "samples"])
def test_every_form_says_what_a_trace_could_show(evidence: str) -> None:
    plan = a_plan(evidence)
    power, needed = f"{plan.asked.power:.3g}", f"{plan.asked.contexts_needed:,}"
    forms = [printed(plan, 120), text(story(plan)), markdown(story(plan)), Page(page(story(plan))).text]
    for form in forms:
        said = " ".join(form.split())
        assert power in said and needed in said and "20,000 contexts" in said
        assert all(row.name in said for row in (*plan.looks, *plan.widths))
        assert "normal approximation" in said
    assert all("A plan is no evidence" in form for form in forms[1:])


def test_a_terminal_draws_the_curve_in_letters_and_the_page_as_a_drawing() -> None:
    plan = a_plan()
    bars = [line for line in printed(plan).splitlines() if "|" in line]
    assert len(bars) == len(plan.curve[::3]) and bars[-1].count("#") > bars[0].count("#")
    assert "<svg" in page(story(plan))
    assert "The upright line is the budget" in Page(page(story(plan))).text


def test_what_no_budget_reaches_is_said_to_be_so() -> None:
    plan = a_plan()
    row = msgspec.structs.replace(plan.asked, contexts_needed=None, tokens_needed=None, queries_needed=None)
    hopeless = msgspec.structs.replace(plan, asked=row, marked_tokens_needed=None)
    assert "no budget would reach 0.95" in " ".join(printed(hopeless).split())
    assert "No budget would reach 0.95." in page(story(hopeless))


def test_warnings_stand_on_the_first_page() -> None:
    plan = msgspec.structs.replace(a_plan(), warnings=["Mind the <b>gap</b>"])
    assert "Mind the <b>gap</b>" in Page(page(story(plan))).text


def test_a_curve_of_one_point_is_drawn() -> None:
    plan = msgspec.structs.replace(a_plan(), curve=[PowerPoint(contexts=10, power=0.5)])
    assert "<svg" in page(story(plan))


def test_what_the_command_prints_of_the_same_plan_is_the_same_at_any_time() -> None:
    later = msgspec.structs.replace(a_plan(), created="2031-01-01T00:00:00+00:00")
    assert printed(later) == printed(a_plan())
