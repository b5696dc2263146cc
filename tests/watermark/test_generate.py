"""Answers of models of many kinds: marked as they should be, alone as in a batch, or refused in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import normalizers

from tests.tiny_models import CAUSAL, made, tokenizer
from tests.watermark.models.test_prompts import beginning
from watermark.errors import DyetraceError
from watermark.generate import Sampling, generate_answers
from watermark.keys import KeyRing, SecretKey
from watermark.models.tokenizer import tokenizer_fingerprint, vocabulary_size
from watermark.models.writing import passed_over, stop_tokens
from watermark.spec import WatermarkSpec

KEY = SecretKey(bytes(range(32)))
SAMPLING = Sampling(max_new_tokens=8, seed=1)
RUN = bytes(32)
PROMPTS = ["11 12 13 14 15 16 17 18 19 20 21 22", "31 32 33", "41 42"]
RWKV = ("Rwkv", {"vocab_size": 300, "hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2})
FAMILIES = ("llama", "gemma3", "gpt2", "gpt1", "bloom", "bert", "mamba")


def sharp(family: tuple[str, dict[str, Any]]) -> Any:
    """A tiny model that is sure of what it says, and says what depends on what it reads."""
    import torch

    model = made(family)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    model.generation_config.eos_token_id = None
    return model


def spec_of(words: Any) -> WatermarkSpec:
    return WatermarkSpec(
        vocabulary_size=vocabulary_size(words),
        tokenizer=tokenizer_fingerprint(words),
        key_fingerprint=KEY.fingerprint,
    )


def answers(model: Any, prompts: list[str] | None = None, *, words: Any = None, **how: Any) -> list[list[int]]:
    """Marked answers, from the same random bytes whenever they are drawn."""
    words = tokenizer() if words is None else words
    sampling, mark = replace(SAMPLING, **how), (spec_of(words), KeyRing.from_master(KEY, 0))
    return [one.token_ids for one in generate_answers(model, words, prompts or PROMPTS, sampling, *mark, run=RUN)]


@pytest.fixture(scope="module")
def llama() -> Any:
    return made(CAUSAL["llama"])


@pytest.mark.parametrize("family", [*(CAUSAL[name] for name in FAMILIES), RWKV], ids=[*FAMILIES, "rwkv"])
def test_every_family_answers_a_prompt_in_a_batch_as_alone(family: tuple[str, dict[str, Any]]) -> None:
    """Sliding windows, models that count places from the padding on, and recurrent ones that would read it."""
    model = sharp(family)

    def surest(prompts: list[str]) -> list[list[int]]:
        coldest = replace(SAMPLING, temperature=1e-3, max_new_tokens=4)
        return [one.token_ids for one in generate_answers(model, tokenizer(), prompts, coldest)]

    assert surest(PROMPTS[:2])[1] == surest(PROMPTS[1:2])[0]


def test_tokenizers_that_name_no_token_for_padding_or_ends_do(llama: Any) -> None:
    words = tokenizer()
    assert words.pad_token_id is None and words.eos_token_id is None
    known = tokenizer()
    known.pad_token = "0"
    assert answers(llama, words=words) == answers(llama, words=known)
    beyond = tokenizer()
    beyond.add_special_tokens({"pad_token": "<pad>"})
    spec = spec_of(beyond)
    found = generate_answers(llama, beyond, PROMPTS, SAMPLING, spec, KeyRing.from_master(KEY, 0), run=RUN)
    with pytest.raises(DyetraceError, match="its vocabulary has 300 entries, the spec's 301"):
        list(found)
    assert len(list(generate_answers(llama, beyond, PROMPTS, SAMPLING))) == 3


def test_a_tokenizer_that_gives_kinds_of_tokens_does(llama: Any) -> None:
    words = tokenizer()
    words.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert "token_type_ids" in words("1")
    assert answers(llama, words=words) == answers(llama)


def test_answers_end_at_every_token_that_ends_them(llama: Any) -> None:
    whole = answers(llama)
    before = llama.generation_config.eos_token_id
    ends = [whole[0][3], whole[1][2]]
    try:
        llama.generation_config.eos_token_id = ends
        assert stop_tokens(llama, tokenizer()) == tuple(sorted(ends))
        cut = answers(llama)
        assert cut[0] == whole[0][:4] and cut[1] == whole[1][:3]
        llama.generation_config.eos_token_id = None
        named = tokenizer()
        named.eos_token = str(ends[0])
        assert answers(llama, words=named)[0] == whole[0][:4]
    finally:
        llama.generation_config.eos_token_id = before


def test_what_a_folder_asks_for_beside_leaves_the_mark_alone_and_is_named(llama: Any) -> None:
    from transformers import GenerationConfig

    plain, before = answers(llama), llama.generation_config
    asked = {
        "repetition_penalty": 1.3,
        "num_beams": 4,
        "suppress_tokens": [3],
        "forced_bos_token_id": 4,
        "min_new_tokens": 5,
        "no_repeat_ngram_size": 2,
        "stop_strings": ["1"],
    }
    unsaid = {"temperature": 0.3, "top_k": 5, "num_return_sequences": 3, "return_dict_in_generate": True}
    unsaid |= {"output_scores": True, "do_sample": False, "use_cache": False}
    llama.generation_config = GenerationConfig(**asked, **unsaid, eos_token_id=2)
    try:
        assert passed_over(llama) == asked
        assert answers(llama) == plain
        assert llama.generation_config.num_beams == 4  # as it was
    finally:
        llama.generation_config = before


def test_a_prompt_of_no_tokens_or_of_unknown_ones_is_named(llama: Any) -> None:
    silent = tokenizer()
    silent.backend_tokenizer.normalizer = normalizers.Replace("none", "")
    with pytest.raises(DyetraceError, match="prompt 2 has no tokens for this model's tokenizer"):
        list(generate_answers(llama, silent, ["1", "none"], SAMPLING))
    more = tokenizer()
    more.add_tokens(["<new>"])
    with pytest.raises(DyetraceError, match="prompt 1 has token id 300, and the model knows 300 tokens"):
        list(generate_answers(llama, more, ["1 <new>"], SAMPLING))


def test_prompts_longer_than_the_model_reads_are_refused_with_what_the_template_adds() -> None:
    model = made(("Llama", {**CAUSAL["llama"][1], "max_position_embeddings": 12}))
    assert len(answers(model, ["1 2 3 4"])) == 1
    with pytest.raises(DyetraceError, match="prompt 1 has 5 tokens, which with 8 of an answer is more than the 12"):
        answers(model, ["1 2 3 4"], words=beginning())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_predicts_no_numbers_is_refused(value: float) -> None:
    import torch

    model = made(CAUSAL["llama"])
    with torch.no_grad():
        model.lm_head.weight[5] = value
    with pytest.raises(DyetraceError, match="the model predicts NaN or infinity"):
        answers(model)


def test_a_model_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(CAUSAL["llama"])

    def fails(*_: Any, **__: Any) -> None:
        raise KeyError("no\nsuch layer")

    monkeypatch.setattr(model.model, "forward", fails)
    with pytest.raises(DyetraceError, match=r"the model can't answer: KeyError: 'no\\nsuch layer'"):
        answers(model)
    monkeypatch.setattr(model, "generation_config", None)
    with pytest.raises(DyetraceError, match=r"the model \(LlamaForCausalLM\) has no way to write text"):
        answers(model)
    monkeypatch.undo()
    template = beginning("{{ raise_exception('no users') }}")
    with pytest.raises(DyetraceError, match="prompt 1: the model's chat template can't take this chat"):
        answers(model, words=template)
