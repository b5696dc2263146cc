import numpy as np
import pytest

from tests.watermark.formats.foreign_vectors import SMALL, cases, check
from watermark.formats.lm_watermarking import LmWatermarking

KEY = 15485863


@pytest.mark.parametrize(("fields", "key", "vector"), cases("lm-watermarking"))
def test_words_are_those_of_its_own_code(fields, key, vector):
    check(LmWatermarking(**fields), key, vector)


@pytest.mark.parametrize("function", [name for name in SMALL["lm_watermarking"] if name.endswith("_prf")])
def test_seeds_are_those_of_its_own_code(function):
    window = np.array([SMALL["lm_watermarking"]["window"]])
    scheme = LmWatermarking(1000, seeding_scheme=f"ff-{function}-4-False")
    seed = SMALL["lm_watermarking"][function] % (2**64 - 1) & 0xFFFFFFFF
    assert scheme.seeds((KEY,), window, np.array([0])) == seed
    salted = LmWatermarking(1000, seeding_scheme=f"ff-{function}-4-True")
    assert salted.context_width == 3
    assert salted.seeds((KEY,), window[:, :3], window[:, 3]) == seed


def test_schemes_that_index_a_table_by_the_key_claim_its_bits_alone():
    assert LmWatermarking.seed_bits == 19
    assert LmWatermarking(1000, seeding_scheme="minhash").seed_bits == 19
    assert LmWatermarking(1000, seeding_scheme="selfhash").seed_bits == 32
    assert LmWatermarking(1000, seeding_scheme="simple_1").seed_bits == 32


def test_windows_that_share_the_least_hash_and_the_token_are_one_input():
    scheme = LmWatermarking(1000)
    key = (KEY,)
    contexts = np.array([[7, 7, 7], [7, 7, 8], [7, 8, 7], [8, 8, 7]])
    inputs = scheme.inputs(key, contexts, np.full(4, 9))
    assert inputs[1] == inputs[2] == inputs[3]
    assert len(set(inputs.tolist())) == 2 or inputs[0] == inputs[1]
