"""A plan fixes everything before the first query, holds no secret and no text, and is known again by its hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from detect.race.chances import Chances
from detect.race.plan import (
    PlannedChances,
    RaceAsking,
    RacePlan,
    RaceRule,
    ServedSeen,
    canonical_plan,
    chances_path,
    encode_chances,
    is_race_plan,
    load_chances,
    load_plan,
    parse_plan,
    plan_sha256,
    save_plan,
)
from detect.records.race import SamplingSeen
from detect.records.trace import ModelSeen
from watermark.errors import DyetraceError, EvidenceError

CUTS = [(0, 9), (0, 12), (3, 4)]


def chances() -> PlannedChances:
    tokens = np.array([[5, 7, -1]] * len(CUTS), dtype=np.int32)
    return PlannedChances(Chances(tokens, np.array([[0.6, 0.4, 0.0]] * len(CUTS))), np.full(8, 0.5))


def plan(**fields: Any) -> RacePlan:
    defaults: dict[str, Any] = {
        "created": "2026-11-24T12:00:00+00:00",
        "arguments": {"ask": "auto"},
        "url": "http://127.0.0.1:9/v1",
        "model": "student",
        "spec_id": "dt1-" + "0" * 32,
        "key_fingerprint": "f" * 32,
        "accounts": [],
        "owner": ModelSeen(name="owner", sha256="a" * 64, tokenizer="same"),
        "sampling": SamplingSeen(source="recorded", settings=["temperature 0.8"]),
        "served": ServedSeen(name="served.jsonl", sha256="b" * 64, answers=4, fresh=8, unheld=0),
        "rule": RaceRule(per_answer=6, spread=0.5),
        "asking": RaceAsking(ask="greedy", form="continue", shown="messages", ids=False),
        "cuts": CUTS,
        "chances_sha256": "c" * 64,
        "decoy_seed": "dyetrace",
        "decoys": 100,
    }
    return RacePlan(**{**defaults, **fields})


def test_a_plan_of_an_earlier_release_keeps_its_hash() -> None:
    assert plan_sha256(plan()) == "7469f5bd0e0adb904e5fe1f42561081600efe7da64ef75d3f8915ec3abef412e"
    bare = RaceAsking(ask="greedy", form="continue", shown="messages", ids=False, left_out=["temperature"])
    assert plan_sha256(plan(asking=bare)) != plan_sha256(plan())


def test_a_plan_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    import hashlib

    data = encode_chances(chances())
    made = plan(chances_sha256=hashlib.sha256(data).hexdigest())
    save_plan(tmp_path / "plan.json", made, data)
    assert load_plan(tmp_path / "plan.json") == made
    assert is_race_plan((tmp_path / "plan.json").read_bytes())
    again = load_chances(tmp_path / "plan.json", made)
    assert np.array_equal(again.cuts.tokens, chances().cuts.tokens)
    assert np.array_equal(again.cuts.chances, chances().cuts.chances)
    assert encode_chances(again) == data


def test_each_field_is_in_the_hash() -> None:
    first = plan()
    for name, value in (("cuts", CUTS[:2]), ("chances_sha256", "d" * 64), ("accounts", ["acme"]), ("alpha", 1e-5)):
        assert plan_sha256(plan(**{name: value})) != plan_sha256(first)
    assert plan_sha256(parse_plan(canonical_plan(first), "the plan")) == plan_sha256(first)


def test_a_plan_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    data = encode_chances(chances())
    save_plan(tmp_path / "plan.json", plan(), data)
    with pytest.raises(DyetraceError):
        save_plan(tmp_path / "plan.json", plan(model="other"), data)
    assert load_plan(tmp_path / "plan.json") == plan()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"cuts": []}, "no places"),
        ({"cuts": [(0, 9), (0, 9)]}, "order of serving"),
        ({"cuts": [(1, 9), (0, 9)]}, "order of serving"),
        ({"cuts": [(-1, 9)]}, "order of serving"),
        ({"target_log10": 0.0}, "target"),
        ({"target_log10": float("inf")}, "target"),
        ({"alpha": 0.0}, "alpha"),
        ({"url": "http://user:secret@host/v1"}, "credentials|password|user"),
    ],
)
def test_what_can_not_be_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(DyetraceError, match=says) as caught:
        plan(**fields)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("edit", [{"version": 99}, {"wibble": 1}, {"cuts": "all"}, {"asking": None}])
def test_a_plan_of_another_form_is_refused_in_one_line(edit: dict[str, Any]) -> None:
    fields = msgspec.json.decode(canonical_plan(plan())) | edit
    with pytest.raises(DyetraceError) as caught:
        parse_plan(msgspec.json.encode(fields), "plan x.json")
    assert "\n" not in str(caught.value) and "x.json" in str(caught.value)


def test_other_files_are_no_such_plan() -> None:
    for data in (b"", b"[]", b"{}", b"\xff", b'{"format": "dyetrace-twin-plan"}', b"[" * 100_000):
        assert not is_race_plan(data)


def test_chances_that_are_not_the_plans_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(DyetraceError, match="keep that file beside the plan"):
        load_chances(path, plan())
    chances_path(path).write_bytes(encode_chances(chances()))
    with pytest.raises(EvidenceError, match="not the file that the plan was made with"):
        load_chances(path, plan())
