"""Checks of a server, made by hand."""

from __future__ import annotations

from typing import Any

import msgspec

from detect.records.made import Made
from detect.records.server_check import AnswerFound, Check, KeyFound, ServeCheck
from detect.records.text_assumptions import of_serve_check
from tests.detect.report.examples import make_spec


def a_check(**changes: Any) -> ServeCheck:
    """A check that passed."""
    spec = make_spec()
    answers = [AnswerFound(prompt=i, tokens=100, tuples=96, log10_pvalue=-20.5 - i) for i in range(3)]
    record = ServeCheck(
        created="2026-11-26T01:29:00+00:00",
        versions={"dyetrace": "0.1.0", "python": "3.11.7"},
        alpha=1e-6,
        assumptions=of_serve_check(3, 3),
        made=Made(code_sha256="ab" * 32),
        url="http://127.0.0.1:8000/v1",
        model="smol",
        endpoint="chat",
        spec=spec,
        spec_id=spec.spec_id,
        scheme=spec.scheme,
        epoch=spec.epoch,
        key_fingerprint=spec.key_fingerprint,
        tenant="acme",
        temperature=0.7,
        max_tokens=200,
        token_ids="server",
        keys=[
            KeyFound(key="global", tuples=144, log10_pvalue=-39.2),
            KeyFound(key="tenant:acme", tuples=144, log10_pvalue=-37.1),
        ],
        answers=answers,
        others={"zenith": -0.4},
        checks=[
            Check(name="global key", status="PASS", reason="p = 10^-39.2 over 144 tuples"),
            Check(name="opting out", status="NOTE", reason="honoured"),
        ],
        verdict="MARKED, for account acme",
    )
    return msgspec.structs.replace(record, **changes)


def hostile(text: str) -> ServeCheck:
    """A check of a server that says ``text`` wherever it can."""
    checks = [Check(name=text, status="FAIL", reason=text), Check(name="n", status="OPEN", reason=text)]
    keys = [KeyFound(key=f"tenant:{text}", tuples=4, log10_pvalue=-1.0)]
    named = dict.fromkeys(("url", "model", "endpoint", "tenant", "verdict", "scheme", "spec_id"), text)
    return a_check(**named, keys=keys, checks=checks, others={text: -0.1}, versions={text: text})
