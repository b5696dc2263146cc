"""Models of two layers of many kinds, made on the spot and saved as people save theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCABULARY = 300
_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 1}
_GPT: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 1}
_GPT |= {"eos_token_id": 2}

CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _GROUPED),
    "llama, tied": ("Llama", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {**_GROUPED, "head_dim": 16}),
    "gemma3": ("Gemma3Text", {**_GROUPED, "head_dim": 16, "sliding_window": 8}),
    "mistral": ("Mistral", {**_GROUPED, "sliding_window": 8}),
    "mixtral": ("Mixtral", {**_GROUPED, "num_local_experts": 4}),
    "phi": ("Phi", _SMALL),
    "gpt_neox": ("GPTNeoX", _SMALL),
    "opt": ("OPT", {**_SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "mamba": ("Mamba", {**_SMALL, "state_size": 4}),
    "gpt2": ("GPT2", _GPT),
    "bloom": ("Bloom", {**_SMALL, "n_layer": 2, "n_head": 2}),
    "gpt1": ("OpenAIGPT", {**_GPT, "n_positions": 64}),
    "bert": ("Bert", {**_SMALL, "is_decoder": True}),
}
"""Families by name: the name of their configuration in transformers, and its fields."""

NOT_CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**_GROUPED, "is_causal": False}),
    "gemma3": ("Gemma3Text", {**CAUSAL["gemma3"][1], "use_bidirectional_attention": True}),
    "bert": ("Bert", _SMALL),
    "xlnet": ("XLNet", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}),
}
"""The same, of models that look at later tokens."""


def made(family: tuple[str, dict[str, Any]], seed: int = 0) -> Any:
    """A model with random weights, large enough that attention shows, in evaluation mode."""
    import torch
    import transformers

    torch.manual_seed(seed)
    name, fields = family
    config = getattr(transformers, f"{name}Config")(**fields)
    model = transformers.AutoModelForCausalLM.from_config(config)
    return model.eval()


def tokenizer() -> Any:
    """Words that are numbers: token n is written "n"."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({str(number): number for number in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words)


def saved(model: Any, folder: Path, **how: Any) -> Path:
    """Save a model with `save_pretrained`, and the tokenizer beside it."""
    model.save_pretrained(folder, **how)
    tokenizer().save_pretrained(folder)
    return folder
