import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.formats.parts.permutation import (
    SEED_MODULUS,
    coin_flips,
    greens,
    permutation,
    seeds_of,
    seeds_of_products,
    uniforms,
)

SEEDS = st.integers(0, SEED_MODULUS - 1)


def torch_permutation(seed: int, n: int) -> np.ndarray:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()


@given(SEEDS, st.integers(2, 3000), st.data())
@settings(max_examples=200)
def test_greens_are_the_head_of_torchs_permutation(seed, n, data):
    count = data.draw(st.integers(1, n))
    tokens = np.arange(-1, n + 2)
    found = greens(np.full(len(tokens), seed & 0xFFFFFFFF, dtype=np.uint32), tokens, n, count)
    assert np.flatnonzero(found).tolist() == sorted(torch_permutation(seed, n)[:count] + 1)


@pytest.mark.parametrize("n", [2, 3, 623, 624, 625, 50_257, 128_256, 262_144])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_greens_of_few_and_of_many_tokens_of_one_seed_agree_with_torch(n, share):
    count = max(1, int(n * share))
    rng = np.random.default_rng(n)
    for seed in rng.integers(0, 2**32, 3, dtype=np.uint32):
        green = np.isin(np.arange(n), torch_permutation(int(seed), n)[:count])
        for many in (20, 200):
            tokens = rng.integers(0, n, many)
            assert (greens(np.full(many, seed), tokens, n, count) == green[tokens]).all()


def test_mixed_seeds_come_back_in_the_order_they_were_given():
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, 50, 1000).astype(np.uint32)
    tokens = rng.integers(0, 700, 1000)
    heads = {seed: set(torch_permutation(seed, 700)[:175].tolist()) for seed in range(50)}
    expected = [token in heads[seed] for seed, token in zip(seeds.tolist(), tokens.tolist(), strict=True)]
    assert greens(seeds, tokens, 700, 175).tolist() == expected


@given(SEEDS, st.integers(1, 3000))
@settings(max_examples=50)
def test_uniforms_are_torchs_rand(seed, n):
    expected = torch.rand(n, generator=torch.Generator().manual_seed(seed)).numpy()
    found = uniforms(np.full(n + 1, seed & 0xFFFFFFFF, dtype=np.uint32), np.arange(n + 1)[::-1], n)[::-1]
    assert (found[:n] * np.float32(2**-24) == expected).all()
    assert found[n] == 0


@pytest.mark.parametrize("n", [2, 1000, 1_000_003])
def test_permutation_is_torchs(n):
    assert (permutation(15485863, n) == torch_permutation(15485863, n)).all()


def test_coin_flips_are_torchs_randint():
    expected = torch.randint(0, 2, (65536,), generator=torch.Generator().manual_seed(7)).numpy()
    assert (coin_flips(7, 65536) == expected).all()


@given(st.integers(-(2**63), 2**63 - 1))
def test_int64_seeds_are_reduced_as_python_reduces_them(value):
    assert seeds_of(np.array([value]))[0] == value % SEED_MODULUS & 0xFFFFFFFF


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_products_are_reduced_as_python_reduces_them(key, values):
    expected = [key * value % SEED_MODULUS & 0xFFFFFFFF for value in values]
    assert seeds_of_products(key, np.array(values, dtype=np.int64)).tolist() == expected


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(-1, 2**20), max_size=5))
def test_products_of_tokens_are_reduced_as_python_reduces_them(key, values):
    expected = [key * value % SEED_MODULUS & 0xFFFFFFFF for value in values]
    assert seeds_of_products(key, np.array(values, dtype=np.int64)).tolist() == expected


def test_no_tuples_are_no_words():
    nothing = np.empty(0, dtype=np.int64)
    assert greens(nothing.astype(np.uint32), nothing, 100, 25).shape == (0,)
    assert uniforms(nothing.astype(np.uint32), nothing, 100).shape == (0,)
