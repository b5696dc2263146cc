"""transformers' continuous batching for real, on a small random model: the mark is there, or nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM, LogitsProcessor

from tests.watermark.engines.conformance import Answered, conform, evidence
from tests.watermark.engines.operator import KEY, VOCABULARY, settings_in, spec_of
from watermark.engines.hook.hook import REQUESTS, TOKENS, Hook
from watermark.engines.transformers.processor import WatermarkProcessor
from watermark.engines.transformers.serving import MarkProcessor, watermarked_manager
from watermark.errors import DyetraceError
from watermark.keys import KeyRing
from watermark.spec import WatermarkSpec

TEMPERATURE, TOP_K = 0.9, 20
SMALL_CACHE = {"num_blocks": 48, "page_size": 16, "max_batch_tokens": 32}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=0.8, eos_token_id=None, bos_token_id=None, pad_token_id=0, max_position_embeddings=512,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def _generation(**fields: Any) -> GenerationConfig:
    usual = {"do_sample": True, "max_new_tokens": 60, "temperature": TEMPERATURE, "top_k": TOP_K}
    return GenerationConfig(**(usual | {"eos_token_id": -1, "pad_token_id": 0} | fields))


def _hook(folder: Path, spec: WatermarkSpec | None = None, **fields: Any) -> Hook:
    return Hook(settings_in(folder, spec_of(global_share=0.0) if spec is None else spec, **fields))


def _manager(model: Any, hook: Hook, **fields: Any) -> Any:
    return watermarked_manager(model, hook, _generation(**fields), ContinuousBatchingConfig(**SMALL_CACHE))


def _results(manager: Any, count: int) -> dict[str, Any]:
    """Results of so many requests; the manager is stopped then."""
    found: dict[str, Any] = {}
    try:
        while len(found) < count:
            result = manager.get_result(timeout=1)
            if result is None:
                assert manager.is_running(), manager.background_thread_status.fatal_error
            elif result.is_finished():
                found[result.request_id] = result
    finally:
        manager.stop()
    return found


def _candidates(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> list[dict[int, float]]:
    """The final distribution of each position, by one plain forward pass."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].float() / TEMPERATURE
    best, ids = logits.log_softmax(-1).topk(TOP_K)
    return [dict(zip(i.tolist(), b.tolist(), strict=True)) for i, b in zip(ids, best, strict=True)]


def _answered(model: Any, result: Any, tenant: str | None, *, marked: bool = True) -> Answered:
    prompt, tokens = result.prompt_ids, result.generated_tokens
    return Answered(tenant, prompt, tokens, marked, _candidates(model, prompt, tokens) if marked else None)


def test_every_choice_in_a_mixed_batch_is_the_references(model: Any, tmp_path: Path) -> None:
    spec = spec_of(global_share=0.3)
    hook = _hook(tmp_path, spec, tenants=["acme", "beta"], allow_off=True)
    manager = _manager(model, hook)
    manager.start()
    tenants = ["acme", "beta", "acme", "beta", "acme", "beta"]
    lengths = [3, 40, 1, 7, 70, 2]  # the long prompts are prefilled in parts
    requests = {
        manager.add_request(list(range(9, 9 + length)), dyetrace_tenant=tenant, max_new_tokens=30 + 20 * index): tenant
        for index, (tenant, length) in enumerate(zip(tenants, lengths, strict=True))
    }
    plain = manager.add_request([5, 6, 7], dyetrace_tenant="acme", dyetrace_mark="off", max_new_tokens=80)
    results = _results(manager, 7)
    manager.stop(block=True)
    hook.close()
    answers = [_answered(model, results[name], tenant) for name, tenant in requests.items()]
    answers.append(_answered(model, results[plain], "acme", marked=False))
    report = conform(spec, KEY, answers, log10_p=-10)
    assert report.tuples > 400
    assert hook.counters.get(REQUESTS, result="marked") == 6
    assert hook.counters.get(REQUESTS, result="opted out") == 1
    told = hook.counters.get(TOKENS, marked="yes", why="")
    told += hook.counters.get(TOKENS, marked="no", why="repeated context")
    assert told == sum(len(answer.tokens) for answer in answers if answer.marked)


class _Naive(LogitsProcessor):
    """The hook of ``generate`` put into continuous batching as it is."""

    supports_continuous_batching = True

    def __init__(self, spec: WatermarkSpec) -> None:
        self._spec = spec

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = len(scores)
        mark = WatermarkProcessor(
            self._spec, KeyRing.from_master(KEY), [None] * rows, [0] * rows, torch.zeros(rows, dtype=torch.long), 1,
            0.0, scores.device,
        )  # fmt: skip
        return mark(input_ids.reshape(rows, -1), scores)


