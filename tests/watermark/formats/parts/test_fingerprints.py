import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from watermark.formats.parts.fingerprints import fingerprints

ROWS = st.lists(st.tuples(*[st.integers(-1, 2**18)] * 3), min_size=1, max_size=30)


@given(ROWS)
def test_tuples_are_told_apart_and_alike_ones_are_not(rows):
    grams = np.array(rows)
    found = fingerprints(grams[:, :2], grams[:, 2])
    assert len(np.unique(found)) == len(set(rows))
    assert found.all()  # 0 stands for an empty slot of hash tables


def test_the_order_of_tokens_and_the_width_count():
    one = fingerprints(np.array([[1, 2]]), np.array([3]))
    assert one != fingerprints(np.array([[2, 1]]), np.array([3]))
    assert one != fingerprints(np.array([[1]]), np.array([2]))
    assert one != fingerprints(np.array([[0, 1, 2]]), np.array([3]))
