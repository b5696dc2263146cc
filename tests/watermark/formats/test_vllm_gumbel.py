"""Words against vLLM 0.32.0's own PRF, `tests/watermark/vectors/make_foreign_formats_hash.py` says how."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.formats.hash_vectors import (
    DETECTIONS,
    FIRST_KEY,
    GENERATIONS,
    SECOND_KEY,
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
from watermark.formats.vllm_gumbel import VllmGumbel

NOTHING: Any = None


@pytest.mark.parametrize(("case", "key", "width", "parameters"), cases("vllm-gumbel"))
def test_words_are_vllms(case, key, width, parameters):
    check(VllmGumbel(width), "vllm-gumbel", case, key, width)


def test_the_score_of_a_text_is_that_of_vllms_detector():
    contexts, tokens = windows(document(), 4)  # vLLM pads the first contexts with -1 and scores each context once
    once = first_of_each(contexts)
    held = DETECTIONS["vllm-gumbel"]
    assert len(once) == held["tokens"]
    assert nats(VllmGumbel(), (42,), contexts[once], tokens[once]) == pytest.approx(held["score"], abs=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_no_score_is_likelier_than_the_law_says(word):
    score = int(VllmGumbel().statistic(np.array([word], np.uint32))[0]) * VllmGumbel().unit
    # P(score >= this) is the share of 24-bit numbers from this word's on.
    assert (2**24 - (word >> 8)) / 2**24 <= np.exp(-score)


def test_it_is_a_format_and_only_read():
    assert isinstance(VllmGumbel(), Format)
    with pytest.raises(DyetraceError, match="read, not written"):
        VllmGumbel().transform(NOTHING, NOTHING)


def test_what_vllms_sampler_chose_is_found_under_its_key_alone():
    contexts, tokens = windows(GENERATIONS["vllm-gumbel"], 4)
    assert log10_pvalue(VllmGumbel(), (42,), contexts, tokens) < -20
    assert log10_pvalue(VllmGumbel(), (43,), contexts, tokens) > -4


def test_pvalues_of_unmarked_repetitive_text_are_uniform():
    contexts, tokens = windows(document(), 4)
    pvalues = null_pvalues(VllmGumbel(), contexts, tokens, keys=4000)
    assert 20 <= np.count_nonzero(pvalues <= 1e-2) <= 65  # expected 40, sd 6.3
    assert np.count_nonzero(pvalues <= 1e-3) <= 14  # expected 4


def test_keys_are_spelt_as_in_vllms_configuration():
    assert VllmGumbel().parse_key(" 18446744073709551615\n") == (2**64 - 1,)
    for text in ("18446744073709551616", "-1", "0x2a", "", "12 secret"):
        with pytest.raises(DyetraceError) as raised:
            VllmGumbel().parse_key(text)
        assert "secret" not in str(raised.value)
        assert not text or text not in str(raised.value)


def test_drawn_keys_are_the_seeds_own():
    drawn = VllmGumbel().draw_key(FIRST_KEY)
    assert drawn == VllmGumbel().draw_key(FIRST_KEY) != VllmGumbel().draw_key(SECOND_KEY)
    assert 0 <= drawn[0] < 2**64


def test_no_tuples_give_no_words():
    nothing = np.empty((0, 4), np.int64), np.empty(0, np.int64)
    assert VllmGumbel().words((1,), *nothing).shape == VllmGumbel().inputs((1,), *nothing).shape == (0,)


def test_a_context_of_nothing_is_refused():
    with pytest.raises(DyetraceError, match="context_width"):
        VllmGumbel(0)