def test_a_naive_processor_loses_its_mark_there_and_ours_keeps_it(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of()
    ring = KeyRing.from_master(KEY)
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12]]

    def marked(manager: Any) -> float:
        manager.start()
        for prompt in prompts:
            manager.add_request(prompt)
        results = _results(manager, len(prompts)).values()
        return evidence(spec, ring, None, [Answered(None, r.prompt_ids, r.generated_tokens) for r in results])

    assert marked(_manager(model, _hook(tmp_path, spec))) < -10
    original = type(model)._get_logits_processor
    monkeypatch.setattr(
        type(model), "_get_logits_processor", lambda *given, **more: [*original(*given, **more), _Naive(spec)]
    )
    naive = model.init_continuous_batching(
        generation_config=_generation(), continuous_batching_config=ContinuousBatchingConfig(**SMALL_CACHE)
    )
    assert marked(naive) > -4


def test_samples_of_one_prompt_have_sub_keys_of_their_own(model: Any, tmp_path: Path) -> None:
    spec = spec_of()
    manager = _manager(model, _hook(tmp_path, spec), num_return_sequences=4)
    manager.start()
    manager.add_request([5, 6, 7, 8])
    texts = {tuple(result.generated_tokens) for result in _results(manager, 4).values()}
    assert len(texts) == 4


def test_a_request_that_made_room_for_others_goes_on_under_its_sub_key(model: Any, tmp_path: Path) -> None:
    spec = spec_of()
    hook = _hook(tmp_path, spec)
    generation = _generation(max_new_tokens=100)
    tight = ContinuousBatchingConfig(num_blocks=16, page_size=16, max_batch_tokens=32, allow_block_sharing=False)
    manager = watermarked_manager(model, hook, generation, tight)
    resumed: list[int] = []
    mark = manager.logit_processor.logits_processor[-1]
    before = mark.prepare_tensor_args

    def watched(requests: list[Any]) -> torch.Tensor:
        resumed.extend(1 for future in requests if future.state._true_initial_tokens)
        prepared: torch.Tensor = before(requests)
        return prepared

    mark.prepare_tensor_args = watched
    manager.start()
    for first in range(6):
        manager.add_request([5 + first, 6, 7, 8])
    results = _results(manager, 6).values()
    assert resumed, "the cache was large enough for all requests at once: nothing was tested"
    report = conform(spec, KEY, [_answered(model, result, None) for result in results], log10_p=-20)
    assert report.tuples > 500
    told = hook.counters.get(TOKENS, marked="yes", why="")
    told += hook.counters.get(TOKENS, marked="no", why="repeated context")
    assert told == 600


def test_a_cancelled_request_is_forgotten_and_the_others_stay_right(model: Any, tmp_path: Path) -> None:
    spec = spec_of()
    hook = _hook(tmp_path, spec)
    manager = _manager(model, hook, max_new_tokens=200)
    manager.start()
    gone = manager.add_request([5, 6, 7], streaming=True)
    partial = None
    while partial is None or len(partial.generated_tokens) < 20:
        partial = manager.get_result(timeout=1) or partial
    manager.cancel_request(gone)
    stays = manager.add_request([8, 9, 10])
    while (result := manager.get_result(request_id=stays, timeout=1)) is None:
        assert manager.is_running()
    manager.stop()
    answers = [_answered(model, found, None) for found in (partial, result)]
    report = conform(spec, KEY, answers, log10_p=-10)
    assert report.tuples > 150
    mark = manager.logit_processor.logits_processor[-1]
    assert gone not in mark._answers


def test_a_request_that_is_refused_gets_the_reason_and_no_text(model: Any, tmp_path: Path) -> None:
    hook = _hook(tmp_path, tenants=["acme"])
    manager = _manager(model, hook)
    manager.start()
    bad = [
        manager.add_request([5, 6], dyetrace_tenant="nobody"),
        manager.add_request([5, 6]),
        manager.add_request([5, 6], dyetrace_tenant="acme", dyetrace_mark="off"),
        manager.add_request([5, 6], dyetrace_tenant=7),
    ]
    good = manager.add_request([5, 6], dyetrace_tenant="acme")
    results = _results(manager, 5)
    assert all(results[name].error and not results[name].generated_tokens for name in bad)
    assert "not known" in results[bad[0]].error
    assert "names no account" in results[bad[1]].error
    assert "not allowed" in results[bad[2]].error
    assert results[good].error is None
    assert len(results[good].generated_tokens) == 60


