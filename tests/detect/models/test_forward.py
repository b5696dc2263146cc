"""Forward passes: the same predictions however they are cut, stopped, padded or kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detect.models.forward as forward
from detect.models.forward import (
    KEPT,
    Model,
    Predictions,
    candidates,
    likeliest,
    predictions,
)
from detect.models.reading import NO_SUBKEY, Positions, ReadingDocument, ReadingText, positions
from detect.models.seen import model_hash, template_hash
from watermark.errors import DyetraceError

VOCABULARY = 150
TEXT = ReadingText(
    "text",
    "",
    [
        ReadingDocument(f"d{i}", np.random.default_rng(i).integers(0, VOCABULARY, n, dtype=np.uint32), 0, NO_SUBKEY)
        for i, n in enumerate([40, 3, 70, 25, 70, 1, 55])
    ],
    marked=False,
)
WHERE = positions(TEXT, 2, 10**6)


@pytest.fixture(scope="module")
def network() -> Any:
    """A Llama of one layer; its logits are wider than the vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=192,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def assert_close(a: Predictions, b: Predictions) -> None:
    ids = candidates(a, [b])
    np.testing.assert_allclose(a.at(ids, VOCABULARY), b.at(ids, VOCABULARY), atol=2e-4)


def test_a_prediction_is_the_softmax_of_one_pass_over_what_stood_before(network: Any) -> None:
    import torch

    found = Model(network, VOCABULARY).predict(TEXT, WHERE)
    assert found.known.all() and found.ids.shape == (len(WHERE), KEPT)
    for row in range(0, len(WHERE), 17):
        document, place = int(WHERE.document[row]), int(WHERE.position[row])
        before = torch.from_numpy(TEXT.documents[document].sequence[:place].astype(np.int64))[None]
        with torch.inference_mode():
            q = network(input_ids=before).logits[0, -1, :VOCABULARY].softmax(-1).numpy()
        order = np.argsort(-q)[:KEPT]
        np.testing.assert_allclose(found.probabilities[row], q[order], rtol=1e-4)
        assert found.ids[row, 0] == order[0]


def test_a_document_stands_behind_the_token_that_begins_a_text_unless_its_prompt_is_on_record(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.random.default_rng(5).integers(1, VOCABULARY, 40).astype(np.uint32)
    behind = np.concatenate([np.array([7], dtype=np.uint32), ids])

    def read(first: tuple[int, ...], sequence: Any, lead: int = 0, told: int = 0) -> Predictions:
        document = ReadingDocument("d", sequence, lead, told=sequence[:told])
        places = np.arange(len(sequence) - 30, len(sequence) + 1)  # the same tokens in each
        where = Positions(np.zeros(len(places), np.int64), places, places.astype(np.uint64))
        return Model(network, VOCABULARY, first).predict(ReadingText("a file", "", [document], False), where)

    plain, begun = read((), ids), read((), behind)
    assert np.abs(plain.probabilities - begun.probabilities).max() > 1e-3
    assert_close(read((7,), ids), begun)
    assert_close(read((7,), ids, lead=5, told=5), plain)  # as the model that answered read it
    assert_close(read((7,), ids, lead=5, told=40), begun)  # of a prompt that was cut the beginning is gone
    monkeypatch.setattr(network.config, "max_position_embeddings", 41)
    assert_close(read((7,), ids), begun)
    monkeypatch.setattr(network.config, "max_position_embeddings", 40)
    np.testing.assert_allclose(read((7,), ids).probabilities[:5], begun.probabilities[:5], atol=2e-4)


def test_a_batch_predicts_what_single_documents_do(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(network, VOCABULARY)
    together = model.predict(TEXT, WHERE)
    monkeypatch.setattr(forward, "_LOGITS", 1)
    assert_close(together, model.predict(TEXT, WHERE))


def test_logits_beyond_the_vocabulary_belong_to_no_token(network: Any) -> None:
    import torch

    with torch.no_grad():
        before = network.lm_head.weight[VOCABULARY:].clone()
        plain = Model(network, VOCABULARY).predict(TEXT, WHERE)
        network.lm_head.weight[VOCABULARY:] = 1e4 * torch.randn_like(before)
        wild = Model(network, VOCABULARY).predict(TEXT, WHERE)
        network.lm_head.weight[VOCABULARY:] = before
    assert wild.ids.max() < VOCABULARY
    np.testing.assert_array_equal(plain.ids, wild.ids)
    np.testing.assert_array_equal(plain.probabilities, wild.probabilities)


def test_a_small_vocabulary_leaves_places_empty(network: Any) -> None:
    (ids, mass), *_ = likeliest(network, [np.arange(5, dtype=np.uint32)], [np.array([2, 5])], 10)
    assert ids.shape == (2, 10) and mass.sum(axis=1) == pytest.approx([1, 1])
    few = ReadingText("few", "", [ReadingDocument("d", np.arange(9, dtype=np.uint32), 0)], marked=False)
    found = Model(network, 10).predict(few, positions(few, 2, 99))
    assert np.all(found.ids[:, 10:] == -1) and np.all(found.ids[:, :10] >= 0)


def test_a_model_with_too_few_tokens_is_refused(network: Any) -> None:
    with pytest.raises(DyetraceError, match="has 192 entries, the spec's 193"):
        Model(network, 193)


# --- shards ----------------------------------------------------------------------------------------------


class Stopping:
    """The model, which is stopped after so many shards."""

    def __init__(self, model: Model, after: float) -> None:
        self.model, self.left, self.rows = model, after, 0

    def predict(self, text: ReadingText, where: Positions) -> Predictions:
        if self.left <= 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.rows += len(where)
        return self.model.predict(text, where)


@pytest.fixture
def run(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Predictions, int]]:
    monkeypatch.setattr(forward, "_SHARD", 60)

    def once(after: float = math.inf, name: str = "a" * 64, text: ReadingText = TEXT) -> tuple[Predictions, int]:
        model = Stopping(Model(network, VOCABULARY), after)
        return predictions(lambda: model, name, text, positions(text, 2, 10**6), tmp_path), model.rows

    return once


def test_a_stopped_run_goes_on_with_the_shards_that_are_missing(run: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(after=2)
    kept = len(list(tmp_path.rglob("*.npz")))
    whole, rows = run()
    shards = len(list(tmp_path.rglob("*.npz")))
    assert kept == 2 < shards
    assert 0 < rows < len(WHERE)
    again, rows = run()
    assert rows == 0
    np.testing.assert_array_equal(again.ids, whole.ids)
    assert len(whole) == len(WHERE)


def test_shards_together_are_what_one_pass_gives(run: Callable[..., Any], network: Any) -> None:
    assert_close(run()[0], Model(network, VOCABULARY).predict(TEXT, WHERE))


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "other rows", "no zip"])
def test_a_damaged_shard_is_read_anew(how: str, run: Callable[..., Any], tmp_path: Path) -> None:
    whole, _ = run()
    first, second, *_ = sorted(tmp_path.rglob("*.npz"))
    data = first.read_bytes()
    middle = len(data) // 2
    broken = {
        "cut": data[:middle],
        "empty": b"",
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "other rows": second.read_bytes(),
        "no zip": b"PK" + bytes(100),
    }
    first.write_bytes(broken[how])
    again, rows = run()
    assert 0 < rows < len(WHERE)
    np.testing.assert_array_equal(again.ids, whole.ids)
    np.testing.assert_array_equal(again.probabilities, whole.probabilities)


