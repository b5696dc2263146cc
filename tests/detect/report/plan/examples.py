"""Plans of power, made once."""

from __future__ import annotations

from functools import cache

from detect.records.power_plan import PowerPlan
from detect.student.power.planner import Question, plan
from detect.student.power.simulated import Look, Student
from tests.detect.report.examples import make_spec


@cache
def a_plan(evidence: str = "weights") -> PowerPlan:
    """A plan for one student."""
    look = Look(evidence=evidence, reference="none" if evidence == "samples" else "base")  # type: ignore[arg-type]
    return plan(Question(spec=make_spec(), student=Student(share=0.05, training_tokens=1e6), look=look))