def test_greedy_requests_get_an_error_or_are_counted(model: Any, tmp_path: Path) -> None:
    strict = _manager(model, _hook(tmp_path, spec_of()), do_sample=False, temperature=None, top_k=None)
    strict.start()
    strict.add_request([5, 6])
    (result,) = _results(strict, 1).values()
    assert "temperature 0" in result.error
    hook = _hook(tmp_path, spec_of(), on_unmarkable="pass")
    lenient = _manager(model, hook, do_sample=False, temperature=None, top_k=None)
    lenient.start()
    lenient.add_request([5, 6])
    (result,) = _results(lenient, 1).values()
    assert result.error is None
    assert hook.counters.get(REQUESTS, result="greedy") == 1


def test_a_green_list_marks_greedy_text(model: Any, tmp_path: Path) -> None:
    spec = spec_of(scheme="green_list", parameters={"gamma": 0.25, "delta": 8.0})
    manager = _manager(model, _hook(tmp_path, spec), do_sample=False, temperature=None, top_k=None)
    manager.start()
    for first in range(4):
        manager.add_request([5 + first, 6, 7])
    results = _results(manager, 4).values()
    answers = [Answered(None, r.prompt_ids, r.generated_tokens) for r in results]
    assert evidence(spec, KeyRing.from_master(KEY), None, answers) < -6


@pytest.mark.parametrize(
    "setting", [{"use_async_batching": True}, {"use_cuda_graph": True}, {"default_compile_level": 1}]
)
def test_settings_that_would_lose_the_mark_are_refused(model: Any, tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(DyetraceError, match="would lose the mark"):
        watermarked_manager(model, _hook(tmp_path), _generation(), ContinuousBatchingConfig(**setting))


def test_a_token_that_is_still_hidden_stops_the_step(model: Any, tmp_path: Path) -> None:
    mark = _processor(model, _hook(tmp_path, spec_of()))
    state = _state(
        initial_tokens=[5, 6, 7], generated_tokens=[8], position_offset=5
    )  # two tokens were fed, one is shown
    mark.prepare_tensor_args([_future(state)])
    with pytest.raises(DyetraceError, match="hides tokens"):
        mark(torch.zeros(1, VOCABULARY), torch.zeros(1, dtype=torch.int32))


def test_a_step_that_is_replayed_without_the_processor_is_noticed(model: Any, tmp_path: Path) -> None:
    mark = _processor(model, _hook(tmp_path, spec_of()))
    state = _state(initial_tokens=[5, 6, 7], position_offset=3)
    mark.prepare_tensor_args([_future(state)])
    with pytest.raises(DyetraceError, match="did not mark the last one"):
        mark.prepare_tensor_args([_future(state)])


def test_a_step_that_was_not_prepared_is_noticed(model: Any, tmp_path: Path) -> None:
    mark = _processor(model, _hook(tmp_path, spec_of()))
    mark.prepare_tensor_args([_future(_state(initial_tokens=[5, 6, 7], position_offset=3))])
    mark(torch.zeros(1, VOCABULARY), torch.zeros(1, dtype=torch.int32))
    with pytest.raises(DyetraceError, match="not prepared"):
        mark(torch.zeros(1, VOCABULARY), torch.zeros(1, dtype=torch.int32))


def test_generate_itself_refuses_the_configuration_of_a_manager(model: Any, tmp_path: Path) -> None:
    manager = _manager(model, _hook(tmp_path, spec_of()))
    with pytest.raises(DyetraceError, match="cannot see whole requests"):
        model.generate(torch.tensor([[5, 6]]), generation_config=manager.generation_config)


def test_the_generation_configuration_holds_no_secret(model: Any, tmp_path: Path) -> None:
    manager = _manager(model, _hook(tmp_path, spec_of()))
    shown = repr(manager.generation_config) + manager.generation_config.to_json_string()
    assert "watermarking_config" in shown
    assert KEY.reveal_hex() not in shown


def _processor(model: Any, hook: Hook) -> MarkProcessor:
    mark = _manager(model, hook).logit_processor.logits_processor[-1]
    assert isinstance(mark, MarkProcessor)
    return mark


def _state(**fields: Any) -> Any:
    from transformers.generation.continuous_batching.requests import RequestState

    _state.kept = RequestState(request_id="r", **fields)  # type: ignore[attr-defined]
    return _state.kept  # type: ignore[attr-defined]


def _future(state: Any) -> Any:
    from transformers.generation.continuous_batching.requests import FutureRequestState

    return FutureRequestState(state, True, {}, 1)
