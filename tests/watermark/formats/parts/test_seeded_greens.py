"""What all formats of this family promise, each in turn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.watermark.formats.foreign_vectors import one_group
from watermark.errors import DyetraceError
from watermark.formats.protocol import ABSENT, Format
from watermark.laws import Bernoulli, Exponential
from watermark.registry import load_format
from watermark.schemes.protocol import parameters

SIZE = 500
FAMILY = [
    ("transformers-kgw-lefthash", {}),
    ("transformers-kgw-selfhash", {}),
    ("transformers-kgw-selfhash", {"window": 4}),
    ("lm-watermarking", {}),
    ("lm-watermarking", {"seeding_scheme": "minhash"}),
    ("lm-watermarking", {"seeding_scheme": "ff-noncomm_prf-2-True", "tail": True}),
    ("markllm-kgw", {}),
    ("markllm-kgw", {"context_width": 3, "f_scheme": "min", "window_scheme": "self"}),
    ("markllm-unigram", {}),
    ("tgi", {}),
    ("three-bricks", {"context_width": 2, "payload": 9}),
    ("three-bricks-gumbel", {"context_width": 2, "payload": 9}),
]
every = pytest.mark.parametrize(("name", "fields"), FAMILY, ids=lambda value: str(value))


def of(name, fields):
    return load_format(name)(vocabulary_size=SIZE, **fields)


@every
def test_is_a_format_whose_fields_are_its_parameters(name, fields):
    scheme = of(name, fields)
    assert isinstance(scheme, Format)
    assert scheme.name == name
    assert scheme == type(scheme)(**parameters(scheme))
    assert scheme.why_not_exact and scheme.system and scheme.licence


@every
@given(key=st.binary(min_size=32, max_size=32), data=st.data())
@settings(max_examples=20)
def test_tuples_of_one_input_share_their_word(name, fields, key, data):
    scheme = of(name, fields)
    few = data.draw(st.integers(1, 4))  # so few ids that many tuples share an input
    ids = np.random.default_rng(few).integers(ABSENT, few, (200, scheme.context_width + 1))
    contexts, tokens = ids[:, :-1], np.maximum(ids[:, -1], 0)
    native = scheme.draw_key(key)
    inputs = scheme.inputs(native, contexts, tokens)
    assert inputs.dtype == np.uint64
    assert inputs.min() > 0
    assert one_group(inputs, scheme.words(native, contexts, tokens))


@every
def test_words_do_not_hang_on_their_neighbours(name, fields):
    scheme = of(name, fields)
    rng = np.random.default_rng(0)
    contexts, tokens = rng.integers(ABSENT, SIZE, (300, scheme.context_width)), rng.integers(0, SIZE, 300)
    key = scheme.draw_key(bytes(32))
    together = scheme.words(key, contexts, tokens)
    alone = [scheme.words(key, contexts[i : i + 1], tokens[i : i + 1])[0] for i in range(300)]
    assert together.tolist() == alone
    assert len(scheme.words(key, contexts[:0], tokens[:0])) == 0
    assert len(scheme.inputs(key, contexts[:0], tokens[:0])) == 0


@every
def test_the_law_is_that_of_random_tuples(name, fields):
    scheme = of(name, fields)
    rng = np.random.default_rng(1)
    draws = 40
    sums = np.zeros(draws)
    for i in range(draws):
        contexts, tokens = rng.integers(1, SIZE, (1000, scheme.context_width)), rng.integers(0, SIZE, 1000)
        sums[i] = scheme.statistic(scheme.words(scheme.draw_key(rng.bytes(32)), contexts, tokens)).sum() * scheme.unit
    law = scheme.law
    assert isinstance(law, Bernoulli | Exponential)
    mean = law.gamma if isinstance(law, Bernoulli) else 1.0
    assert abs(sums.mean() / 1000 - mean) < 5 * sums.std(ddof=1) / draws**0.5 / 1000
    assert sums.std() < 0.1 * sums.mean() + 100


@every
def test_a_token_outside_the_vocabulary_scores_nothing(name, fields):
    scheme = of(name, fields)
    contexts = np.full((2, scheme.context_width), 3)
    words = scheme.words(scheme.draw_key(bytes(32)), contexts, np.array([SIZE, SIZE + 70_000]))
    assert scheme.statistic(words).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("transformers-kgw-lefthash", {}),
        ("tgi", {}),
        ("lm-watermarking", {"seeding_scheme": "simple_1"}),
        ("lm-watermarking", {"seeding_scheme": "simple_1", "tail": True}),
        ("lm-watermarking", {"seeding_scheme": "skipgram"}),
        ("lm-watermarking", {"seeding_scheme": "minhash"}),
        ("lm-watermarking", {"seeding_scheme": "ff-minskipgram_prf-3-False"}),
        ("lm-watermarking", {"seeding_scheme": "ff-position_prf-3-False"}),
    ],
    ids=lambda value: str(value),
)
def test_contexts_whose_greens_need_no_key_count_as_one_red_token(name, fields):
    scheme = of(name, fields)
    tokens = np.arange(SIZE)
    contexts = np.zeros((SIZE, scheme.context_width), dtype=np.int64)
    seeds = {tuple(scheme.seeds(scheme.draw_key(bytes([k]) * 32), contexts, tokens).tolist()) for k in range(3)}
    assert len(seeds) == 1  # this is the trouble
    for k in range(3):
        key = scheme.draw_key(bytes([k]) * 32)
        assert not scheme.words(key, contexts, tokens).any()
        assert len(np.unique(scheme.inputs(key, contexts, tokens))) == 1
        assert scheme.words(key, contexts + 1, tokens).any()
        assert len(np.unique(scheme.inputs(key, contexts + 1, tokens))) == SIZE


def test_where_the_least_hash_is_that_of_token_0_the_key_counts_for_nothing():
    scheme = of("lm-watermarking", {"seeding_scheme": "minhash"})
    rng = np.random.default_rng(0)
    contexts, tokens = rng.integers(1, SIZE, (2000, 4)), rng.integers(0, SIZE, 2000)
    contexts[:, 1] = 0
    key = scheme.draw_key(bytes(32))
    alike = scheme.seeds(key, contexts, tokens) == scheme.keyless_seed
    assert 0.1 < alike.mean() < 0.9
    assert len(np.unique(scheme.inputs(key, contexts, tokens)[alike])) == 1
    assert not scheme.words(key, contexts, tokens)[alike].any()


@every
def test_keys_are_drawn_from_the_seed_and_spelt_in_decimal(name, fields):
    scheme = of(name, fields)
    key = scheme.draw_key(b"a" * 32)
    assert key == scheme.draw_key(b"a" * 32) != scheme.draw_key(b"b" * 32)
    assert scheme.parse_key(f" {key[0]}\n") == key
    for wrong in ("", "secret-4711", "1.5", str(2**70), "1,2"):
        with pytest.raises(DyetraceError) as caught:
            scheme.parse_key(wrong)
        assert not wrong or wrong not in str(caught.value)


@every
def test_is_not_for_writing(name, fields):
    with pytest.raises(DyetraceError, match="is read, not written"):
        of(name, fields).transform(None, None)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tgi", {"vocabulary_size": 1}, "vocabulary_size must lie in"),
        ("tgi", {"vocabulary_size": 2**27}, "vocabulary_size must lie in"),
        ("tgi", {"gamma": 0.0}, "gamma must leave green and red"),
        ("tgi", {"gamma": 1.0}, "gamma must leave green and red"),
        ("transformers-kgw-selfhash", {"window": 0}, "window must be 1 or more"),
        ("lm-watermarking", {"seeding_scheme": "best"}, "must be one of simple_1"),
        ("lm-watermarking", {"seeding_scheme": "ff-additive_prf-0-True"}, "must be one of simple_1"),
        ("lm-watermarking", {"seeding_scheme": "ff-additive_prf-2-True-4711"}, "leave the key out"),
        ("lm-watermarking", {"seeding_scheme": "ff-minskipgram_prf-1-True"}, "window of 2 or more"),
        ("markllm-kgw", {"context_width": 0}, "context_width must be 1 or more"),
        ("markllm-kgw", {"f_scheme": "max"}, "f_scheme must be one of"),
        ("markllm-kgw", {"window_scheme": "right"}, "window_scheme must be one of"),
        ("three-bricks", {"context_width": -1}, "context_width must be 0 or more"),
        ("three-bricks-gumbel", {"payload": SIZE}, "payload must lie below"),
        ("three-bricks-gumbel", {"salt_key": 2**32}, "salt_key must lie in"),
    ],
)
def test_parameters_that_no_system_takes_are_refused(name, fields, message):
    with pytest.raises(DyetraceError, match=message):
        load_format(name)(**({"vocabulary_size": SIZE} | fields))


def test_an_error_about_a_scheme_does_not_repeat_the_key_in_it():
    with pytest.raises(DyetraceError) as caught:
        load_format("lm-watermarking")(vocabulary_size=SIZE, seeding_scheme="ff-additive_prf-2-True-4711")
    assert "4711" not in str(caught.value)
