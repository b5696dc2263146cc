"""Twins that were drawn later, through an endpoint: the law test and the bets are of the same pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.distillation.server import Server
from detect.records.twins import LawTest
from detect.twins import endpoint, lawful
from detect.twins.preparing import TwinsJob
from tests.detect.student.asking.planned import QUICK
from tests.detect.twins.made import KEY, ledger_of, twins
from tests.tiny_models import CAUSAL, made, saved
from watermark.regenerate import MODEL

PAIRS = 64


@pytest.fixture
def job(suspect: Server, tmp_path: Path) -> TwinsJob:
    pairs = [
        twins(
            number, f"Nobody saw the {number} owls.", f"It was {number} of the ships.",
            served=0, level="regenerated", proof=None, engine={MODEL: "a" * 64},
        )
        for number in range(PAIRS)
    ]  # fmt: skip
    owner, other = (saved(made(CAUSAL["llama"], seed), tmp_path / f"model-{seed}") for seed in range(2))
    ledger = ledger_of(tmp_path, pairs)
    return TwinsJob(
        suspect=suspect.url, model="student", ledger=ledger, secret=KEY, owner=owner, controls=(other,),
        target_log10=0.001, dtype="float32",
    )  # fmt: skip


def test_all_pairs_are_asked_about_though_the_target_is_reached(
    job: TwinsJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pairs may be of another law than all of them together, which is what the law test bounds."""
    of = lawful.law_of

    def passes(*args: Any, **more: Any) -> LawTest:
        return msgspec.structs.replace(of(*args, **more), veto=None, bias=0.0)

    monkeypatch.setattr(lawful, "law_of", passes)
    found = endpoint.trace_twins_endpoint(job, tmp_path / "out", client=QUICK)
    assert found.pairs.asked == PAIRS and found.queries is not None and found.queries.stopped == "plan finished"
    assert max(point.log10_evalue or 0.0 for point in found.curve) >= job.target_log10
