"""The record of a check of a server: each line of its verdict with its reason. It is for the one who runs both."""

from __future__ import annotations

from typing import Literal

import msgspec

from detect.records.report import Report
from watermark.spec import WatermarkSpec

CHECK_VERSION = 1

Status = Literal["PASS", "FAIL", "OPEN", "NOTE"]


class KeyFound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The test of one key over all answers: "global" or "tenant:NAME", its tuples, and its exact log10 p-value."""

    key: str
    tuples: int
    log10_pvalue: float


class AnswerFound(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One text of an answer.

    Attributes
    ----------
    prompt
        Number of its prompt.
    tokens, tuples
        Of the text, and the tuples that it has first.
    log10_pvalue
        Over the keys.
    part
        Which text it is: where a server sends no token ids, the answer proper, the reasoning before it and what is
        handed to tools are texts each for itself.
    """

    prompt: int
    tokens: int
    tuples: int
    log10_pvalue: float
    part: Literal["answer", "reasoning", "tool call"] = "answer"


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of the verdict; OPEN: the answers don't tell; NOTE is for what the operator's policy decides."""

    name: str
    status: Status
    reason: str


class ServeCheck(Report, frozen=True, kw_only=True):
    """A whole check; nothing in it is secret, and no answer's text stands in it.

    Attributes
    ----------
    url, model, endpoint
        Who was asked.
    spec
        The watermark; null in older records, which name it alone.
    tenant
        The account asked for; null for none.
    token_ids
        Whether the server sent the answers' token ids, or they come from its texts.
    keys, answers, others
        What was found: by key, by answer, and the log10 p of each key that must show nothing.
    checks
        The lines of the verdict.
    verdict
        In a few words.
    code_sha256
        Of dyetrace's own code, in older records; ``made`` has it now.
    """

    format: Literal["dyetrace-serve-check"] = "dyetrace-serve-check"
    version: int = CHECK_VERSION
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    url: str
    model: str
    endpoint: str
    spec: WatermarkSpec | None = None
    spec_id: str
    scheme: str
    epoch: int
    key_fingerprint: str
    tenant: str | None
    temperature: float
    max_tokens: int
    token_ids: Literal["server", "text"]
    keys: list[KeyFound]
    answers: list[AnswerFound]
    others: dict[str, float]
    checks: list[Check]
    verdict: str
    code_sha256: str = ""

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "FAIL" for check in self.checks)

    @property
    def decided(self) -> bool:
        """Whether the answers told enough."""
        return all(check.status != "OPEN" for check in self.checks)
