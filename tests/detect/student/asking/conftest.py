"""A real endpoint: a tiny random model behind the benchmark's server, made once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
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


class TimeOuts:
    """Time-outs of requests that end when a test says so, in place of after so many seconds."""

    def __init__(self) -> None:
        self._latest: tuple[asyncio.AbstractEventLoop, asyncio.Timeout] | None = None

    def begin(self, _: float) -> asyncio.Timeout:
        """What stands in for `asyncio.timeout`."""
        made = asyncio.timeout(None)
        self._latest = asyncio.get_running_loop(), made
        return made

    def end(self) -> None:
        """End that of the latest request; from any thread."""
        assert self._latest is not None
        loop, latest = self._latest
        loop.call_soon_threadsafe(latest.reschedule, 0.0)


@pytest.fixture
def time_outs(monkeypatch: pytest.MonkeyPatch) -> TimeOuts:
    found = TimeOuts()
    monkeypatch.setattr("detect.student.asking.client.asyncio", SimpleNamespace(timeout=found.begin))
    return found


@pytest.fixture
def serve(tiny_model: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test; options as for `Server`.

    Requests at once are not lowered because the machine is busy or answers were held: `test_pace` has that rule.
    """
    monkeypatch.setattr("detect.student.asking.pace._SLACK", float("inf"))
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Server(*tiny_model, **options))
