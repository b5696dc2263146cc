"""Plans for the tests of asking, and settings that don't make them wait."""

from __future__ import annotations

from typing import Any

from detect.student.asking.account import ClientSettings
from detect.student.asking.plan import PlannedPrompt, SamplingPlan, TracePlan

QUICK = ClientSettings(timeout=20.0, first_backoff=0.01, attempts=4, grace=2.0)


def plan(url: str = "http://127.0.0.1:9/v1", prompts: int | list[PlannedPrompt] = 6, **fields: Any) -> TracePlan:
    """A plan of short answers to distinct prompts."""
    if isinstance(prompts, int):
        prompts = [PlannedPrompt(prompt=f"Tell me about lighthouse {number}.") for number in range(prompts)]
    defaults: dict[str, Any] = {
        "created": "2026-11-24T12:00:00+00:00",
        "url": url,
        "model": "student",
        "prompts": prompts,
        "sampling": SamplingPlan(max_tokens=4),
        "readout": "samples",
        "spec_id": "dt1-" + "0" * 32,
        "key_fingerprint": "f" * 32,
    }
    return TracePlan(**{**defaults, **fields})


def asked(body: dict[str, Any]) -> str:
    """The user's words in a request that a server received."""
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])
