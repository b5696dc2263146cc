"""Mistakes that have made false positives elsewhere; each test would fail if dyetrace made it too."""

from __future__ import annotations

import numpy as np

from detect.document.blind import blind_test, log10_pvalues
from detect.keyed.scoring import totals
from detect.text.distinct import distinct_tuples
from tests.detect.calibration import assert_calibrated, fresh_keys
from watermark import prf
from watermark.keys import KeyRing, SecretKey
from watermark.registry import make_scheme
from watermark.rowkeys import subkey
from watermark.spec import WatermarkSpec

KEY = SecretKey(bytes(range(32)))
VOCABULARY = 2_000


def _spec(key: SecretKey, **fields: object) -> WatermarkSpec:
    return WatermarkSpec(vocabulary_size=VOCABULARY, tokenizer="t", key_fingerprint=key.fingerprint, **fields)  # type: ignore[arg-type]


def marked_ids(key: SecretKey, n: int, seed: int) -> np.ndarray:
    """Text that ``key`` itself marked: the best of 8 uniform candidates each time."""
    generator = np.random.default_rng(seed)
    ids = list(generator.integers(0, VOCABULARY, 2))
    for _ in range(n):
        nonce = np.array([[ids[-1]], [ids[-2]], [prf.MISSING]], dtype=np.uint32)
        candidates = generator.integers(0, VOCABULARY, (1, 8), dtype=np.uint32)
        ids.append(int(candidates[0, prf.words_among(key.words[None], nonce, candidates)[0].argmax()]))
    return np.array(ids, dtype=np.uint32)


def test_text_of_one_key_says_nothing_under_its_siblings() -> None:
    """Correlated keys (key + 1, key + 2) accuse the wrong account; derived keys do not."""
    tuples = distinct_tuples(marked_ids(subkey(KEY.derive("tenant", "t0"), 0), 400, 0), 2)
    siblings = [subkey(KEY.derive("tenant", f"t{i}"), j) for i in range(1, 800) for j in range(4)]
    scheme = make_scheme("gumbel", {})
    assert_calibrated(10.0 ** log10_pvalues(scheme, tuples, totals(scheme, siblings, tuples)))
    own = totals(scheme, [subkey(KEY.derive("tenant", "t0"), 0)], tuples)
    assert log10_pvalues(scheme, tuples, own)[0] < -50


def test_contexts_and_tokens_keep_all_their_bits() -> None:
    """Ids that differ by 2^13, 2^16 or in any one bit of 32 share no randomness, in any place of the context."""
    for width in (1, 2, 3, 4, 7):
        base = [5] * width
        changed = [[*base[:i], 5 ^ (1 << bit), *base[i + 1 :]] for i in range(width) for bit in range(32)]
        words = {prf.prf_u32(KEY, context, 9) for context in [base, *changed]}
        assert len(words) == 32 * width + 1
    assert len({prf.prf_u32(KEY, [1, 2], 9 ^ (1 << bit)) for bit in range(32)}) == 32


def test_a_loop_of_text_repeated_a_thousand_times_is_no_evidence() -> None:
    loop = np.tile(np.random.default_rng(0).integers(0, VOCABULARY, 12, dtype=np.uint32), 1_000)
    tuples = distinct_tuples(loop, 2)
    assert len(tuples) == 12
    scheme = make_scheme("green_list", {})
    assert_calibrated(10.0 ** log10_pvalues(scheme, tuples, totals(scheme, list(fresh_keys("loop", 3_000)), tuples)))


def test_a_copied_prompt_is_counted_where_it_is_quoted_and_only_once() -> None:
    """A prompt that quotes itself gives the same tuple at every quote."""
    prompt = np.array([1, 2, 3, 4, 1, 2], dtype=np.uint32)
    answer = np.array([3, 4, 1, 2, 3, 4], dtype=np.uint32)
    assert len(distinct_tuples(answer, 2, prompt)) == 4


def test_exact_tails_are_used_and_not_mid_p() -> None:
    """The best p-value of one green token is gamma itself, not half of it."""
    spec = _spec(KEY, scheme="green_list", subkeys=1)
    ids = next(
        ids
        for ids in (np.array([a, b, c], dtype=np.uint32) for a in range(5) for b in range(5) for c in range(5))
        if totals(spec.build_scheme(), [subkey(KeyRing.from_master(KEY).global_key, 0)], distinct_tuples(ids, 2))[0]  # type: ignore[arg-type]
    )
    result = blind_test(spec, KeyRing.from_master(KEY), distinct_tuples(ids, 2), decoy_count=0)
    assert abs(10**result.log10_pvalue - 0.25) < 1e-9