def test_another_model_or_text_never_gets_kept_predictions(run: Callable[..., Any]) -> None:
    run()
    assert run(name="b" * 64)[1] == len(WHERE)
    sequence = TEXT.documents[0].sequence.copy()
    sequence[7] ^= 1
    other = ReadingText("text", "", [ReadingDocument("d", sequence, 0), *TEXT.documents[1:]], marked=False)
    assert run(text=other)[1] > 0
    assert run()[1] == 0


def test_the_hash_of_templates_follows_what_a_model_is_shown(tmp_path: Path) -> None:
    hashes = {template_hash(tmp_path)}
    for name in ("tokenizer_config.json", "chat_template.jinja", "chat_templates/tool.jinja"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        for text in ("{}", "{ }"):
            (tmp_path / name).write_text(text)
            hashes.add(template_hash(tmp_path))
    (tmp_path / "notes.txt").write_text("of no effect")
    assert template_hash(tmp_path) in hashes and len(hashes) == 7


def test_progress_counts_positions_to_the_end(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_SHARD", 60)
    seen: list[tuple[int, int]] = []
    model = Model(network, VOCABULARY)
    predictions(lambda: model, "c" * 64, TEXT, WHERE, tmp_path, lambda done, total: seen.append((done, total)))
    assert seen == sorted(set(seen)) and seen[-1] == (len(WHERE), len(WHERE)) and len(seen) > 2


# --- looking up ------------------------------------------------------------------------------------------


def test_kept_tokens_have_their_probability_and_others_a_part_of_the_rest() -> None:
    kept = Predictions(
        np.array([[3, 1, -1], [5, 2, 0], [7, 8, 9]], dtype=np.int32),
        np.array([[0.7, 0.3, 0.0], [0.5, 0.25, 0.125], [0.2, 0.2, 0.001]], dtype=np.float32),
    )
    found = kept.at(np.array([[1, 3, 2, -1], [0, 5, 9, -1], [9, 7, 0, -1]]), vocabulary=13)
    np.testing.assert_allclose(
        found,
        [[0.3, 0.7, 0, 0], [0.125, 0.5, 0.0125, 0], [0.001, 0.2, 0.001, 0]],  # never above the least kept
        rtol=1e-6,
        atol=1e-7,
    )


def test_positions_that_could_not_be_asked_are_not_known() -> None:
    some = Predictions(np.full((2, 3), -1, dtype=np.int32), np.array([[0, 0, 0], [0.5, 0.2, 0.1]], dtype=np.float32))
    assert some.known.tolist() == [False, True]


def test_candidates_are_the_tokens_that_any_model_kept_once_each() -> None:
    a = Predictions(np.array([[3, 1, -1]], dtype=np.int32), np.ones((1, 3), dtype=np.float32))
    b = Predictions(np.array([[1, 4, 3]], dtype=np.int32), np.ones((1, 3), dtype=np.float32))
    found = candidates(a, [b])
    assert sorted(found[found >= 0].tolist()) == [1, 3, 4]


def test_a_models_hash_changes_with_its_weights_and_configuration_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    first = model_hash(tmp_path)
    (tmp_path / "README.md").write_text("notes")
    assert model_hash(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"abd")
    assert model_hash(tmp_path) != first
    with pytest.raises(DyetraceError, match="cannot read model folder"):
        model_hash(tmp_path / "none")
