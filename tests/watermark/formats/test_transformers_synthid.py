"""Against transformers' own processor and the text that it generates."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SynthIDTextWatermarkingConfig
from transformers.generation import SynthIDTextWatermarkLogitsProcessor

from detect.laws.tails import log10_sf
from tests.watermark.formats.foreign_vectors import SMALL, one_group, tuples
from watermark.errors import DyetraceError
from watermark.formats.protocol import ABSENT, Format
from watermark.formats.transformers_synthid import TransformersSynthid

NOTHING: Any = None

KEYS = tuple(SMALL["hf_synthid"]["keys"])


def processor(keys, *, ngram=5, size=65536, seed=0):
    return SynthIDTextWatermarkLogitsProcessor(
        ngram_len=ngram,
        keys=list(keys),
        sampling_table_size=size,
        sampling_table_seed=seed,
        context_history_size=1024,
        device=torch.device("cpu"),
    )


def packed(g_values):
    return (g_values.astype(np.uint64) << np.arange(g_values.shape[-1], dtype=np.uint64)).sum(-1).astype(np.uint32)


@pytest.mark.parametrize(
    ("keys", "ngram", "size", "seed"),
    [
        (KEYS, 5, 65536, 0),
        (KEYS[:9], 2, 65536, 3),
        ((2**63 - 1, 12, 2**40 + 7), 3, 1000, 5),
        ((*KEYS, 7, 8), 4, 4096, 1),
    ],
)
def test_words_are_the_g_values_of_transformers(keys, ngram, size, seed):
    contexts, tokens = tuples(100_000, ngram - 1, 300_000)
    ngrams = torch.from_numpy(np.column_stack([contexts, tokens]))
    theirs = processor(keys, ngram=ngram, size=size, seed=seed)
    expected = torch.cat([theirs.compute_g_values(part) for part in ngrams.split(10_000)])[:, 0].numpy()
    ours = TransformersSynthid(ngram - 1, len(keys), size, seed)
    assert (ours.words(keys, contexts, tokens) == packed(expected)).all()


def test_published_ids_give_the_published_g_values():
    small = SMALL["hf_synthid"]
    windows = np.lib.stride_tricks.sliding_window_view(np.array(small["ids"]), small["ngram_len"])
    words = TransformersSynthid().words(KEYS, windows[:, :-1], windows[:, -1])
    assert words.tolist() == packed(np.array(small["g_values"])).tolist()


def test_is_a_format_that_reads_no_prompt():
    assert isinstance(TransformersSynthid(), Format)
    assert not TransformersSynthid.reads_prompt
    assert TransformersSynthid().law.weights == tuple(range(30, 0, -1))


def test_before_the_first_generated_token_stands_0():
    contexts = np.array([[ABSENT, ABSENT, ABSENT, 9], [0, 0, 0, 9]])
    words = TransformersSynthid().words(KEYS, contexts, np.array([5, 5]))
    assert words[0] == words[1]


@given(size=st.sampled_from([2, 64, 1000]), seed=st.binary(min_size=32, max_size=32))
@settings(max_examples=20)
def test_tuples_of_one_input_share_their_word(size, seed):
    scheme = TransformersSynthid(context_width=2, depth=20, sampling_table_size=size)
    rng = np.random.default_rng(0)
    contexts, tokens = rng.integers(0, 4, (500, 2)), rng.integers(0, 4, 500)
    key = scheme.draw_key(seed)
    inputs = scheme.inputs(key, contexts, tokens)
    assert inputs.min() > 0
    assert one_group(inputs, scheme.words(key, contexts, tokens))


def test_no_text_holds_more_inputs_than_the_table_has_entries():
    contexts, tokens = tuples(400_000, 4, 50_000)
    assert len(np.unique(TransformersSynthid().inputs(KEYS, contexts, tokens))) <= 65536


def test_keys_are_a_list_in_decimal_one_for_each_layer():
    scheme = TransformersSynthid(depth=3)
    assert scheme.parse_key("[654, 400, 836]") == scheme.parse_key("654,400,836") == (654, 400, 836)
    drawn = scheme.draw_key(bytes(32))
    assert len(set(drawn)) == 3
    assert all(0 < key < 1024 for key in drawn)
    for wrong in ("654,400", "a,b,c", f"1,2,{2**63}"):
        with pytest.raises(DyetraceError) as caught:
            scheme.parse_key(wrong)
        assert wrong not in str(caught.value)
    with pytest.raises(DyetraceError, match="one key for each of its 3 layers"):
        scheme.words((1, 2), np.zeros((1, 4), dtype=np.int64), np.array([1]))


@pytest.mark.parametrize(
    "fields", [{"context_width": 0}, {"depth": 33}, {"depth": 0}, {"sampling_table_size": 0}, {"key_bits": 5}]
)
def test_parameters_that_no_system_takes_are_refused(fields):
    with pytest.raises(DyetraceError, match=f"{next(iter(fields))} must"):
        TransformersSynthid(**fields)


def test_is_not_for_writing():
    with pytest.raises(DyetraceError, match="is read, not written"):
        TransformersSynthid().transform(NOTHING, NOTHING)


def test_text_that_transformers_marked_is_found_by_its_keys_alone(smollm2, smollm2_tokenizer):
    keys = KEYS[:6]
    prompt = torch.tensor([smollm2_tokenizer.encode("A walk through the old town in autumn begins").ids] * 4)
    torch.manual_seed(0)
    sequences = smollm2.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        watermarking_config=SynthIDTextWatermarkingConfig(ngram_len=3, keys=list(keys)),
        do_sample=True,
        top_k=0,
        max_new_tokens=50,
        min_new_tokens=50,
        pad_token_id=0,
    ).numpy()
    scheme = TransformersSynthid(context_width=2, depth=6)
    answers = np.pad(sequences[:, prompt.shape[1] :], ((0, 0), (2, 0)), constant_values=ABSENT)
    windows = np.lib.stride_tricks.sliding_window_view(answers, 3, axis=1).reshape(-1, 3)
    _, first = np.unique(scheme.inputs(keys, windows[:, :-1], windows[:, -1]), return_index=True)

    def log10_p(key):
        words = scheme.words(key, windows[first, :-1], windows[first, -1])
        return log10_sf(scheme.law, len(first), int(scheme.statistic(words).sum()))

    assert log10_p(keys) < -12
    assert all(log10_p(scheme.draw_key(bytes([seed]) * 32)) > -4 for seed in range(5))
