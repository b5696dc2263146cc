"""SGLang's processor **at its interface alone**: no SGLang runs here.

Requests are made by hand as `sglang.srt.managers.schedule_batch.Req` of 0.5.23 has them: `rid`, `origin_input_ids`,
`output_ids` (an `array`), `decode_batch_idx`, `sampling_params`, `to_finish`, `finished()`, referred to weakly from
``custom_params["__req__"]``. `_Scheduler` steps a batch in the order of its synchronous event loop.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import weakref
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.watermark.engines.conformance import Answered, conform
from tests.watermark.engines.operator import KEY, VOCABULARY, settings_in, spec_of
from watermark.engines import sglang
from watermark.engines.hook.hook import REQUESTS, Hook
from watermark.engines.sglang import DyetraceProcessor, Requests, truncated
from watermark.errors import DyetraceError

WHOLE = 1 << 30  # SGLang's top_k for the whole vocabulary


@dataclass
class _Sampling:
    temperature: float = 1.0
    top_k: int = WHOLE
    top_p: float = 1.0
    min_p: float = 0.0


@dataclass(eq=False)
class _Request:
    rid: str
    origin_input_ids: array[int]
    sampling_params: _Sampling
    arguments: dict[str, Any] = field(default_factory=dict)
    output_ids: array[int] = field(default_factory=lambda: array("q"))
    decode_batch_idx: int = 0
    to_finish: Any = None
    finished_reason: Any = None

    def __post_init__(self) -> None:
        self.params = self.arguments | {"__req__": weakref.proxy(self)}

    def finished(self) -> bool:
        return self.finished_reason is not None


class _Scheduler:
    """Logits of a step from the last two tokens of each request; then SGLang's order: processor, temperature, draw."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        generator = torch.Generator().manual_seed(5)
        self._table = torch.randn(VOCABULARY, VOCABULARY, generator=generator) * 2

    def logits(self, tokens: list[int]) -> torch.Tensor:
        return self._table[tokens[-1]] + self._table[tokens[-2]]

    def step(self, batch: list[_Request], *, decode: bool) -> None:
        for request in batch:
            request.decode_batch_idx += decode
        logits = torch.stack([self.logits([*r.origin_input_ids, *r.output_ids]) for r in batch])
        logits = self._requests.apply(logits, [r.params for r in batch])
        heat = torch.tensor([[r.sampling_params.temperature] for r in batch])
        final = truncated(logits / heat, [r.sampling_params for r in batch])
        for request, token in zip(batch, torch.multinomial(final.softmax(-1), 1)[:, 0].tolist(), strict=True):
            request.output_ids.append(token)
            request.finished_reason = request.to_finish


def _requests(folder: Path, **fields: Any) -> Requests:
    spec = spec_of(**({"global_share": 0.3} | fields.pop("spec", {})))
    return Requests(Hook(settings_in(folder, spec, **fields)))


def _request(name: str, tenant: str | None, **sampling: Any) -> _Request:
    arguments = {} if tenant is None else {"dyetrace_tenant": tenant}
    return _Request(name, array("q", [3 + len(name), 4, 5]), _Sampling(**sampling), arguments)


def test_every_choice_in_a_mixed_batch_is_the_references(tmp_path: Path) -> None:
    requests = _requests(tmp_path, tenants=["acme", "beta"], allow_off=True)
    scheduler = _Scheduler(requests)
    cut = {"temperature": 0.9, "top_k": 20}
    batch = [_request(f"{tenant}{n}", tenant, **cut) for tenant in ("acme", "beta") for n in range(3)]
    off = _request("off", "acme", **cut)
    off.params["dyetrace_mark"] = "off"
    scheduler.step([*batch, off], decode=False)
    for step in range(79):
        present = [r for n, r in enumerate([*batch, off]) if step < 40 + 8 * n]  # others end, or were cancelled
        scheduler.step(present[::-1] if step % 2 else present, decode=True)
    answers = []
    for request in [*batch, off]:
        sequence = [*request.origin_input_ids, *request.output_ids]
        rows = [scheduler.logits(sequence[: 3 + at]) / 0.9 for at in range(len(request.output_ids))]
        tops = [row.topk(20) for row in rows]
        shown = [dict(zip(t.indices.tolist(), t.values.tolist(), strict=True)) for t in tops]
        tenant, marked = request.arguments["dyetrace_tenant"], request is not off
        answers.append(Answered(tenant, sequence[:3], list(request.output_ids), marked, shown if marked else None))
    report = conform(requests._hook.epoch.spec, KEY, answers, log10_p=-10)
    assert report.tuples > 300


def test_a_request_that_was_retracted_goes_on_under_its_sub_key(tmp_path: Path) -> None:
    requests = _requests(tmp_path)
    scheduler = _Scheduler(requests)
    request = _request("r", "acme")
    scheduler.step([request], decode=False)
    for _ in range(20):
        scheduler.step([request], decode=True)
    before = requests._answers["r"][0]
    request.decode_batch_idx = 0  # its cache was given up; prompt and output are prefilled anew
    scheduler.step([request], decode=False)
    scheduler.step([request], decode=True)
    assert requests._answers["r"][0] is before
    assert len(request.output_ids) == 23


