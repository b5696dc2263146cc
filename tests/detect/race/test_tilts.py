"""A key's weights on candidates have the owner's chances as their mean, and are what the schemes themselves choose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.keyed.choices import LATTICE, candidate_words, choices, green_leanings, keyed_scheme
from detect.race.tilts import tilts
from tests.detect.race.world import MASTER, spec_of
from watermark import prf
from watermark.keys import KeyRing, SecretKey
from watermark.rowkeys import subkey
from watermark.schemes.green_list import GreenList
from watermark.spec import WatermarkSpec

SCHEMES = [
    spec_of("gumbel"),
    spec_of("tournament"),
    spec_of("tournament", parameters={"depth": 3}),
    spec_of("green_list"),
    spec_of("green_list", parameters={"gamma": 0.5, "delta": 4.0}),
]
CHANCES = np.array([[0.55, 0.25, 0.15, 0.0499, 1e-4, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2, 0.0]])
TOKENS = np.array([[7, 1, 9, 3, 12, -1], [0, 15, 2, 8, 4, -1]], dtype=np.int32)
CONTEXTS = np.array([[3, 4], [4, 3]], dtype=np.uint32)


def key_number(number: int) -> SecretKey:
    return SecretKey(number.to_bytes(32, "little"))


@pytest.mark.parametrize("spec", SCHEMES, ids=lambda spec: f"{spec.scheme}{spec.parameters or ''}")
def test_the_mean_over_keys_is_the_chances(spec: WatermarkSpec) -> None:
    known = np.zeros(2, dtype=np.int32)
    found = np.array([tilts(spec, key_number(n), CONTEXTS, known, TOKENS, CHANCES)[0] for n in range(4000)])
    error = np.maximum(found.std(axis=0) / np.sqrt(len(found)), 1e-12)
    assert np.abs((found.mean(axis=0) - CHANCES) / error).max() < 4.5
    assert (found >= 0).all()
    assert (found[:, TOKENS < 0] == 0).all()


def test_the_mean_over_all_words_of_a_small_lattice_is_at_most_the_chances_and_its_steps() -> None:
    # The same race with words of 6 bits: all 2^12 pairs of words, none left out, against the bound's own proof.
    steps = 64
    u = (np.arange(steps) + 0.5) / steps
    for p in (0.5, 0.3, 0.9, 0.017, 0.999):
        first = np.log(u)[:, None] / p > np.log(u)[None, :] / (1 - p)
        tied = np.log(u)[:, None] / p == np.log(u)[None, :] / (1 - p)
        for wins in (first, first | tied):
            assert abs(wins.mean() - p) <= 2 * 0.5 / steps
    assert LATTICE == 0.5 / 2**32


def test_the_race_is_won_by_what_generation_chooses() -> None:
    spec = spec_of("gumbel")
    scheme = keyed_scheme(spec.build_scheme())
    rng = np.random.default_rng(5)
    tokens = np.tile(np.arange(12, dtype=np.int32), (200, 1))
    contexts = rng.integers(0, 99, (200, 2)).astype(np.uint32)
    chances = rng.dirichlet(np.full(12, 0.4), 200) + 1e-9
    chances /= chances.sum(axis=1, keepdims=True)
    words = candidate_words(MASTER, contexts, tokens)
    chosen = scheme.transform(torch.tensor(np.log(chances)), torch.tensor(words.astype(np.int64))).argmax(-1)
    weights = choices(scheme, words, chances)
    assert np.array_equal(weights.argmax(axis=1), chosen.numpy())
    assert (weights.sum(axis=1) == 1).all()


def test_a_tournament_leaves_what_generation_draws_from() -> None:
    scheme = keyed_scheme(spec_of("tournament").build_scheme())
    chances = np.random.default_rng(6).dirichlet(np.full(40, 0.3), 50) + 1e-9
    chances /= chances.sum(axis=1, keepdims=True)
    words = candidate_words(
        MASTER, np.arange(100, dtype=np.uint32).reshape(50, 2), np.tile(np.arange(40, dtype=np.int32), (50, 1))
    )
    drawn = scheme.transform(torch.tensor(np.log(chances)), torch.tensor(words.astype(np.int64))).exp().numpy()
    assert np.allclose(choices(scheme, words, chances), drawn, atol=1e-12)


def test_a_green_word_is_raised_by_its_likelihood_ratio() -> None:
    scheme = GreenList()
    # One candidate of chance .3 among many of small ones, which are green in their mean share.
    chances = np.concatenate([[0.3], np.full(2000, 0.7 / 2000)])
    green = np.random.default_rng(1).random((500, 2000)) < scheme.law.gamma
    others = (chances[1:] * np.exp(scheme.delta * green)).sum(axis=1)
    raised = 0.3 * np.exp(scheme.delta)
    ratio = (raised / (raised + others)).mean() / (0.3 / (0.3 + others)).mean()
    assert green_leanings(scheme, np.array([0.3]))[0] == pytest.approx(np.log(ratio), abs=0.01)


def test_each_sub_key_has_weights_of_its_own_where_none_is_on_record() -> None:
    spec = spec_of("gumbel", subkeys=4)
    key = KeyRing.from_master(MASTER).global_key
    assert isinstance(key, SecretKey)
    unknown = tilts(spec, key, CONTEXTS, np.full(2, -1, dtype=np.int32), TOKENS, CHANCES)
    assert unknown.shape == (4, 2, 6)
    for index in range(4):
        known = tilts(spec, key, CONTEXTS, np.full(2, index, dtype=np.int32), TOKENS, CHANCES)
        assert np.array_equal(known[0], unknown[index])
    mixed = tilts(spec, key, CONTEXTS, np.array([2, -1], dtype=np.int32), TOKENS, CHANCES)
    assert np.array_equal(mixed[:, 0], np.repeat(unknown[2:3, 0], 4, axis=0))
    assert np.array_equal(mixed[:, 1], unknown[:, 1])


@settings(max_examples=25, deadline=None)
@given(token=st.integers(0, 15), context=st.tuples(st.integers(0, 15), st.integers(0, 15)), index=st.integers(0, 3))
def test_words_are_those_of_the_primitive(token: int, context: tuple[int, int], index: int) -> None:
    key = subkey(MASTER, index)
    words = candidate_words(key, np.array([context], dtype=np.uint32), np.array([[token]], dtype=np.int32))
    assert int(words[0, 0]) == prf.prf_u32(key, list(context), token)


def test_a_foreign_or_third_partys_scheme_is_refused_in_a_line() -> None:
    class Other:
        name = "other"

    with pytest.raises(Exception, match="what scheme 'other' makes of an owner's chances is not known"):
        keyed_scheme(Other())  # type: ignore[arg-type]
