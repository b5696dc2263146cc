import numpy as np
import pytest

from tests.watermark.formats.foreign_vectors import cases, check
from watermark.formats.markllm import MarkllmKgw, MarkllmUnigram


@pytest.mark.parametrize(("fields", "key", "vector"), cases("markllm-kgw"))
def test_kgw_words_are_those_of_its_own_code(fields, key, vector):
    check(MarkllmKgw(**fields), key, vector)


@pytest.mark.parametrize(("fields", "key", "vector"), cases("markllm-unigram"))
def test_unigram_words_are_those_of_its_own_code(fields, key, vector):
    check(MarkllmUnigram(**fields), key, vector)


def test_kgw_has_no_more_green_lists_than_tokens_whatever_the_key():
    scheme = MarkllmKgw(101)
    contexts = np.arange(101)[:, None]
    seeds = np.concatenate([scheme.seeds(scheme.draw_key(bytes([k]) * 32), contexts, contexts[:, 0]) for k in range(9)])
    assert seeds.max() < 101


def test_unigram_counts_each_type_once():
    scheme = MarkllmUnigram(1000)
    tokens = np.array([5, 6, 5, 0])
    nothing = np.empty((4, 0), dtype=np.int64)
    assert len(set(scheme.inputs((1,), nothing, tokens).tolist())) == 3
