"""A real endpoint: a tiny random model behind the benchmark's server, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Server


@pytest.fixture(scope="session")
def tiny_model(smollm2_dir: Path) -> tuple[Any, Any]:
    """A Llama of one layer and 16 dimensions with random weights, and the demo model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


@pytest.fixture
def serve(tiny_model: tuple[Any, Any]) -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test; options as for `Server`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Server(*tiny_model, **options))
