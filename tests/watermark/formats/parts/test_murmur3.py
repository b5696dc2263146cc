import numpy as np
import pytest

from watermark.formats.parts.murmur3 import hash_contexts

# Of MurmurHash3_x86_32 with seed 0 over the little-endian bytes: Appleby's own program.
KNOWN = [([], 0), ([0], 0x2362F9DE), ([0x87654321], 0xF55B516B), ([0xFFFFFFFF], 0x76293B50)]


def hash_words(words: list[int]) -> int:
    return int(hash_contexts(np.array([words], dtype=np.int64))[0])


@pytest.mark.parametrize(("words", "value"), KNOWN)
def test_known_answers(words, value):
    assert hash_words(words) == value


def test_absent_tokens_are_no_part_of_a_context():
    contexts = np.array([[-1, -1, 7, 9], [-1, -1, -1, -1], [1, 2, 7, 9]])
    assert hash_contexts(contexts).tolist() == [hash_words([7, 9]), hash_words([]), hash_words([1, 2, 7, 9])]
