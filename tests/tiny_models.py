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


_TEXT: dict[str, Any] = {**_GROUPED, "head_dim": 16, "max_position_embeddings": 128}
_SEEN: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_SEEN |= {"image_size": 16, "patch_size": 4}
_ROPE: dict[str, Any] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}

AROUND_TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "Mistral3ForConditionalGeneration": (
        "Mistral3",
        {
            "text_config": {**_TEXT, "model_type": "mistral"},
            "vision_config": {**_SEEN, "model_type": "pixtral"},
            "image_token_index": 290,
        },
    ),
    "LlavaForConditionalGeneration": (
        "Llava",
        {
            "text_config": {**_TEXT, "model_type": "llama"},
            "vision_config": {**_SEEN, "projection_dim": 32, "model_type": "clip_vision_model"},
            "image_token_index": 290,
        },
    ),
    "Qwen2VLForConditionalGeneration": (
        "Qwen2VL",
        {
            "text_config": {**_TEXT, "rope_parameters": _ROPE},
            "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4},
            "image_token_id": 290,
            "video_token_id": 291,
            "vision_start_token_id": 292,
            "vision_end_token_id": 293,
        },
    ),
    "Gemma3ForConditionalGeneration": (
        "Gemma3",
        {
            "text_config": {**_TEXT, "sliding_window": 8},
            "vision_config": {**_SEEN, "model_type": "siglip_vision_model"},
            "image_token_index": 290,
            "boi_token_index": 291,
            "eoi_token_index": 292,
            "mm_tokens_per_image": 4,
        },
    ),
}
"""Models that see, with a text model inside: by their class, the name of their configuration and its fields."""


def around_text(name: str, seed: int = 0) -> Any:
    """A model that sees, with random weights, in evaluation mode."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config, fields = AROUND_TEXT[name]
    return getattr(transformers, name)(getattr(transformers, f"{config}Config")(**fields)).eval()


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


def write_gguf(model: Any, path: Path, quantised: bool = False, spared: str = "", **told: str) -> Path:
    """Write a Llama as llama.cpp has it, with a vocabulary of bytes and words; ``told`` are further strings in it."""
    import gguf

    config = model.config
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(config.vocab_size)
    for name, value in told.items():
        out.add_string(name.replace("__", "."), value)
    others = config.vocab_size - 259
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *(f"\u2581w{i}" for i in range(others))]
    out.add_tokenizer_model("llama")
    out.add_token_list(pieces)
    out.add_token_scores([0.0] * len(pieces))
    out.add_token_types([2, 3, 3, *[6] * 256, *[1] * others])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    parts |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    parts |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, value in model.state_dict().items():
        whole, part = name.removesuffix(".weight"), ""
        if whole not in names:
            _, _, layer, rest = whole.split(".", 3)
            part = parts[rest]
            whole = f"blk.{layer}.{part}"
        numbers = value.float().numpy().copy()
        if part in heads:  # llama.cpp has the two halves of each head interleaved
            cut = numbers.reshape(heads[part], 2, -1, numbers.shape[1])
            numbers = cut.swapaxes(1, 2).reshape(numbers.shape)
        kind = gguf.GGMLQuantizationType.Q8_0
        if quantised and numbers.ndim == 2:
            out.add_tensor(f"{names.get(whole, whole)}.weight", gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            out.add_tensor(f"{names.get(whole, whole)}.weight", numbers)
    if spared:
        out.add_tensor(spared, model.model.norm.weight.detach().float().numpy().copy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path
