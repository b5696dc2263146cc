import numpy as np
import pytest

from watermark.formats.parts.philox import LANES, blocks

# Random123's own known answers (kat_vectors, "philox4x32 10"): counter, key, block.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "block"), KNOWN)
def test_known_answers(counter, key, block):
    found = blocks(np.array(counter, np.uint32)[:, None], np.array(key, np.uint32)[:, None])
    assert found[:, 0].tolist() == block


def test_a_block_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(1)
    n = 2 * LANES + 3
    counters, keys = rng.integers(0, 2**32, (4, n), np.uint32), rng.integers(0, 2**32, (2, n), np.uint32)
    together = blocks(counters, keys)
    for i in (0, LANES - 1, LANES, n - 1):
        assert np.array_equal(blocks(counters[:, [i]], keys[:, [i]])[:, 0], together[:, i])
