"""The test that a server makes of itself before it takes requests."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.watermark.engines.operator import KEY, spec_of
from watermark.engines.hook.answers import statistics
from watermark.engines.hook.epoch import Epoch
from watermark.engines.hook.rows import Rows
from watermark.engines.hook.selftest import FOUND_Z, self_test
from watermark.errors import DyetraceError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"global_share": 0.0},
        {"global_share": 0.5, "context_width": 1},
        {"context_width": 5},
        {"scheme": "tournament", "parameters": {"depth": 20}},
        {"scheme": "green_list", "parameters": {"gamma": 0.5, "delta": 4.0}},
        {"scheme": "green_list", "parameters": {"gamma": 0.25, "delta": 4.0}, "context_width": 0},
    ],
)
def test_every_scheme_that_marks_is_found(fields: dict[str, Any]) -> None:
    assert self_test(Epoch(spec_of(**fields), KEY), CPU) > FOUND_Z


def test_a_hook_that_does_not_mark_keeps_the_server_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "mark", lambda self, logits, contexts, left: logits)
    with pytest.raises(DyetraceError, match="nothing is served"):
        self_test(Epoch(spec_of(), KEY), CPU)


def test_a_bias_too_weak_to_be_found_keeps_the_server_from_starting() -> None:
    weak = spec_of(scheme="green_list", parameters={"gamma": 0.5, "delta": 0.1})
    with pytest.raises(DyetraceError, match="self-test failed"):
        self_test(Epoch(weak, KEY), CPU)


def test_a_key_of_the_wrong_sub_key_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_another(epoch: Epoch, tenant: str | None, index: int, found: Any) -> Any:
        return statistics(epoch, tenant, 1, found)

    monkeypatch.setattr("watermark.engines.hook.selftest.statistics", of_another)
    with pytest.raises(DyetraceError, match="self-test failed"):
        self_test(Epoch(spec_of(), KEY), CPU)
