"""Words against textseal 0.0.5's own hash, `tests/watermark/vectors/make_foreign_formats_hash.py` says how."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.formats.hash_vectors import FIRST_KEY, SECOND_KEY, cases, check, document, windows
from watermark.errors import DyetraceError
from watermark.formats.protocol import Format
from watermark.formats.textseal import VALUES, TextsealDualKey, TextsealGreen, TextsealGumbel

NOTHING: Any = None

ALL: list[Any] = [TextsealGreen(2), TextsealGumbel(2), TextsealDualKey(2)]
KEYS = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(("case", "key", "width", "parameters"), cases("textseal-gumbel"))
def test_hashes_are_textseals(case, key, width, parameters):
    check(TextsealGumbel(width), "textseal-gumbel", case, key, width)


@pytest.mark.parametrize(("case", "key", "width", "parameters"), cases("textseal-green"))
def test_greens_are_textseals(case, key, width, parameters):
    check(TextsealGreen(width, **parameters), "textseal-green", case, key, width)


@pytest.mark.parametrize(("case", "key", "width", "parameters"), cases("textseal-dual-key"))
def test_hashes_of_two_keys_are_textseals(case, key, width, parameters):
    check(TextsealDualKey(width), "textseal-dual-key", case, key, width)


def test_half_of_the_values_is_a_little_more_than_half():
    assert TextsealGreen(gamma=0.5).law.gamma == 4096 / 8191 > 0.5


def test_no_score_is_likelier_than_the_law_says():
    scores = TextsealGumbel().statistic(np.arange(VALUES, dtype=np.uint32)) * TextsealGumbel().unit
    assert (1 - np.arange(VALUES) / VALUES <= np.exp(-scores) * (1 + 1e-15)).all()


@given(KEYS, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_tuples_of_one_sum_share_their_words_under_every_key(key, first, second, token):
    # 10000247 is the second token's prime and 10000019 the first's: trading one for the other leaves the sum.
    contexts = np.array([[first + 10000247, second], [first, second + 10000019]])
    tokens = np.array([token, token])
    for scheme in ALL:
        inputs, words = scheme.inputs((key,), contexts, tokens), scheme.words((key,), contexts, tokens)
        assert inputs[0] == inputs[1]
        assert words[0] == words[1]


@pytest.mark.parametrize("scheme", ALL, ids=lambda scheme: scheme.name)
def test_absent_tokens_stand_for_token_0(scheme):
    contexts, tokens = windows(document(), 2)
    assert (contexts == -1).any()
    assert np.array_equal(
        scheme.words((42,), contexts, tokens), scheme.words((42,), np.where(contexts == -1, 0, contexts), tokens)
    )


@pytest.mark.parametrize("scheme", ALL, ids=lambda scheme: scheme.name)
def test_it_is_a_format_only_read_and_not_called_exact(scheme):
    assert isinstance(scheme, Format)
    assert not scheme.exact
    assert scheme.why_not_exact
    assert scheme.seed_bits == 0
    with pytest.raises(DyetraceError, match="read, not written"):
        scheme.transform(NOTHING, NOTHING)
    assert scheme.draw_key(FIRST_KEY) == scheme.draw_key(FIRST_KEY) != scheme.draw_key(SECOND_KEY)


def test_the_second_key_follows_the_first_unless_it_is_given():
    scheme = TextsealDualKey()
    assert scheme.key_pair(scheme.parse_key("42")) == ((42,), (12387,))
    assert scheme.key_pair(scheme.parse_key("42,7")) == ((42,), (7,))
    with pytest.raises(DyetraceError, match="one key or two"):
        scheme.parse_key("1,2,3")


def test_keys_that_are_no_numbers_are_not_shown():
    for scheme in ALL:
        with pytest.raises(DyetraceError) as raised:
            scheme.parse_key("5ecret")
        assert "5ecret" not in str(raised.value)


@pytest.mark.parametrize(
    "make", [lambda: TextsealGreen(11), lambda: TextsealGreen(gamma=1.0), lambda: TextsealDualKey(1, 0.0)]
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(DyetraceError):
        make()
