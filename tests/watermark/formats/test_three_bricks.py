import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.formats.foreign_vectors import SMALL, cases, check
from watermark.formats.three_bricks import ThreeBricks, ThreeBricksGumbel


@pytest.mark.parametrize(("fields", "key", "vector"), cases("three-bricks"))
def test_words_are_those_of_its_own_code(fields, key, vector):
    check(ThreeBricks(**fields), key, vector)


@pytest.mark.parametrize(("fields", "key", "vector"), cases("three-bricks-gumbel"))
def test_gumbel_words_are_those_of_its_own_code(fields, key, vector):
    check(ThreeBricksGumbel(**fields), key, vector)


def test_a_published_seed_gives_the_published_draws():
    small = SMALL["three_bricks"]
    contexts = np.tile(small["window"], (5, 1))
    words = ThreeBricksGumbel(small["vocab"], context_width=2).words((small["seed"],), contexts, np.arange(5))
    assert (words / 2**24).tolist() == small["rand[:5]"]
    green = ThreeBricks(small["vocab"], gamma=0.01, context_width=2)
    head = np.array(small["perm_first10"])
    assert green.count == 10
    assert green.words((small["seed"],), np.tile(small["window"], (10, 1)), head).all()


@given(
    st.integers(0, 2**64 - 1),
    st.integers(1, 2**32 - 1),
    st.lists(st.integers(0, 2**27), min_size=1, max_size=6),
)
def test_the_hash_is_pythons_without_bound(key, salt, window):
    s = key
    for token in window:
        s = (s * salt + token) % (2**64 - 1)
    scheme = ThreeBricks(1000, context_width=len(window), salt_key=salt)
    assert scheme.seeds((key,), np.array([window]), np.array([0])) == s & 0xFFFFFFFF


def test_gumbel_scores_never_exceed_the_exponential_law():
    scheme = ThreeBricksGumbel(1000)
    words = np.concatenate([np.arange(1000), 2**24 - 1 - np.arange(1000)]).astype(np.uint32)
    nats = scheme.statistic(words) * scheme.unit
    # P(score >= s) over the 2^24 words is (2^24 - word) / 2^24 at the word's own score.
    assert (np.exp(-nats) >= (2.0**24 - words) / 2**24).all()
    assert np.allclose(nats, -np.log1p(words / -(2.0**24)), atol=2**-23)
