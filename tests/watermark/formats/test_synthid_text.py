"""Words against synthid-text, `tests/watermark/vectors/make_foreign_formats_hash.py` says how far."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.formats.hash_vectors import FIRST_KEY, SECOND_KEY, cases, check, document, windows
from watermark.errors import DyetraceError
from watermark.formats.protocol import Format
from watermark.formats.synthid_text import SynthidText

NOTHING: Any = None

# fmt: off
PUBLISHED = (654, 400, 836, 123, 340, 443, 597, 160, 57, 29, 590, 639, 13, 715, 468, 990, 966, 226, 324, 585, 118, 504,
             421, 521, 129, 669, 732, 225, 90, 960)
# Of tokens 11, 22, ..., 77 under those keys: g-values that the repository's own code gave at addb4a1, layer 0 first.
G_VALUES = ("010010000111100001100001010010", "000001000111111011001100101010", "101110111010000000101111101001")
# fmt: on


@pytest.mark.parametrize(("case", "key", "width", "parameters"), cases("synthid-text"))
def test_words_are_those_of_its_congruence(case, key, width, parameters):
    check(SynthidText(width, len(key), **parameters), "synthid-text", case, key, width)


def test_g_values_are_the_repositorys():
    contexts, tokens = windows([11, 22, 33, 44, 55, 66, 77], 4, first=4)
    words = SynthidText().words(PUBLISHED, contexts, tokens)
    assert tuple(f"{word:030b}"[::-1] for word in words) == G_VALUES


@given(st.lists(st.integers(1, 2**62), min_size=4, max_size=4))
def test_tuples_of_one_congruence_share_their_words_under_every_key(key):
    # h <- (h + x) m + 1 modulo 2^64: one more at the first token is m more at the second.
    multiplier = 6364136223846793005
    contexts, tokens = np.array([[6, 7], [5, 7 + multiplier]]), np.array([3, 3])
    scheme = SynthidText(2, 4)
    inputs, words = scheme.inputs(tuple(key), contexts, tokens), scheme.words(tuple(key), contexts, tokens)
    assert inputs[0] == inputs[1]
    assert words[0] == words[1]


def test_before_the_first_generated_token_stand_zeros():
    contexts, tokens = windows(document(), 4)
    filled = np.where(contexts == -1, 0, contexts)
    assert np.array_equal(
        SynthidText().words(PUBLISHED, contexts, tokens), SynthidText().words(PUBLISHED, filled, tokens)
    )


def test_a_later_layer_counts_less():
    statistic = SynthidText(depth=30).statistic(np.array([1, 2, 1 << 29, (1 << 30) - 1], np.uint32))
    assert statistic.tolist() == [30, 29, 1, 465]


def test_drawn_keys_are_as_large_as_said_and_all_different():
    drawn = SynthidText(key_bits=10).draw_key(FIRST_KEY)
    assert len(set(drawn)) == 30
    assert 0 < min(drawn) <= max(drawn) < 1024
    assert max(SynthidText(key_bits=62).draw_key(FIRST_KEY)) > 2**50
    assert drawn == SynthidText().draw_key(FIRST_KEY) != SynthidText().draw_key(SECOND_KEY)


def test_there_is_a_key_for_each_layer():
    assert SynthidText(depth=2).parse_key("[654, 400]") == SynthidText(depth=2).parse_key("654,400") == (654, 400)
    with pytest.raises(DyetraceError, match="each of its 30 layers"):
        SynthidText().parse_key("654,400")
    with pytest.raises(DyetraceError) as raised:
        SynthidText(depth=1).parse_key("5ecret")
    assert "5ecret" not in str(raised.value)


def test_it_is_a_format_only_read_and_not_called_exact():
    assert isinstance(SynthidText(), Format)
    assert not SynthidText.exact
    assert SynthidText.seed_bits == 0
    with pytest.raises(DyetraceError, match="read, not written"):
        SynthidText().transform(NOTHING, NOTHING)


@pytest.mark.parametrize("fields", [{"depth": 33}, {"context_width": 0}, {"key_bits": 64}])
def test_parameters_out_of_range_are_refused(fields):
    with pytest.raises(DyetraceError, match=next(iter(fields))):
        SynthidText(**fields)
