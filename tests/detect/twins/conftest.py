"""A suspect behind a real endpoint: a tiny model, made once, as for traces of a mark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.distillation.server import Server
from tests.detect.student.asking.conftest import serve, tiny_model  # noqa: F401
from tests.detect.twins.made import ledger_of, twins
from watermark.twins.pair import Pair

PROMPTS = [f"Tell me about {word}." for word in ("owls", "ships", "bread", "rain", "clocks", "tea", "maps", "stars")]


@pytest.fixture(scope="session")
def greedy(tiny_model: tuple[Any, Any]) -> dict[str, str]:  # noqa: F811
    """What the suspect says to each prompt of `PROMPTS`, at temperature 0."""
    found = {}
    model, tokenizer = tiny_model
    for prompt in PROMPTS:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        out = model.generate(**ids, do_sample=False, max_new_tokens=16, pad_token_id=0)
        found[prompt] = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


@pytest.fixture
def pairs(greedy: dict[str, str]) -> list[Pair]:
    """Pairs of which the suspect says the served twin by heart, and nothing of the other."""
    return [guilty(greedy, number) for number in range(40)]


@pytest.fixture
def ledger(tmp_path: Path, pairs: list[Pair]) -> Path:
    """Of these pairs, with its key beside it."""
    return ledger_of(tmp_path, pairs)


def guilty(greedy: dict[str, str], number: int) -> Pair:
    """A pair whose served twin the suspect says, with the account "acme" or "zenith" in turn."""
    prompt = PROMPTS[number % len(PROMPTS)]
    nobodys = "Nothing of this kind was ever said here."
    made = twins(number, greedy[prompt], nobodys, prompt, account=("acme", "zenith")[number % 2])
    return made if made.served == 0 else twins(number, nobodys, greedy[prompt], prompt, account=made.account)


Serve = Callable[..., Server]


@pytest.fixture
def suspect(serve: Serve) -> Iterator[Server]:  # noqa: F811
    yield serve()
