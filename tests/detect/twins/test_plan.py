"""A plan of a test by twins: read as it was written, refused where it can't be meant, the same for the same pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detect.records.trace import ModelSeen
from detect.records.twins import LedgerSeen, PairCounts
from detect.twins.plan import (
    PLAN_FILE,
    Choice,
    PlannedPair,
    TwinPlan,
    canonical_plan,
    check_same_test,
    keep_plan,
    kept_plan,
    parse_plan,
    plan_sha256,
)
from watermark.errors import DyetraceError


def plan(**fields: Any) -> TwinPlan:
    counts = PairCounts(eligible=3, sampled=3, tied=1, follow_ups=0, erased=0, used=2, asked=0, silent=0)
    defaults: dict[str, Any] = {
        "created": "2026-11-30T12:00:00+00:00",
        "arguments": {"target": 10.0, "seed": "dyetrace", "tenants": ["acme"]},
        "mode": "api",
        "suspect": ModelSeen(name="student at https://host/v1", sha256="", tokenizer="text"),
        "reference": None,
        "owner": None,
        "url": "https://host/v1",
        "model": "student",
        "ask": "answers",
        "measure": {"completions": False, "samples": 0},
        "columns": ["combined"],
        "covariates": [],
        "choice": Choice(
            level="withheld",
            accounts=["acme"],
            since=None,
            until=None,
            sample=1.0,
            seed="dyetrace",
            most=None,
            offered=3,
            counts=counts,
        ),
        "pairs": [PlannedPair(id="0" * 32, leaf="1" * 64), PlannedPair(id="2" * 32, leaf="3" * 64)],
        "ledger": LedgerSeen(
            name="twins.ledger", head="4" * 64, pairs=3, root="5" * 64, committed=None, key_fingerprint="6" * 32
        ),
    }
    return TwinPlan(**{**defaults, **fields})


def test_a_plan_of_an_earlier_release_keeps_its_hash() -> None:
    assert plan_sha256(plan()) == "22461836342334ea05a0058b66043823e7c863cad11beec2e61e387847b3bcdf"
    assert plan_sha256(plan(left_out=["temperature"])) != plan_sha256(plan())


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = plan()
    keep_plan(tmp_path, made)
    kept = kept_plan(tmp_path)
    assert kept == made and kept is not None and plan_sha256(kept) == plan_sha256(made)
    assert json.loads((tmp_path / PLAN_FILE).read_bytes())["pairs"][1]["leaf"] == "3" * 64


def test_a_plan_is_never_overwritten(tmp_path: Path) -> None:
    keep_plan(tmp_path, plan())
    with pytest.raises(DyetraceError, match="exists already"):
        keep_plan(tmp_path, plan(alpha=0.01))
    kept = kept_plan(tmp_path)
    assert kept == plan()


def test_a_folder_without_a_plan_has_none(tmp_path: Path) -> None:
    assert kept_plan(tmp_path) is None


def test_whole_numbers_where_floats_belong_change_no_hash() -> None:
    assert canonical_plan(plan(target_log10=10)) == canonical_plan(plan(target_log10=10.0))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target_log10": 0.0}, "positive number"),
        ({"target_log10": float("inf")}, "positive number"),
        ({"alpha": 0.0}, "alpha"),
        ({"pairs": []}, "no pairs"),
        ({"pairs": [PlannedPair(id="0" * 32, leaf="1" * 64)] * 2}, "twice"),
        ({"url": "https://user:word@host/v1"}, "holds a user"),
        ({"version": 7}, "version 7"),
    ],
)
def test_what_can_not_be_meant_is_refused_in_one_line(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DyetraceError, match=said) as caught:
        plan(**fields)
    assert "\n" not in str(caught.value) and "word" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not whole JSON"),
        (b"{}", "not a plan of a test by twins"),
        (b'{"version": 9}', "version 9"),
        (b'{"pairs":' + b"[" * 100_000, "not whole JSON|not a plan"),
    ],
)
def test_files_that_are_no_plans_are_refused_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / PLAN_FILE).write_bytes(data)
    with pytest.raises(DyetraceError, match=said) as caught:
        kept_plan(tmp_path)
    assert "\n" not in str(caught.value)


def test_unknown_fields_are_refused() -> None:
    data = msgspec.json.encode(msgspec.to_builtins(plan()) | {"later": 1})
    with pytest.raises(DyetraceError, match="later"):
        parse_plan(data, "plan")


def test_a_command_that_asks_for_something_else_is_told_what_differs(tmp_path: Path) -> None:
    made = plan()
    check_same_test(made, dict(made.arguments), tmp_path)
    with pytest.raises(DyetraceError, match=r"\(these are not the same: seed, target\)"):
        check_same_test(made, {**made.arguments, "target": 6.0, "seed": "x"}, tmp_path)
