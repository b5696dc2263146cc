"""Words against SGLang 0.5.23's own detector, `tests/watermark/vectors/make_foreign_formats_hash.py` says how."""

from typing import Any

import numpy as np
import pytest

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
from tests.watermark.vectors.make_foreign_formats_hash import PROMPTS
from watermark.errors import DyetraceError
from watermark.formats.protocol import Format
from watermark.formats.sglang import Sglang, SglangTwoKeys

NOTHING: Any = None

BOTH = [Sglang(), SglangTwoKeys()]
KEYS = {"sglang": (0x0123456789ABCDEF,), "sglang-two-keys": (0x0123456789ABCDEF, 0xFEDCBA9876543210)}


@pytest.mark.parametrize(("case", "key", "width", "parameters"), cases("sglang"))
def test_words_are_sglangs(case, key, width, parameters):
    check(Sglang(width), "sglang", case, key, width)


@pytest.mark.parametrize(("case", "key", "width", "parameters"), cases("sglang-two-keys"))
def test_words_of_two_keys_are_sglangs(case, key, width, parameters):
    check(SglangTwoKeys(width, **parameters), "sglang-two-keys", case, key, width)


@pytest.mark.parametrize("scheme", BOTH, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_score_of_a_text_is_that_of_sglangs_detector(scheme, prompt):
    # With a prompt the first contexts hold its tail, however short; without one the first four are left out.
    first = len(PROMPTS[prompt]) or scheme.context_width
    contexts, tokens = windows([*PROMPTS[prompt], *document()], scheme.context_width, first)
    once = first_of_each(contexts)
    held = DETECTIONS[scheme.name][prompt]
    assert len(once) == held["tokens"]
    assert nats(scheme, KEYS[scheme.name], contexts[once], tokens[once]) == pytest.approx(held["score"], abs=1e-4)


@pytest.mark.parametrize("scheme", BOTH, ids=lambda scheme: scheme.name)
def test_what_sglangs_selector_chose_is_found_under_its_keys_alone(scheme):
    prompt = PROMPTS["long prompt"]
    contexts, tokens = windows([*prompt, *GENERATIONS[scheme.name]], scheme.context_width, first=len(prompt))
    assert log10_pvalue(scheme, KEYS[scheme.name], contexts, tokens) < -20
    assert log10_pvalue(scheme, scheme.draw_key(FIRST_KEY), contexts, tokens) > -4


@pytest.mark.parametrize("scheme", BOTH, ids=lambda scheme: scheme.name)
def test_contexts_of_one_hash_are_one_input_and_share_their_words(scheme):
    # Two contexts of four tokens, found by search, whose 32-bit hashes agree.
    numbers = np.arange(200_000)
    contexts = np.stack([numbers % 991, numbers % 983, numbers % 977, numbers], axis=1)
    inputs = scheme.inputs((1, 2), contexts, np.zeros(len(contexts), np.int64))
    _, inverse, counts = np.unique(inputs, return_inverse=True, return_counts=True)
    twice = np.flatnonzero(counts[inverse] == 2)
    assert len(twice) >= 2
    pair = contexts[np.flatnonzero(inputs == inputs[twice[0]])]
    for number in range(8):
        key = scheme.draw_key(bytes([number]) * 32)
        for token in (0, 5, 100_000):
            words = scheme.words(key, pair, np.full(2, token))
            assert words[0] == words[1]


@pytest.mark.parametrize("scheme", BOTH, ids=lambda scheme: scheme.name)
def test_pvalues_of_unmarked_repetitive_text_are_uniform(scheme):
    contexts, tokens = windows(document(), scheme.context_width)
    pvalues = null_pvalues(scheme, contexts, tokens, keys=4000)
    assert 20 <= np.count_nonzero(pvalues <= 1e-2) <= 65
    assert np.count_nonzero(pvalues <= 1e-3) <= 14


def test_the_coin_gives_key_a_its_share_of_contexts():
    contexts, tokens = np.arange(40_000).reshape(-1, 4), np.arange(10_000)
    key = KEYS["sglang-two-keys"]
    by_a = SglangTwoKeys(mixing_probability=0.3).words(key, contexts, tokens) == Sglang().words(
        key[:1], contexts, tokens
    )
    assert by_a.mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("scheme", BOTH, ids=lambda scheme: scheme.name)
def test_it_is_a_format_only_read_and_not_called_exact(scheme):
    assert isinstance(scheme, Format)
    assert not scheme.exact
    assert scheme.why_not_exact
    with pytest.raises(DyetraceError, match="read, not written"):
        scheme.transform(NOTHING, NOTHING)
    assert scheme.draw_key(FIRST_KEY) == scheme.draw_key(FIRST_KEY) != scheme.draw_key(SECOND_KEY)


def test_keys_are_spelt_as_in_sglangs_configuration():
    assert Sglang().parse_key("0x2A") == Sglang().parse_key("2a") == (42,)
    assert SglangTwoKeys().parse_key("2a, 0xffffffffffffffff") == (42, 2**64 - 1)
    for text in ("", "0x", "12345678901234567", "5ecret"):
        with pytest.raises(DyetraceError) as raised:
            Sglang().parse_key(text)
        assert "5ecret" not in str(raised.value)
    with pytest.raises(DyetraceError, match="two keys"):
        SglangTwoKeys().parse_key("2a")


@pytest.mark.parametrize("make", [lambda: Sglang(65), lambda: SglangTwoKeys(0), lambda: SglangTwoKeys(4, 1.0)])
def test_parameters_that_sglang_refuses_are_refused(make):
    with pytest.raises(DyetraceError):
        make()
