"""Words against vLLM 0.32.0's own PRF, `tests/watermark/vectors/make_foreign_formats_hash.py` says how."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.formats.hash_vectors import (
    DETECTIONS,
    GENERATIONS,
    cases,
    check,
    document,
    first_of_each,
    log10_pvalue,
    nats,
    null_pvalues,
    windows,
)
from watermark.errors import DyetraceError
from watermark.formats.protocol import Format
from watermark.formats.vllm_dual_key import VllmDualKeyGumbel


@pytest.mark.parametrize(("case", "key", "width", "parameters"), cases("vllm-dual-key-gumbel"))
def test_words_are_vllms(case, key, width, parameters):
    check(VllmDualKeyGumbel(width), "vllm-dual-key-gumbel", case, key, width)


def test_the_score_of_a_text_is_that_of_vllms_detector():
    contexts, tokens = windows(document(), 4)
    once = first_of_each(contexts)
    held = DETECTIONS["vllm-dual-key-gumbel"]
    assert len(once) == held["tokens"]
    # Weights are rounded down to 2^-20, so the score may fall short by that, and never exceeds.
    assert held["score"] * (1 - 2e-5) <= nats(VllmDualKeyGumbel(), (42,), contexts[once], tokens[once]) <= held["score"]


def test_each_half_is_the_single_format_under_its_own_key():
    scheme = VllmDualKeyGumbel()
    contexts, tokens = windows(document(), 4)
    words = scheme.words((42,), contexts, tokens)
    key_a, key_b = scheme.key_pair((42,))
    assert (key_a, key_b) == ((37150756557148556,), (15826636237805488045,))  # vLLM's derive_watermark_key
    assert np.array_equal(words & np.uint64(0xFFFFFFFF), scheme.single.words(key_a, contexts, tokens))
    assert np.array_equal(words >> np.uint64(32), scheme.single.words(key_b, contexts, tokens))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_a_blended_score_never_exceeds_its_parts(word_a, word_b, alpha):
    scheme = VllmDualKeyGumbel(alpha=alpha)
    packed = np.array([word_a | word_b << 32], np.uint64)
    part_a, part_b = (int(scheme.single.statistic(np.array([word], np.uint32))[0]) for word in (word_a, word_b))
    exact = scheme.weights[0] * part_a + scheme.weights[1] * part_b
    found = int(scheme.statistic(packed)[0])
    assert exact - 1 - 2e-6 * (part_a + part_b) <= found <= exact


def test_what_vllms_sampler_chose_is_found_under_its_key_alone():
    contexts, tokens = windows(GENERATIONS["vllm-dual-key-gumbel"], 4)
    assert log10_pvalue(VllmDualKeyGumbel(), (42,), contexts, tokens) < -20
    assert log10_pvalue(VllmDualKeyGumbel(), (43,), contexts, tokens) > -4


def test_pvalues_of_unmarked_repetitive_text_are_uniform():
    contexts, tokens = windows(document(), 4)
    pvalues = null_pvalues(VllmDualKeyGumbel(), contexts, tokens, keys=4000)
    assert 20 <= np.count_nonzero(pvalues <= 1e-2) <= 65
    assert np.count_nonzero(pvalues <= 1e-3) <= 14


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_one_key_alone_is_another_format(alpha):
    assert isinstance(VllmDualKeyGumbel(), Format)
    with pytest.raises(DyetraceError, match="alpha"):
        VllmDualKeyGumbel(alpha=alpha)
