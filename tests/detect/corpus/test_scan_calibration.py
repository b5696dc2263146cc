"""The nulls of a scan are right: over fresh keys, p-values of natural text are uniform or larger, tails included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detect.corpus import conclude, score
from detect.corpus.gather import Block
from detect.corpus.settings import ScanSettings
from detect.corpus.tally import Documents, Tally
from detect.keyed.rings import KeySet, key_set
from detect.text.distinct import first_occurrences, tuple_fingerprints
from detect.text.natural_text import natural_documents
from tests.detect.calibration import assert_calibrated, fresh_keys, log10_excess
from watermark.keys import KeyRing, SecretKey
from watermark.spec import WatermarkSpec

SCHEMES: dict[str, dict[str, Any]] = {
    "gumbel": {"scheme": "gumbel"},
    "tournament": {"scheme": "tournament", "parameters": {"depth": 10}, "subkeys": 2},
    "green_list": {"scheme": "green_list", "context_width": 1},
    "tenants": {"scheme": "gumbel", "global_share": 0.5},
}
TENANTS = ("acme", "zenith")
KINDS = ("prose", "code", "repetitive")


def block_of(rows: list[np.ndarray], width: int) -> tuple[Block, np.ndarray, np.ndarray]:
    """Documents as one block, its first places and its fingerprints."""
    offsets = np.cumsum([0, *map(len, rows)])
    ids = np.concatenate(rows).astype(np.uint32)
    counted = np.ones(len(ids), np.bool_)
    for j in range(width):
        counted[np.minimum(offsets[:-1] + j, len(ids) - 1)] = False
    prints = tuple_fingerprints(ids, width, 0)
    first = np.zeros(len(ids), np.bool_)
    first[counted] = first_occurrences(prints[counted])
    n = len(rows)
    block = Block(ids, np.arange(n), offsets, np.arange(n), [], first, np.zeros(2, np.int64))
    return block, first, prints


@pytest.fixture(scope="module", params=KINDS)
def rows(request: pytest.FixtureRequest, smollm2_tokenizer: Any) -> list[np.ndarray]:
    """Eight documents, one of which is an earlier one over again."""
    texts = [text for _, text in natural_documents(request.param, 7)]
    encoded = [np.array(smollm2_tokenizer.encode(text).ids[:160], np.uint32) for text in texts]
    return [*encoded, encoded[2]]


def scored(
    rows: list[np.ndarray], label: str, key: SecretKey, decoys: int = 0
) -> tuple[KeySet, Tally, Documents, WatermarkSpec]:
    spec = WatermarkSpec(vocabulary_size=49_152, tokenizer="t", key_fingerprint=key.fingerprint, **SCHEMES[label])
    tenants = TENANTS if spec.global_share < 1 else ()
    keys = key_set([spec], [KeyRing.from_master(key, 0, tenants)])
    block, first, prints = block_of(rows, spec.context_width)
    settings = ScanSettings(decoys=decoys, decoy_seed=key.fingerprint)
    tally, documents = score.score_block(block, first, prints, int(first.sum()), keys, settings)
    return keys, tally, documents, spec


@pytest.mark.parametrize("label", SCHEMES)
def test_corpus_and_document_pvalues_are_uniform_or_larger(
    label: str, rows: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "LONG", 100)  # so that stretches are tested, too
    corpus, single, null, evalues = [], [], [], []
    for key in fresh_keys(label, 250):
        keys, tally, documents, _ = scored(rows, label, key)
        corpus.append(min(h.log10_pvalue_adjusted for h in conclude.hypotheses(keys, tally, {})))
        tested = documents.tuples > 0
        single.append(documents.log10_pvalue[tested])
        null.append(documents.null_log10_pvalue[tested])
        evalues.append(documents.log10_evalue[tested])
    assert_calibrated(10.0 ** np.array(corpus))
    assert_calibrated(10.0 ** np.concatenate(single))
    log10_es = np.concatenate(evalues)
    for level in (1, 2, 3):  # Markov: P(e >= 10^level) <= 10^-level
        assert log10_excess(10.0**-log10_es, 10.0**-level) > -5


@pytest.mark.parametrize("label", ["gumbel", "tournament", "green_list"])
def test_pooled_pvalues_hold_to_one_in_ten_thousand(label: str, rows: list[np.ndarray]) -> None:
    """Decoys are keys that nobody used: many thousands of them are many thousands of nulls of the pooled test."""
    log10_ps = []
    for key in fresh_keys(f"pooled {label}", 5):
        keys, tally, _, spec = scored(rows, label, key, decoys=3_000)
        n = int(tally.decoy_tuples[0])
        log10_ps += conclude.pooled_log10(keys.schemes[0], n, tally.decoy_totals[:, : spec.subkeys]).tolist()
    assert_calibrated(10.0 ** np.array(log10_ps))


def test_the_check_fails_when_copies_count_again(smollm2_tokenizer: Any) -> None:
    """The trap that corpus-wide de-duplication is for: one reply's opening in a thousand documents."""
    text = natural_documents("prose", 1)[0][1]
    ids = np.array(smollm2_tokenizer.encode(text).ids[:40], np.uint32)
    rows, found = [ids] * 30, []
    for key in fresh_keys("copies", 400):
        spec = WatermarkSpec(vocabulary_size=49_152, tokenizer="t", key_fingerprint=key.fingerprint, subkeys=1)
        keys = key_set([spec], [KeyRing.from_master(key, 0)])
        block, _, prints = block_of(rows, 2)
        every = np.ones(len(block.ids), np.bool_)
        every[:2] = False
        tally, _ = score.score_block(block, every, prints, 10**6, keys, ScanSettings(decoys=0))
        found += conclude.pooled_log10(keys.schemes[0], int(tally.tuples[0]), tally.totals).tolist()
    assert log10_excess(10.0 ** np.array(found), 1e-3) < -5


def test_the_false_discovery_rate_is_kept_in_mixed_corpora() -> None:
    """200 corpora of 60 documents, of which 6 are marked strongly: the mean share of false ones is at most q."""
    from tests.detect.corpus.marked import SECRET
    from tests.detect.corpus.marked import documents as make
    from tests.detect.corpus.marked import spec as make_spec

    rate, shares = 0.2, []
    marked_ids = make(40, 120, 1, make_spec())
    clean = make(600, 120, 2)
    rng = np.random.default_rng(3)
    for _ in range(200):
        mine = [*marked_ids[rng.choice(40, 6, replace=False)], *clean[rng.choice(600, 54, replace=False)]]
        block, first, prints = block_of(mine, 2)
        keys = key_set([make_spec()], [KeyRing.from_master(SECRET, 0)])
        _, documents = score.score_block(block, first, prints, int(first.sum()), keys, ScanSettings(decoys=0))
        found = conclude.discover(documents, rate)
        false = int(found.discovered[6:].sum())
        shares.append(false / max(1, int(found.discovered.sum())))
        assert found.by_evalue.sum() <= found.discovered.sum() + 2
    # Its mean's standard error from the shares themselves; BH promises q times the share of unmarked documents.
    assert np.mean(shares) - 3 * np.std(shares) / np.sqrt(200) <= rate
