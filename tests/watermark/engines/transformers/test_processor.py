"""The Hugging Face hook inside the real `generate` of transformers, on a small random model and on the demo model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.configuration_utils import BaseWatermarkingConfig
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from watermark.engines.transformers.processor import WatermarkConfig, WatermarkProcessor
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.prf import MISSING, prf_u32
from watermark.rowkeys import subkey
from watermark.schemes.marking import mark_rows
from watermark.schemes.tournament import Tournament
from watermark.spec import WatermarkSpec

KEY = SecretKey(bytes(range(32)))
VOCABULARY = 500
EOS = 1


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=0.8, eos_token_id=EOS, bos_token_id=None, pad_token_id=0, max_position_embeddings=512,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def _spec(scheme: str = "gumbel", **fields: Any) -> WatermarkSpec:
    return WatermarkSpec(
        scheme=scheme, vocabulary_size=VOCABULARY, tokenizer="t", key_fingerprint=KEY.fingerprint, **fields
    )


def _generate(model: Any, prompts: torch.Tensor, mark: WatermarkConfig | None, **options: Any) -> Any:
    settings = {"do_sample": True, "max_new_tokens": 24, "top_k": 0, "pad_token_id": 0} | options
    with torch.inference_mode():
        return model.generate(prompts, watermarking_config=mark, **settings)


def _winner(key: SecretKey, context: list[int], logits: torch.Tensor) -> int:
    """The definition, one word at a time: argmax of logit - log(-log u)."""
    races = {
        token: float(logits[token]) - math.log(-math.log((prf_u32(key, context, token) + 0.5) / 2**32))
        for token in range(len(logits))
        if logits[token] > -torch.inf
    }
    return max(races, key=races.__getitem__)


def test_every_first_context_gets_the_winner_of_the_race_on_the_final_distribution(model: Any) -> None:
    prompts = torch.tensor([[7, 8, 9, 10], [11, 12, 13, 14]])
    mark = WatermarkConfig(_spec(), KeyRing.from_master(KEY), subkeys=[2, 0])
    out = _generate(
        model, prompts, mark, temperature=0.8, top_k=20, top_p=0.9, repetition_penalty=1.1,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    warpers = [
        RepetitionPenaltyLogitsProcessor(1.1), TemperatureLogitsWarper(0.8), TopKLogitsWarper(20), TopPLogitsWarper(0.9)
    ]  # fmt: skip
    checked = 0
    for row, index in enumerate((2, 0)):
        key = subkey(KeyRing.from_master(KEY).global_key, index)  # type: ignore[arg-type]
        seen: set[tuple[int, ...]] = set()
        for step, logits in enumerate(out.logits):
            ids = out.sequences[row : row + 1, : 4 + step]
            final = logits[row : row + 1].float()
            for warper in warpers:
                final = warper(ids, final)
            context = ids[0, -2:].tolist()
            token = int(out.sequences[row, 4 + step])
            if tuple(context) not in seen:
                assert token == _winner(key, context, final[0])
                checked += 1
            seen.add(tuple(context))
            if token == EOS:
                break
    assert checked > 20


def test_a_prompt_shorter_than_the_context_counts_padding_as_missing(model: Any) -> None:
    prompts = torch.tensor([[0, 0, 9], [5, 6, 7]])
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    mark = WatermarkConfig(_spec(context_width=3), KeyRing.from_master(KEY), subkeys=[0, 0], attention_mask=mask)
    out = _generate(
        model,
        prompts,
        mark,
        attention_mask=mask,
        max_new_tokens=2,
        output_logits=True,
        return_dict_in_generate=True,
    )
    key = subkey(KeyRing.from_master(KEY).global_key, 0)  # type: ignore[arg-type]
    first = int(out.sequences[0, 3])
    assert first == _winner(key, [MISSING, MISSING, 9], out.logits[0][0].float())
    assert int(out.sequences[0, 4]) == _winner(key, [MISSING, 9, first], out.logits[1][0].float())


def test_left_padding_does_not_change_a_row(model: Any) -> None:
    def answers(prompts: torch.Tensor, mask: torch.Tensor) -> list[int]:
        mark = WatermarkConfig(_spec(), KeyRing.from_master(KEY), subkeys=[1] * len(prompts), attention_mask=mask)
        torch.manual_seed(0)
        ids: list[int] = _generate(model, prompts, mark, attention_mask=mask, max_new_tokens=8)[0].tolist()
        return ids[-8:]

    alone = answers(torch.tensor([[9, 10, 11]]), torch.ones(1, 3, dtype=torch.long))
    padded = answers(
        torch.tensor([[0, 0, 9, 10, 11], [5, 6, 7, 8, 9]]), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    )
    assert alone == padded


def test_repeated_contexts_are_left_unmarked() -> None:
    spec = _spec()
    ids = torch.tensor([[3, 4, 8, 5, 6, 5, 6], [3, 4, 8, 5, 6, 7, 6]])
    processor = WatermarkProcessor(
        spec, KeyRing.from_master(KEY), [None, None], [0, 0], torch.zeros(2), 3, 0.0, torch.device("cpu")
    )
    scores = torch.randn(2, VOCABULARY)
    out = processor(ids, scores)
    assert torch.equal(out[0], scores[0])
    assert int((out[1] > -torch.inf).sum()) == 1


def test_samples_of_one_prompt_differ_while_subkeys_last(model: Any) -> None:
    prompt = torch.tensor([[7, 8, 9]])
    out = _generate(model, prompt, WatermarkConfig(_spec(), KeyRing.from_master(KEY)), num_return_sequences=4)
    assert len({tuple(row) for row in out.tolist()}) == 4
    with pytest.raises(DyetraceError, match="4 sub-keys"):
        _generate(model, prompt, WatermarkConfig(_spec(), KeyRing.from_master(KEY)), num_return_sequences=5)
    loose = WatermarkConfig(_spec(), KeyRing.from_master(KEY), fresh_share=0.5)
    assert len(_generate(model, prompt, loose, num_return_sequences=6)) == 6


def test_the_same_subkey_repeats_the_same_text(model: Any) -> None:
    prompts = torch.tensor([[7, 8, 9], [7, 8, 9]])
    out = _generate(
        model, prompts, WatermarkConfig(_spec(), KeyRing.from_master(KEY), subkeys=[1, 1]), max_new_tokens=4
    )
    assert out[0].tolist() == out[1].tolist()


@pytest.mark.parametrize("decoding", [{"do_sample": False}, {"num_beams": 3, "do_sample": False}, {"num_beams": 2}])
def test_a_sampling_scheme_refuses_greedy_and_beam_search(model: Any, decoding: dict[str, Any]) -> None:
    prompt = torch.tensor([[7, 8, 9]])
    with pytest.raises(DyetraceError, match="nothing to mark"):
        _generate(model, prompt, WatermarkConfig(_spec(), KeyRing.from_master(KEY)), **decoding)


def test_pass_leaves_greedy_text_as_it_is(model: Any) -> None:
    prompt = torch.tensor([[7, 8, 9]])
    plain = _generate(model, prompt, None, do_sample=False)
    passed = WatermarkConfig(_spec(), KeyRing.from_master(KEY), on_unmarkable="pass")
    assert torch.equal(_generate(model, prompt, passed, do_sample=False), plain)


class _Subclass(WatermarkConfig):
    def construct_processor(self, vocab_size: int, device: Any) -> Any:
        return super().construct_processor(vocab_size, device)


class _Holder(BaseWatermarkingConfig):
    """Passes all on to another configuration, as wrappers do."""

    def __init__(self, held: WatermarkConfig) -> None:
        self._held = held

    def validate(self) -> None: ...

    def construct_processor(self, vocab_size: int, device: Any) -> Any:
        return self._held.construct_processor(vocab_size, device)


def test_greedy_decoding_is_seen_through_subclasses_and_wrappers(model: Any) -> None:
    prompt, ring = torch.tensor([[7, 8, 9]]), KeyRing.from_master(KEY)
    plain = _generate(model, prompt, None, do_sample=False)
    for config in (_Subclass(_spec(), ring), _Holder(WatermarkConfig(_spec(), ring))):
        with pytest.raises(DyetraceError, match="greedy decoding leaves the sampling scheme"):
            _generate(model, prompt, config, do_sample=False)
        assert not torch.equal(_generate(model, prompt, config), plain)
    passed = _Subclass(_spec(), ring, on_unmarkable="pass")
    assert torch.equal(_generate(model, prompt, passed, do_sample=False), plain)


def test_a_decoding_that_nobody_shows_is_not_made_to_sample() -> None:
    ring, scores = KeyRing.from_master(KEY), torch.randn(1, VOCABULARY)
    with pytest.raises(DyetraceError, match="whether this decoding samples can't be seen"):
        WatermarkConfig(_spec(), ring).construct_processor(VOCABULARY, "cpu")
    passed = WatermarkConfig(_spec(), ring, on_unmarkable="pass").construct_processor(VOCABULARY, "cpu")
    assert torch.equal(passed(torch.tensor([[7, 8, 9]]), scores), scores)
    green = WatermarkConfig(_spec("green_list"), ring).construct_processor(VOCABULARY, "cpu")
    assert not torch.equal(green(torch.tensor([[7, 8, 9]]), scores), scores)


@pytest.mark.parametrize("decoding", [{"do_sample": False}, {"num_beams": 3, "do_sample": False}])
def test_a_green_list_marks_greedy_and_beam_search(model: Any, decoding: dict[str, Any]) -> None:
    spec = _spec("green_list", parameters={"delta": 10.0})
    prompts = torch.tensor([[7, 8, 9], [4, 5, 6]])
    out = _generate(model, prompts, WatermarkConfig(spec, KeyRing.from_master(KEY), subkeys=None), **decoding)
    ring = KeyRing.from_master(KEY)
    for row in out.tolist():
        greens = []
        for index in range(spec.subkeys):
            key = subkey(ring.global_key, index)  # type: ignore[arg-type]
            words = [prf_u32(key, row[i - 2 : i], row[i]) for i in range(3, len(row)) if row[i] > EOS]
            greens.append(np.mean([word < 0.25 * 2**32 for word in words]))
        assert max(greens) > 0.8


def test_prompt_lookup_decoding_keeps_every_mark(model: Any) -> None:
    prompt = torch.tensor([[7, 8, 9, 7, 8, 9, 7, 8]])
    mark = WatermarkConfig(_spec(), KeyRing.from_master(KEY), subkeys=[0])
    drafted = _generate(model, prompt, mark, prompt_lookup_num_tokens=3, max_new_tokens=16)
    plain = _generate(model, prompt, mark, max_new_tokens=16)
    seen: set[tuple[int, ...]] = set()
    for a, b, context in zip(
        drafted[0, 8:].tolist(), plain[0, 8:].tolist(), drafted[0, 6:].unfold(0, 2, 1).tolist(), strict=False
    ):
        if tuple(context) in seen:  # here both draw afresh and may part ways
            break
        assert a == b
        seen.add(tuple(context))
    assert len(seen) > 5


def test_each_row_is_marked_for_its_own_tenant(model: Any) -> None:
    spec = _spec(global_share=0.5)
    ring = KeyRing.from_master(KEY, tenants=("acme", "zenith"))
    prompts = torch.tensor([[7, 8, 9, 2], [7, 8, 9, 3]])
    mark = WatermarkConfig(spec, ring, tenants=["acme", "zenith"], subkeys=[0, 0])
    out = _generate(model, prompts, mark, output_logits=True, return_dict_in_generate=True)
    keys_used = set()
    for row, tenant in enumerate(("acme", "zenith")):
        context = out.sequences[row, 2:4].tolist()
        mine = prf_u32(ring.selector, context, 0) >= 2**31
        owner = ring.tenants[tenant] if mine else ring.global_key
        keys_used.add(mine)
        assert int(out.sequences[row, 4]) == _winner(subkey(owner, 0), context, out.logits[0][row].float())  # type: ignore[arg-type]
    with pytest.raises(DyetraceError, match="needs a tenant"):
        _generate(model, prompts, WatermarkConfig(spec, ring))
    with pytest.raises(DyetraceError, match="nobody"):
        _generate(model, prompts, WatermarkConfig(spec, ring, tenants="nobody"))


def test_the_choice_over_keys_follows_the_final_distribution() -> None:
    """Unbiasedness: over fresh keys the chosen token has the distribution that plain sampling would have."""
    generator = np.random.default_rng(5)
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, -torch.inf, 0.5, -2.0])
    chosen = np.zeros(7)
    rows = 2_000
    for _ in range(10):
        keys = generator.integers(0, 2**32, (rows, 8), dtype=np.uint32)
        nonces = generator.integers(0, 2**32, (3, rows), dtype=np.uint32)

        out = mark_rows(_spec().build_scheme(), logits.repeat(rows, 1), keys, nonces)
        chosen += np.bincount(out.argmax(-1).numpy(), minlength=7)
    live = logits > -torch.inf
    assert chosen[4] == 0
    expected = logits.softmax(-1).numpy().astype(float)[live] * chosen.sum()
    assert chisquare(chosen[live], expected * chosen.sum() / expected.sum()).pvalue > 1e-4


@pytest.mark.parametrize("scheme", [Tournament(depth=3)])
def test_the_engine_draws_from_the_exact_marked_distribution(model: Any, scheme: Tournament) -> None:
    spec = _spec("tournament", parameters={"depth": scheme.depth})
    rows = 3_000
    prompt = torch.tensor([[7, 8, 9]]).repeat(rows, 1)
    torch.manual_seed(11)
    mark = WatermarkConfig(spec, KeyRing.from_master(KEY), subkeys=[3] * rows)
    out = _generate(
        model,
        prompt,
        mark,
        max_new_tokens=1,
        temperature=3.0,
        top_k=12,
        output_logits=True,
        return_dict_in_generate=True,
    )
    final = TopKLogitsWarper(12)(prompt[:1], out.logits[0][:1].float() / 3.0)
    key = subkey(KeyRing.from_master(KEY).global_key, 3)  # type: ignore[arg-type]
    words = torch.tensor([[prf_u32(key, [8, 9], token) for token in range(VOCABULARY)]])
    marked = scheme.transform(final, words).softmax(-1)[0].double().numpy()
    live = marked > 1e-3
    counts = np.bincount(out.sequences[:, 3].numpy(), minlength=VOCABULARY)
    observed, expected = counts[live], marked[live] * rows
    assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4
    assert abs(marked - final.softmax(-1)[0].double().numpy()).sum() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", ["gumbel", "tournament", "green_list"])
def test_logits_of_any_precision_are_marked_in_float32(scheme: str, dtype: torch.dtype) -> None:
    spec = _spec(scheme)
    processor = WatermarkProcessor(
        spec, KeyRing.from_master(KEY), [None], [0], torch.zeros(1), 3, 0.0, torch.device("cpu")
    )
    torch.manual_seed(0)
    scores = torch.randn(1, VOCABULARY).to(dtype)
    out = processor(torch.tensor([[3, 4, 8]]), scores)
    exact = processor(torch.tensor([[3, 4, 8]]), scores.float())
    assert out.dtype == torch.float32
    assert torch.equal(out, exact)


def test_a_share_of_positions_may_be_left_to_fresh_randomness() -> None:
    processor = WatermarkProcessor(
        _spec(),
        KeyRing.from_master(KEY),
        [None] * 400,
        [0] * 400,
        torch.zeros(400),
        3,
        0.25,
        torch.device("cpu"),
    )
    torch.manual_seed(0)
    out = processor(torch.arange(2, 1202).reshape(400, 3), torch.zeros(400, VOCABULARY))
    unmarked = int((out == 0).all(-1).sum())
    assert 60 <= unmarked <= 145  # 100 expected, sd 8.7


def test_no_secret_shows_in_repr_or_saved_configuration(model: Any) -> None:
    mark = WatermarkConfig(_spec(), KeyRing.from_master(KEY))
    secret = KEY.reveal_hex()
    assert secret not in repr(mark.ring) and secret not in str(vars(mark)) and secret not in repr(mark)
    assert mark.to_json_string().strip() == "null"  # which is what `to_dict` becomes in a folder's configuration


def test_a_model_saved_with_the_configuration_can_be_loaded_and_is_unmarked(model: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model.generation_config.watermarking_config = WatermarkConfig(_spec(), KeyRing.from_master(KEY))
    try:
        model.save_pretrained(tmp_path)
    finally:
        model.generation_config.watermarking_config = None
    assert "dyetrace" not in (tmp_path / "generation_config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.generation_config.watermarking_config is None


def test_wrong_keys_models_and_counts_are_refused(model: Any) -> None:
    other = KeyRing.from_master(SecretKey(bytes(32)))
    with pytest.raises(DyetraceError, match="wrong key"):
        WatermarkConfig(_spec(), other)
    with pytest.raises(DyetraceError, match=r"sub-keys must lie in 0 \.\. 3"):
        WatermarkConfig(_spec(), KeyRing.from_master(KEY), subkeys=[4])
    with pytest.raises(DyetraceError, match="fresh_share"):
        WatermarkConfig(_spec(), KeyRing.from_master(KEY), fresh_share=1.0)
    with pytest.raises(DyetraceError, match="1 sub-keys were given for 2 rows"):
        mark = WatermarkConfig(_spec(), KeyRing.from_master(KEY), subkeys=[0])
        _generate(model, torch.tensor([[7, 8], [8, 9]]), mark)
    large = WatermarkSpec(vocabulary_size=VOCABULARY + 1, tokenizer="t", key_fingerprint=KEY.fingerprint)
    with pytest.raises(DyetraceError, match="wrong model"):
        _generate(model, torch.tensor([[7, 8]]), WatermarkConfig(large, KeyRing.from_master(KEY)))
