"""What a race readout is asked to do is refused where it doesn't go together, before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detect.race.job import RaceJob
from watermark.errors import DyetraceError
from watermark.generate import SamplingUsed


def job(suspect: str = "student", **more: Any) -> RaceJob:
    return RaceJob(**{"suspect": suspect, "read": "served.jsonl", "owner_model": Path("owner"), **more})


URL = "https://host/v1"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"alpha": 1.0}, "alpha must lie in"),
        ({"target_log10": 0.0}, "the target must be a positive number"),
        ({"target_log10": float("nan")}, "the target must be a positive number"),
        ({"decoys": -1}, "number of decoys"),
        ({"per_answer": 0}, "must be 1 or more"),
        ({"contexts": 0}, "must be 1 or more"),
        ({"spread": 1.0}, "spread must lie in"),
        ({"spread": float("nan")}, "spread must lie in"),
        ({"taken": "filtered"}, "an innocent model would look guilty"),
        ({"dtype": "float8"}, "dtype"),
        ({"device": "tpu"}, "device"),
        ({"temperature": -1.0}, "temperature must lie in"),
        ({"temperature": float("nan")}, "temperature must lie in"),
        ({"top_p": 0.0}, "top_p must lie in"),
        ({"top_k": -1}, "top_k must lie in"),
        ({"min_p": 1.5}, "min_p must lie in"),
        ({"model": "m"}, "--model names a suspect at its endpoint"),
        ({"ask": "greedy"}, "leave out --ask greedy"),
        ({"via": "prefill"}, "leave out --via prefill"),
        ({"suspect": URL}, "give --model"),
        ({"suspect": URL, "model": " "}, "give --model"),
        ({"suspect": URL, "model": "m", "ask": "weights"}, "leave out --ask weights"),
        ({"suspect": "https://user:secret@host/v1", "model": "m"}, "holds a user"),
    ],
)
def test_what_does_not_go_together_is_named(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(DyetraceError, match=says) as refused:
        job(**asked).check()
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


def test_what_goes_together_is_put_down_by_its_options_names() -> None:
    folder = job(temperature=0.8, complete=Path("hashes.txt"))
    folder.check()
    assert not folder.through_endpoint and folder.sampling == SamplingUsed(temperature=0.8)
    endpoint = job(URL, model="m", ask="bias", via="prefill")
    endpoint.check()
    assert endpoint.through_endpoint and endpoint.sampling is None
    assert folder.arguments["complete"] == "hashes.txt" and folder.arguments["owner_model"] == "owner"
    assert endpoint.arguments["ask"] == "bias" and endpoint.arguments["top_p"] is None
