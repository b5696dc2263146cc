"""The owner's chances are those of the sampler that drew the answers, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.models.forward import KEPT, Predictions
from detect.race.chances import FLOOR, chances
from watermark.generate import SamplingUsed

VOCABULARY = 400
SETTINGS = st.builds(
    SamplingUsed,
    temperature=st.sampled_from([0.0, 0.3, 0.8, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 5, 40, 200]),
    top_p=st.sampled_from([0.1, 0.6, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
)


def kept_of(logits: np.ndarray) -> Predictions:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    ids = np.argsort(-p, axis=1, kind="stable")[:, :KEPT]
    return Predictions(ids.astype(np.int32), np.take_along_axis(p, ids, axis=1).astype(np.float32))


def logits_of(seed: int, rows: int = 4, sharpness: float = 3.0) -> np.ndarray:
    return sharpness * np.random.default_rng(seed).normal(size=(rows, VOCABULARY))


def as_transformers_samples(logits: np.ndarray, one: SamplingUsed) -> np.ndarray:
    import torch
    from transformers.generation import logits_process

    scores = torch.from_numpy(logits)
    steps = [logits_process.TemperatureLogitsWarper(one.temperature)]
    if one.top_k:
        steps.append(logits_process.TopKLogitsWarper(one.top_k))
    if one.top_p < 1:
        steps.append(logits_process.TopPLogitsWarper(one.top_p))
    if one.min_p > 0:
        steps.append(logits_process.MinPLogitsWarper(one.min_p))
    for step in steps:
        scores = step(torch.zeros((len(logits), 1), dtype=torch.long), scores)
    return scores.softmax(-1).numpy()


@pytest.mark.parametrize(
    "one",
    [
        SamplingUsed(),
        SamplingUsed(temperature=0.8, top_p=0.95),
        SamplingUsed(temperature=0.6, top_k=20),
        SamplingUsed(top_k=50, top_p=0.9, min_p=0.02),
        SamplingUsed(temperature=1.3, min_p=0.1),
    ],
)
def test_chances_are_those_of_the_sampler_but_for_the_floor(one: SamplingUsed) -> None:
    logits = logits_of(1, rows=64)
    found = chances(kept_of(logits), [one], np.zeros(64, dtype=np.int64))
    drawn = np.take_along_axis(as_transformers_samples(logits, one), found.tokens.astype(np.int64), axis=1)
    of_kept = drawn / drawn.sum(axis=1, keepdims=True)
    apart = np.abs(found.chances - of_kept).max(axis=1)
    assert np.mean(apart < 0.01) > 0.9 and apart.max() < 0.05  # what top-p leaves goes by tokens that aren't kept, too
    assert np.sum((of_kept == 0) & (found.chances > FLOOR)) < 0.05 * of_kept.size


@given(st.integers(0, 2**32 - 1), st.lists(SETTINGS, min_size=1, max_size=3, unique=True))
def test_every_row_is_a_distribution_with_a_floor_over_the_likeliest_tokens(
    seed: int, settings: list[SamplingUsed]
) -> None:
    rng = np.random.default_rng(seed)
    seen = kept_of(logits_of(seed, rows=6, sharpness=rng.uniform(0.1, 12)))
    which = rng.integers(len(settings), size=6)
    found = chances(seen, settings, which)
    assert (found.tokens == seen.ids).all()
    assert np.allclose(found.chances.sum(axis=1), 1)
    assert (found.chances >= FLOOR / (1 + KEPT * FLOOR) - 1e-12).all()
    for row in range(6):
        alone = chances(Predictions(seen.ids[[row]], seen.probabilities[[row]]), [settings[which[row]]], np.array([0]))
        assert (alone.chances[0] == found.chances[row]).all()


def test_fewer_candidates_than_places_for_them_leave_the_others_without_a_chance() -> None:
    ids = np.array([[4, 9, -1, -1]], dtype=np.int32)
    found = chances(Predictions(ids, np.array([[0.6, 0.3, 0, 0]], dtype=np.float32)), [SamplingUsed()], np.array([0]))
    assert found.chances[0, 2:].tolist() == [0, 0]
    assert np.allclose(found.chances[0, :2], [2 / 3, 1 / 3])


def test_without_heat_the_likeliest_token_is_all_but_sure_and_no_place_is_spread() -> None:
    found = chances(kept_of(logits_of(3)), [SamplingUsed(temperature=0)], np.zeros(4, dtype=np.int64))
    assert (found.chances[:, 0] > 0.99).all() and (found.spread < 0.02).all()
    assert found.take(np.array([2, 0])).tokens.tolist() == found.tokens[[2, 0]].tolist()
