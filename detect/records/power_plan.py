"""The record of a plan of power: what a suspect of an assumed training share would show, and what it takes to see it.

It rests on assumptions alone and accuses nobody. Whoever has it simulates the same students again without any key.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from detect.records.report import Report
from watermark.spec import WatermarkSpec

PLAN_VERSION = 1

Reference = Literal["base", "other", "none"]
Reading = Literal["served", "other"]
Evidence = Literal["weights", "logprobs", "samples"]


class PlanRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to look, or one width.

    Attributes
    ----------
    name
        Which.
    z_per_context
        Expected z of n contexts, divided by sqrt(n).
    power
        At the budget's contexts.
    contexts_needed, tokens_needed, queries_needed
        For power 0.95: distinct contexts, the tokens of natural text to read that hold so many, and answers of an
        endpoint (null with weights). Null where no budget below 1e12 would do.
    """

    name: str
    z_per_context: float
    power: float
    contexts_needed: int | None
    tokens_needed: int | None
    queries_needed: int | None


class PowerPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Power with so many contexts."""

    contexts: int
    power: float


class Assumed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What else was asked, beside what older plans say: with it the plan can be made again.

    Attributes
    ----------
    spec
        The watermark.
    entropy
        Mean nats a token that was asked for; null where distributions of the owner's model were measured.
    overlap
        Share of the answers that are read which the suspect was trained on; null: the plan's share.
    mismatch
        Another model's difference, nats.
    answer_tokens
        Tokens of each answer of an endpoint.
    readout
        How readings become weights, where another one than the evidence's own was asked for.
    """

    spec: WatermarkSpec
    entropy: float | None
    overlap: float | None
    mismatch: float
    answer_tokens: int
    readout: str | None


class PowerPlan(Report, frozen=True, kw_only=True):
    """The answer to a question about power.

    Attributes
    ----------
    scheme, context_width, subkeys
        Of the spec.
    entropy
        Mean of the simulated distributions, nats.
    share, training_tokens, memory, drift, contexts, reading, reference, evidence, samples, seed
        As asked.
    assumed
        What else was asked; null in older plans.
    seen
        Share of contexts that followed the mark in the assumed training data.
    asked
        The look that was asked for.
    looks
        The same student by other references and evidence.
    widths
        The same look if the spec had another context width.
    marked_tokens_needed
        Marked tokens in the training data for power 0.95 at the budget's contexts, with ``share`` kept; null where
        1e12 would not do, or share is 0.
    curve
        Power against contexts, for a plot.
    warnings
        What the owner should know.
    method
        How it was computed, in one sentence.
    """

    format: Literal["dyetrace-power-plan"] = "dyetrace-power-plan"
    version: int = PLAN_VERSION
    created: str = ""
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    scheme: str
    context_width: int
    subkeys: int
    entropy: float
    share: float
    training_tokens: float
    memory: float
    drift: float
    contexts: int
    reading: Reading
    reference: Reference
    evidence: Evidence
    samples: int
    seed: int
    assumed: Assumed | None = None
    seen: float
    asked: PlanRow
    looks: list[PlanRow]
    widths: list[PlanRow]
    marked_tokens_needed: int | None
    curve: list[PowerPoint]
    warnings: list[str]
    method: str
