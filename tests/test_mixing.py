from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gamma

from benchmarks.mixing import Hiding, Mixture
from detect.keyed.scoring import statistics_of
from detect.text.distinct import distinct_tuples
from watermark.keys import SecretKey
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

NOBODY = 50
KEY = SecretKey(b"k" * 32)
SPEC = WatermarkSpec(vocabulary_size=NOBODY, tokenizer="none", key_fingerprint=KEY.fingerprint)


def documents(count: int, length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, NOBODY, (count, length), dtype=np.uint32)


def mixture(seed: int = 0) -> Mixture:
    marked = [*documents(3, 30, 1), *documents(2, 20, 2), documents(1, 45, 3)[0]]
    return Mixture.draw(marked, documents(4, 30, 4), 3, 2, NOBODY, np.random.default_rng(seed))


def as_set(mixed: Mixture) -> set[tuple[int, ...]]:
    return set(map(tuple, np.column_stack([mixed.tuples.contexts, mixed.tuples.tokens]).tolist()))


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_the_first_groups_are_the_corpus_of_their_documents(groups: int) -> None:
    whole = mixture()
    rows = whole.tuples.sequence.reshape(6, 4, 32)[:groups, :, 2:].reshape(-1, 30)
    texts = [row[row != NOBODY] for row in rows]
    alone = [distinct_tuples(text, 2) for text in texts]
    expected = {tuple(t) for one in alone for t in np.column_stack([one.contexts, one.tokens]).tolist()}
    assert as_set(whole.beginning(groups)) == expected
    assert len(whole.beginning(groups).tuples) == len(expected)


def test_a_pool_that_is_used_again_is_new_text() -> None:
    rows = mixture().tuples.sequence.reshape(6, 4, 32)[:, 1:, 2:].reshape(-1, 30)
    assert len({row.tobytes() for row in rows}) == 18
    assert (rows < NOBODY).all()


def test_the_pooled_p_is_that_of_one_gamma_sum() -> None:
    whole = mixture()
    found = 10 ** whole.log10_p(SPEC, KEY, [2, 6])
    for groups, p in zip([2, 6], found, strict=True):
        part, scheme = whole.beginning(groups).tuples, SPEC.build_scheme()
        total = sum(statistics_of(scheme, subkey(KEY, index), part).sum() for index in range(4)) * scheme.unit
        assert p == pytest.approx(gamma.sf(total, 4 * len(part)), rel=1e-9)
    assert whole.null_log10_p(SPEC, [KEY])[0] == whole.log10_p(SPEC, KEY, [6])[0]


def test_the_best_document_pays_for_all_documents() -> None:
    log10_ps = np.array([-9.0, -4.5, -4.5, -2.0])
    hiding = Hiding(list(documents(4, 30, 1)), log10_ps, documents(4, 30, 4), counts=(1, 2, 4), draws=2)
    pooled, best = hiding.rows(SPEC, KEY, 0.99, [])
    # At 1e-3 among 300 documents p must be 3e-6: one in four of ours; 3 draws hold it with chance 1 - .75^3 = .58.
    assert best["50% at p<=0.001"] == 3
    assert best["95% at p<=0.001"] == "> 4"
    assert pooled["test"] == "pooled" and pooled["false / n"] is None
