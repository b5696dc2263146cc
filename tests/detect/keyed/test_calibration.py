"""The nulls are right: p-values of text that no key wrote are uniform or larger, over fresh keys, on any kind of text.

The full run, with more documents and keys, is benchmarks/calibration.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import smirnov

from detect.document.blind import blind_test, log10_pvalues
from detect.keyed.scoring import totals
from detect.text.distinct import Tuples, distinct_tuples
from detect.text.natural_text import natural_documents
from tests.detect.calibration import assert_calibrated, fresh_keys, log10_excess
from watermark.keys import KeyRing, SecretKey
from watermark.registry import make_scheme
from watermark.spec import WatermarkSpec

SCHEMES: dict[str, tuple[str, dict[str, Any], int]] = {
    "gumbel": ("gumbel", {}, 2),
    "tournament": ("tournament", {"depth": 30}, 2),
    "shallow tournament": ("tournament", {"depth": 3}, 2),
    "green list": ("green_list", {}, 2),
    "green list, wide": ("green_list", {"gamma": 0.5}, 4),
    "unigram": ("green_list", {}, 0),
}
TOKENS = 300
KEYS_PER_DOCUMENT = 1_500


@pytest.fixture(scope="module", params=["prose", "code", "licences", "repetitive", "languages", "random ids"])
def documents(request: pytest.FixtureRequest, smollm2_tokenizer: Any) -> list[np.ndarray]:
    if request.param == "random ids":
        return list(np.random.default_rng(0).integers(0, 49_152, (6, TOKENS), dtype=np.uint32))
    texts = [text for _, text in natural_documents(request.param, 6)]
    return [np.array(smollm2_tokenizer.encode(text).ids[:TOKENS], dtype=np.uint32) for text in texts]


def _pvalues(name: str, parameters: dict[str, Any], tuples: Tuples, keys: list[SecretKey]) -> np.ndarray:
    scheme = make_scheme(name, parameters)
    return np.asarray(10.0 ** log10_pvalues(scheme, tuples, totals(scheme, keys, tuples)))


@pytest.mark.parametrize("label", SCHEMES)
def test_pvalues_under_fresh_keys_are_uniform_or_larger(label: str, documents: list[np.ndarray]) -> None:
    name, parameters, width = SCHEMES[label]
    found = [
        _pvalues(name, parameters, distinct_tuples(ids, width), list(fresh_keys(f"{label}{i}", KEYS_PER_DOCUMENT)))
        for i, ids in enumerate(documents)
    ]
    assert_calibrated(np.concatenate(found))


def test_gumbel_pvalues_are_exactly_uniform(documents: list[np.ndarray]) -> None:
    """A continuous statistic leaves no slack: both sides of the Kolmogorov-Smirnov test hold."""
    ids = documents[0]
    p = np.sort(_pvalues("gumbel", {}, distinct_tuples(ids, 2), list(fresh_keys("exact", 4_000))))
    grid = np.arange(1, len(p) + 1) / len(p)
    distance = max(float(np.max(grid - p)), float(np.max(p - grid + 1 / len(p))))
    assert 2 * smirnov(len(p), distance) > 1e-4


def test_the_whole_document_test_pays_for_subkeys_and_tenants(documents: list[np.ndarray]) -> None:
    spec_fields: dict[str, Any] = {"vocabulary_size": 49_152, "tokenizer": "t", "global_share": 0.5}
    tenants = ("acme", "zenith", "orion")
    pvalues = []
    for number, key in enumerate(fresh_keys("family", 240)):
        spec = WatermarkSpec(key_fingerprint=key.fingerprint, **spec_fields)
        tuples = distinct_tuples(documents[number % len(documents)], 2)
        pvalues.append(10 ** blind_test(spec, KeyRing.from_master(key, 0, tenants), tuples, decoy_count=0).log10_pvalue)
    assert_calibrated(np.array(pvalues))


@pytest.mark.parametrize("kind", ["repetitive", "code"])
def test_the_check_itself_fails_when_repeats_are_counted(kind: str, smollm2_tokenizer: Any) -> None:
    """The trap that motivates de-duplication: the same documents, every occurrence counted."""
    pvalues = []
    for _, text in natural_documents(kind, 6):
        ids = np.array(smollm2_tokenizer.encode(text).ids[:TOKENS], dtype=np.uint32)
        index = np.arange(1, len(ids))
        repeated = Tuples(ids, 1, index, np.ones(len(index), dtype=np.int64), 0)
        pvalues.append(_pvalues("green_list", {}, repeated, list(fresh_keys(text[:9], 2_000))))
    assert log10_excess(np.concatenate(pvalues), 1e-3) < -5