def test_the_overlapped_scheduler_which_samples_before_the_last_token_is_known_is_noticed(tmp_path: Path) -> None:
    requests = _requests(tmp_path)
    scheduler = _Scheduler(requests)
    request = _request("r", "acme")
    scheduler.step([request], decode=False)
    late = request.output_ids.pop()
    request.decode_batch_idx += 1
    with pytest.raises(DyetraceError, match="hides tokens"):
        requests.apply(torch.zeros(1, VOCABULARY), [request.params])
    assert late >= 0


def test_rows_of_drafts_are_noticed(tmp_path: Path) -> None:
    requests = _requests(tmp_path)
    request = _request("r", "acme")
    with pytest.raises(DyetraceError, match="several rows"):
        requests.apply(torch.zeros(2, VOCABULARY), [request.params, request.params])


def test_a_row_without_its_request_stops_the_engine(tmp_path: Path) -> None:
    with pytest.raises(DyetraceError, match="names no request"):
        _requests(tmp_path).apply(torch.zeros(1, VOCABULARY), [None])
    with pytest.raises(DyetraceError, match="names no request"):
        _requests(tmp_path).apply(torch.zeros(1, VOCABULARY), [])


def test_speculative_decoding_is_refused_at_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(tmp_path, spec_of())
    monkeypatch.setenv("DYETRACE_SPEC", settings.spec)
    monkeypatch.setenv("DYETRACE_KEY", settings.key)
    monkeypatch.setattr(sglang, "_speculative_algorithm", lambda: "EAGLE")
    sglang.requests.cache_clear()
    try:
        with pytest.raises(DyetraceError, match="drafts of EAGLE"):
            DyetraceProcessor()(torch.zeros(1, VOCABULARY), [{}])
    finally:
        sglang.requests.cache_clear()


def test_an_engine_that_is_not_configured_serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DYETRACE_CONFIG", "DYETRACE_SPEC", "DYETRACE_KEY"):
        monkeypatch.delenv(name, raising=False)
    sglang.requests.cache_clear()
    with pytest.raises(DyetraceError, match="not configured"):
        DyetraceProcessor()(torch.zeros(1, VOCABULARY), [{}])


class _FinishAbort:
    def __init__(self, message: str, status_code: int, err_type: str) -> None:
        self.message, self.status_code, self.err_type = message, status_code, err_type


def test_a_refused_request_is_aborted_with_400_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("sglang.srt.managers.schedule_batch")
    module.FINISH_ABORT = _FinishAbort  # type: ignore[attr-defined]
    for name in ("sglang", "sglang.srt", "sglang.srt.managers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    requests = _requests(tmp_path, tenants=["acme"])
    scheduler = _Scheduler(requests)
    good, unknown, nameless, greedy = (
        _request("good", "acme"), _request("unknown", "nobody"), _request("nameless", None),
        _request("greedy", "acme", top_k=1),
    )  # fmt: skip
    scheduler.step([good, unknown, nameless, greedy], decode=False)
    for request, why in [(unknown, "not known"), (nameless, "names no account"), (greedy, "temperature 0")]:
        assert request.finished_reason.status_code == 400
        assert why in request.finished_reason.message
    assert good.finished_reason is None
    assert requests._hook.counters.get(REQUESTS, result="refused") == 3


def test_without_an_abort_a_refusal_stops_the_engine(tmp_path: Path) -> None:
    if importlib.util.find_spec("sglang"):
        pytest.skip("SGLang is installed: it aborts the one request")
    request = _request("r", None)
    with pytest.raises(DyetraceError, match="names no account"):
        _requests(tmp_path).apply(torch.zeros(1, VOCABULARY), [request.params])


def test_a_green_list_biases_the_distribution_after_temperature(tmp_path: Path) -> None:
    green = {"global_share": 1.0, "scheme": "green_list", "parameters": {"gamma": 0.5, "delta": 2.0}}
    requests = _requests(tmp_path, spec=green)
    logits = torch.randn(1, VOCABULARY)
    request = _request("r", None, temperature=0.5)
    out = requests.apply(logits.clone(), [request.params])
    added = (out - logits) / 0.5
    assert set(added.round(decimals=3).flatten().tolist()) == {0.0, 2.0}


def test_answers_whose_requests_are_gone_are_forgotten(tmp_path: Path) -> None:
    requests = _requests(tmp_path)
    scheduler = _Scheduler(requests)
    gone, stays = _request("gone", "acme"), _request("stays", "acme")
    scheduler.step([gone, stays], decode=False)
    del gone
    scheduler.step([stays], decode=True)
    assert list(requests._answers) == ["stays"]
