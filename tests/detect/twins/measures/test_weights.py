"""Log-probabilities from weights: what a model reads, what is refused, and that an endpoint says the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detect.twins.measures.logprobs import COLUMNS, COLUMNS_BESIDE, LEAST
from detect.twins.measures.weights import (
    COVARIATES,
    OWNER_COVARIATES,
    Reader,
    covariate_names,
    covariates,
    differences,
    read_pairs,
)
from tests.detect.twins.measures.twins import pair
from tests.tiny_models import CAUSAL, NOT_CAUSAL, made
from watermark.errors import DyetraceError

ONE = "The sea is deep and cold."
OTHER = "The sea is a mirror of the sky, caf\u00e9s \U0001f30a and all."


@pytest.fixture(scope="module")
def reader(smollm2_dir: Path) -> Reader:
    return Reader.load(smollm2_dir, "float32")


@pytest.fixture(scope="module")
def tiny_dir(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers with random weights that reads the demo model's tokens."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    name, fields = CAUSAL["llama"]
    made((name, {**fields, "vocab_size": len(tokenizer)})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def alone(reader: Any, prompt: str, text: str) -> tuple[float, int]:
    """By the plainest means: one forward pass of one answer, its tokens behind the prompt's."""
    import torch

    tokenizer, network = reader._tokenizer, reader._network
    lead = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    before = tokenizer(lead, add_special_tokens=False).input_ids
    ids = torch.tensor([before + tokenizer(text, add_special_tokens=False).input_ids])
    with torch.inference_mode():
        logs = network(ids).logits[0].log_softmax(-1)
    own = [float(logs[place - 1, ids[0, place]]) for place in range(len(before), ids.shape[1])]
    return math.fsum(max(value, LEAST) for value in own), len(own)


def test_an_answer_is_read_as_if_it_stood_alone(reader: Reader) -> None:
    """Whatever else is read with it: other lengths, padding, the other side."""
    pairs = [pair(ONE, OTHER), pair("Yes.", ONE * 5), pair(OTHER, "No"), pair("", ONE)]
    found = reader.read(pairs)
    assert found[3] is None
    for twins, read in zip(pairs[:3], found, strict=False):
        assert read is not None
        for side, total, count in zip(twins.sides, read.totals, read.tokens, strict=True):
            total_alone, count_alone = alone(reader, "Tell me of the sea.", side.text)
            assert count == count_alone
            assert total == pytest.approx(total_alone, abs=1e-3)


def test_swapping_the_twins_flips_every_number(tiny_dir: Path) -> None:
    both = [pair(ONE, OTHER, first=first) for first in (0, 1)]
    reference = read_pairs(tiny_dir, both, dtype="float32")
    assert set(reference) == {twins.id for twins in both}
    rows = differences(tiny_dir, both, dtype="float32")
    assert rows.shape == (2, len(COLUMNS)) and np.isfinite(rows).all() and rows.any()
    assert rows[0] == pytest.approx(-rows[1], rel=1e-6)
    beside = differences(tiny_dir, both, reference, dtype="float32")
    assert beside.shape == (2, len(COLUMNS_BESIDE))
    assert not beside[:, :3].any()  # the model beside itself
    assert np.array_equal(beside[:, 3:], rows)
    for owner in (None, reference):
        extra = covariates(both, owner)
        assert extra.shape == (2, len(covariate_names(owner is not None)))
        assert extra[0] == pytest.approx(-extra[1], rel=1e-6) and np.isfinite(extra).all()
    assert covariate_names(True) == (*COVARIATES, *OWNER_COVARIATES)
    assert covariates(both, {})[:, len(COVARIATES) :].any() == np.False_


def test_nothing_to_read_gives_empty_numbers(tiny_dir: Path) -> None:
    assert differences(tiny_dir, []).shape == (0, len(COLUMNS))
    assert covariates([], {}).shape == (0, len(covariate_names(True)))
    assert not differences(tiny_dir, [pair("", ONE)]).any()


def test_long_texts_are_read_in_windows(tiny_dir: Path) -> None:
    """A model that reads 96 tokens at a time; every token of the answer counts once."""
    reader = Reader.load(tiny_dir, "float32")
    long = ONE * 40
    whole = reader.read([pair(long, OTHER)])[0]
    reader._network.config.max_position_embeddings = 96
    cut = reader.read([pair(long, OTHER)])[0]
    assert whole is not None and cut is not None
    assert cut.tokens == whole.tokens and max(cut.tokens) > 200
    assert cut.totals != whole.totals
    assert cut.totals == pytest.approx(whole.totals, rel=0.25)


def test_a_model_that_looks_ahead_is_refused(smollm2_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    name, fields = NOT_CAUSAL["llama"]
    network = made((name, {**fields, "vocab_size": len(tokenizer)}))
    with pytest.raises(DyetraceError, match="depend on later tokens"):
        Reader(network, tokenizer, "suspect")


def test_a_template_that_refuses_the_messages_is_passed_over(reader: Reader) -> None:
    twins = pair(ONE, OTHER, prompt=None, request={"messages": [{"role": "critic", "content": "Why?"}]})
    template = reader._tokenizer.chat_template
    try:
        reader._tokenizer.chat_template = "{{ raise_exception('no critics') }}"
        assert reader.shown(twins) == ("Why?\n", False)
    finally:
        reader._tokenizer.chat_template = template
    lead, templated = reader.shown(twins)
    assert templated and "Why?" in lead and lead != "Why?\n"


def test_a_model_without_template_reads_the_plain_prompt(reader: Reader) -> None:
    twins = pair(ONE, OTHER, prompt=None, request={"prompt": "The sea: "})
    template, chat = reader._tokenizer.chat_template, reader._chat
    try:
        reader._tokenizer.chat_template, reader._chat = None, False
        tokens = reader.tokens(twins, ONE)
    finally:
        reader._tokenizer.chat_template, reader._chat = template, chat
    text = reader._tokenizer.decode(tokens.ids)
    assert text.endswith(f"The sea: {ONE}")
    assert reader._tokenizer.decode(tokens.ids[tokens.first :]) == ONE or tokens.first
    assert tokens.starts[tokens.first] == 0 and tokens.starts[-1] == len(ONE) - 1


def test_the_owners_model_answers_by_itself(tiny_dir: Path) -> None:
    """Greedy first, then samples; the same each time."""
    import torch

    reader = Reader.load(tiny_dir, "float32")
    twins = pair(ONE, OTHER, request={"temperature": 0.9, "top_p": 0.95})
    first, again = reader.answers(twins, 2), reader.answers(twins, 2)
    assert first == again and len(first) == 3
    tokenizer, network = reader._tokenizer, reader._network
    inputs = tokenizer(reader.shown(twins)[0], add_special_tokens=False, return_tensors="pt")
    ids = inputs.input_ids
    with torch.inference_mode():
        for _ in range(16):
            ids = torch.cat([ids, network(ids).logits[:, -1:].argmax(-1)], dim=1)
    assert first[0] == tokenizer.decode(ids[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    assert reader.answers(twins, 0) == first[:1]
    assert len(set(first)) > 1
