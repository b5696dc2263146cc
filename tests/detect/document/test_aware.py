"""The model-aware test: e-values with mean 1 over keys for any model, and far more evidence from marked text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from detect.document.aware import aware_test, log10_evalues
from detect.document.blind import blind_test
from detect.document.likelihood import Likelihood, first_contexts, likelihood
from detect.text.distinct import Tuples, distinct_tuples
from tests.detect.calibration import fresh_keys, log10_excess
from tests.tiny_models import CAUSAL, made
from watermark import prf
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.registry import make_scheme
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

KEY = SecretKey(bytes(range(32)))
CANDIDATES = 24
SCHEMES = ["gumbel", "tournament", "green_list"]


def _synthetic(scheme_name: str, n: int, seed: int, key: SecretKey | None, spread: float = 3.0) -> Likelihood:
    """``n`` positions with distinct contexts and low entropy; tokens drawn under ``key``, or plainly without one."""
    import torch

    generator = np.random.default_rng(seed)
    scheme = make_scheme(scheme_name, {})
    sequence = [1, 2]
    rows, logits = [], []
    for _ in range(n):
        tokens = generator.permutation(1_000)[:CANDIDATES].astype(np.uint32)
        row = (generator.standard_normal(CANDIDATES) * spread).astype(np.float32)
        chances = torch.from_numpy(row)[None]
        if key is not None:
            nonce = prf.nonces(np.array([sequence[-2:]], dtype=np.uint32), None)
            words = prf.words_among(key.words[None], nonce, tokens[None]).astype(np.int64)
            chances = scheme.transform(chances, torch.from_numpy(words))
        p = chances.double().softmax(-1).numpy()[0]
        chosen = int(generator.choice(CANDIDATES, p=p / p.sum()))
        order = np.r_[chosen, np.delete(np.arange(CANDIDATES), chosen)]
        rows.append(tokens[order])
        logits.append(row[order])
        sequence.append(int(tokens[chosen]))
    index = np.arange(2, n + 2)
    tuples = Tuples(np.array(sequence, dtype=np.uint32), 2, index, np.ones(n, dtype=np.int64), 0)
    return Likelihood(tuples, np.array(rows), np.array(logits))


def _everywhere(document: Likelihood, keys: list[SecretKey]) -> list[np.ndarray]:
    return [np.ones(len(document.tuples), dtype=bool)] * len(keys)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("wrong_model", [False, True])
def test_the_mean_over_keys_is_one_whatever_the_model(scheme: str, wrong_model: bool) -> None:
    document = _synthetic(scheme, 2, 1, None, spread=1.0)
    if wrong_model:
        noise = np.random.default_rng(2).standard_normal(document.logits.shape).astype(np.float32)
        document = Likelihood(document.tuples, document.candidates, document.logits + noise / np.float32(2))
    keys = list(fresh_keys(f"{scheme}{wrong_model}", 6_000))
    evalues = 10.0 ** log10_evalues(make_scheme(scheme, {}), keys, _everywhere(document, keys), document)
    error = evalues.std() / math.sqrt(len(keys))
    assert abs(evalues.mean() - 1) < 5 * error + 1e-3
    assert error < 0.15


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_large_evalue_is_as_rare_as_markov_says(scheme: str) -> None:
    document = _synthetic(scheme, 40, 3, None)
    keys = list(fresh_keys(scheme, 1_500))
    log10_e = log10_evalues(make_scheme(scheme, {}), keys, _everywhere(document, keys), document)
    for level in (0.1, 0.01):
        assert np.mean(log10_e >= -math.log10(level)) <= level + 4 * math.sqrt(level / len(keys))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_marked_text_of_low_entropy_gives_more_evidence_than_the_blind_test(scheme: str) -> None:
    key = subkey(KeyRing.from_master(KEY).global_key, 0)  # type: ignore[arg-type]
    document = _synthetic(scheme, 300, 4, key, spread=6.0)
    [log10_e] = log10_evalues(make_scheme(scheme, {}), [key], _everywhere(document, [key]), document)
    spec = WatermarkSpec(
        scheme=scheme, vocabulary_size=1_000, tokenizer="t", key_fingerprint=KEY.fingerprint, subkeys=1
    )
    tuples = distinct_tuples(document.tuples.sequence, 2)
    blind = blind_test(spec, KeyRing.from_master(KEY), tuples, decoy_count=0).log10_pvalue
    assert blind < -3
    assert log10_e > 1.3 * -blind


def test_tenants_are_told_apart_and_subkeys_and_tenants_are_paid_for() -> None:
    ring = KeyRing.from_master(KEY, tenants=("acme", "zenith"))
    spec = WatermarkSpec(vocabulary_size=1_000, tokenizer="t", key_fingerprint=KEY.fingerprint, global_share=0.0)
    document = _synthetic("gumbel", 150, 5, subkey(ring.tenants["zenith"], 3))
    result = aware_test(spec, ring, document, model="m", decoy_count=8)
    acme, zenith = (next(h for h in result.hypotheses if h.key == f"tenant:{name}") for name in ("acme", "zenith"))
    assert zenith.log10_evalue > 20 > 2 > acme.log10_evalue
    assert zenith.log10_pvalue_adjusted == pytest.approx(math.log10(2) - zenith.log10_evalue)
    assert len(result.decoy_log10_evalues) == 8 and max(result.decoy_log10_evalues) < 3


def test_a_scheme_without_evalues_says_so() -> None:
    class Other:
        name = "other"

    with pytest.raises(DyetraceError, match="no model-aware test"):
        log10_evalues(Other(), [KEY], [np.ones(1, dtype=bool)], _synthetic("gumbel", 1, 0, None))  # type: ignore[arg-type]


def test_only_the_first_occurrence_of_a_context_counts() -> None:
    sequence = np.array([5, 6, 7, 5, 6, 8, 9], dtype=np.uint32)
    assert first_contexts(sequence, 2, 2, 0).index.tolist() == [2, 3, 4, 6]
    assert first_contexts(sequence, 1, 1, 0).index.tolist() == [1, 2, 3, 6]


def test_candidates_hold_the_text_s_token_first_and_the_model_s_best(smollm2: Any, smollm2_tokenizer: Any) -> None:
    ids = np.array(smollm2_tokenizer.encode("The capital of France is Paris, and the capital of").ids, dtype=np.uint32)
    found = likelihood(smollm2, ids, 2)
    assert found.candidates[:, 0].tolist() == found.tuples.tokens.tolist()
    paris = found.tuples.tokens.tolist().index(smollm2_tokenizer.encode(" Paris").ids[0])
    assert found.logits[paris, 0] >= found.logits[paris].max() - 3
    duplicates = (found.candidates[:, 1:] == found.candidates[:, :1]) & np.isfinite(found.logits[:, 1:])
    assert not duplicates.any()
    known = likelihood(smollm2, ids[4:], 2, ids[:4])
    assert len(known.tuples) == len(ids) - 4


def test_a_text_alone_is_read_behind_the_token_that_begins_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = made(CAUSAL["llama"]), np.random.default_rng(0).integers(3, 300, 40).astype(np.uint32)
    alone, begun = likelihood(model, ids, 2), likelihood(model, ids, 2, first=(1,))
    with_it = likelihood(model, ids, 2, np.array([1], dtype=np.uint32), first=(1,))  # a known prompt has it already
    assert np.abs(alone.logits[:, 0] - begun.logits[:, 0]).max() > 1e-3
    np.testing.assert_allclose(begun.logits[:, 0], with_it.logits[-len(begun.tuples) :, 0], atol=1e-5)
    monkeypatch.setattr("detect.document.likelihood._WINDOW", 21)
    cut = likelihood(model, ids, 2, first=(1,))  # each window has it
    np.testing.assert_allclose(cut.logits[:18, 0], begun.logits[:18, 0], atol=1e-5)
    assert len(cut.tuples) == len(begun.tuples)


def _top_and_own(ranks: list[int], kept: int, seed: int, spread: float = 0.5) -> Likelihood:
    """A fixed text whose candidates hang on it, as `likelihood` keeps them: the likeliest ones and the text's own.

    Parameters
    ----------
    ranks
        Of each of the text's tokens among 200, by the model: from ``kept`` on it is no candidate but for the text.
    """
    import torch

    from detect.document import likelihood as module

    n = len(ranks)
    rows = np.random.default_rng(seed).standard_normal((n, 200)).astype(np.float32) * spread
    own = np.argsort(-rows, axis=1)[np.arange(n), ranks]
    candidates, logits = module._keep(torch.from_numpy(rows), own.astype(np.uint32))
    sequence = np.r_[np.arange(1_000, 1_002), own].astype(np.uint32)
    return Likelihood(Tuples(sequence, 2, np.arange(2, n + 2), np.ones(n, np.int64), 0), candidates, logits)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("rank", [0, 11, 150])
def test_candidates_that_hang_on_the_text_keep_the_evalue_valid(
    scheme: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text is fixed and the key is drawn: candidates and P may be any function of the text."""
    monkeypatch.setattr("detect.document.likelihood.KEPT", 12)
    document = _top_and_own([rank], 12, 7)
    assert document.candidates.shape == (1, 13) and np.isfinite(document.logits).sum() == (12 if rank < 12 else 13)
    keys = list(fresh_keys(f"own {scheme} {rank}", 8_000))
    log10_es = log10_evalues(make_scheme(scheme, {}), keys, _everywhere(document, keys), document)
    evalues = 10.0**log10_es
    error = evalues.std() / math.sqrt(len(keys))
    assert abs(evalues.mean() - 1) < 5 * error + 1e-3 and error < 0.1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_whole_text_with_such_candidates_is_as_rare_as_markov_says(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detect.document.likelihood.KEPT", 12)
    document = _top_and_own([0, 11, 150, 3] * 8, 12, 9)
    keys = list(fresh_keys(f"whole {scheme}", 3_000))
    log10_es = log10_evalues(make_scheme(scheme, {}), keys, _everywhere(document, keys), document)
    for level in (0.1, 1e-2, 1e-3):
        assert log10_excess(10.0 ** np.minimum(0.0, -log10_es), level) > -5


def test_a_model_that_knows_the_key_breaks_the_evalue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why a model that learnt from marked text promises nothing: its probabilities hang on the key's words."""
    monkeypatch.setattr("detect.document.likelihood.KEPT", 12)
    document = _top_and_own([5] * 40, 12, 8)
    wrong = []
    for key in fresh_keys("taught", 40):
        words = prf.words_among(np.repeat(key.words[None], 40, 0), document.tuples.nonces(None), document.candidates)
        u = (words[:, 0] + 0.5) / 2**32
        p = np.clip(-np.log(u), 0.05, 0.95)  # what a bettor who knows u would have P be
        logits = document.logits.copy()
        others = np.log(np.exp(logits[:, 1:]).sum(axis=1))
        logits[:, 0] = others + np.log(p / (1 - p))
        taught = Likelihood(document.tuples, document.candidates, logits)
        [log10_e] = log10_evalues(make_scheme("gumbel", {}), [key], _everywhere(taught, [key]), taught)
        wrong.append(log10_e >= 2)
    assert np.mean(wrong) > 0.5
