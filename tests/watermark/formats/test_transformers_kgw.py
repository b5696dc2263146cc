"""Against transformers' own processor, detector and generated text."""

import numpy as np
import pytest
import torch
from transformers import WatermarkDetector, WatermarkingConfig
from transformers.generation import WatermarkLogitsProcessor

from detect.laws.tails import log10_sf
from tests.watermark.formats.foreign_vectors import SMALL, tuples
from watermark.formats.transformers_kgw import TransformersKgwLefthash, TransformersKgwSelfhash


def processor(size, key, scheme, width=1, ratio=0.25):
    return WatermarkLogitsProcessor(
        size, "cpu", greenlist_ratio=ratio, hashing_key=key, seeding_scheme=scheme, context_width=width
    )


@pytest.mark.parametrize("key", [15485863, 2**63 + 4711])
def test_lefthash_words_are_those_of_transformers(key):
    size, tokens_each = 49_152, 500
    theirs = processor(size, key, "lefthash")
    rng = np.random.default_rng(0)
    context = np.concatenate([[0, 1, size - 1], rng.integers(0, size, 197)])
    tokens = rng.integers(0, size, (len(context), tokens_each))
    expected = np.empty(tokens.shape, dtype=np.uint32)
    for i, previous in enumerate(context):
        mask = np.zeros(size, dtype=np.uint32)
        mask[theirs._get_greenlist_ids(torch.tensor([previous])).numpy()] = 1
        expected[i] = mask[tokens[i]]
    scheme = TransformersKgwLefthash(size)
    contexts, tokens = np.repeat(context, tokens_each)[:, None], tokens.ravel()
    assert (scheme.is_green(scheme.seeds((key,), contexts, tokens), tokens) == expected.ravel()).all()
    # After token 0 theirs are the same under every key, and ours red.
    expected[0] = 0
    assert (scheme.words((key,), contexts, tokens) == expected.ravel()).all()


@pytest.mark.parametrize(("key", "window"), [(15485863, 4), (2**62 + 4711, 2), (15485863, 1)])
def test_selfhash_words_are_those_of_transformers(key, window):
    size = 600
    count = 100_000 if window == 4 else 5_000
    theirs = processor(size, key, "selfhash", window)
    context, tokens = tuples(count, window - 1, size)
    windows = torch.from_numpy(np.column_stack([context, tokens]))
    heads = {}
    expected = []
    for row, token in zip(windows, tokens.tolist(), strict=True):
        theirs.set_seed(row)
        seed = theirs.rng.initial_seed()
        if seed not in heads:
            heads[seed] = set(theirs._get_greenlist_ids(row).tolist())
        expected.append(token in heads[seed])
    ours = TransformersKgwSelfhash(size, window=window).words((key,), context, tokens)
    assert ours.tolist() == expected


def test_published_windows_give_the_published_greens():
    small = SMALL["hf_lefthash"]
    head = np.array(small["first10_green"])
    words = TransformersKgwLefthash(small["vocab"]).words((small["key"],), np.full((10, 1), small["prev"]), head)
    assert words.all()
    small = SMALL["hf_selfhash"]
    window = np.array([small["window_incl_target"]])
    scheme = TransformersKgwSelfhash(small["vocab"], window=small["context_width"])
    assert scheme.seeds((small["key"],), window[:, :-1], window[:, -1]) == small["seed_mod"] & 0xFFFFFFFF
    assert scheme.words((small["key"],), window[:, :-1], window[:, -1]) == small["target_green"]


def generated(model, tokenizer, config, *, rows, length):
    """Answers to one prompt, (rows, length), and the prompt."""
    prompt = torch.tensor([tokenizer.encode("A walk through the old town in autumn begins").ids] * rows)
    torch.manual_seed(0)
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        watermarking_config=config,
        do_sample=True,
        top_k=0,
        max_new_tokens=length,
        min_new_tokens=length,
        pad_token_id=0,
    )
    return out.numpy(), prompt.shape[1]


def tally(scheme, key, sequences, start):
    """Distinct inputs of the tokens from ``start`` on, and how many are green."""
    width = scheme.context_width
    windows = np.lib.stride_tricks.sliding_window_view(sequences[:, start - width :], width + 1, axis=1)
    windows = windows.reshape(-1, width + 1)
    _, first = np.unique(scheme.inputs(key, windows[:, :-1], windows[:, -1]), return_index=True)
    words = scheme.words(key, windows[first, :-1], windows[first, -1])
    return len(first), int(scheme.statistic(words).sum())


@pytest.mark.parametrize("scheme", ["lefthash", "selfhash"])
def test_text_that_transformers_marked_is_found_by_its_key_alone(smollm2, smollm2_tokenizer, scheme):
    size = smollm2.config.vocab_size
    key = 15485863
    window = 1 if scheme == "lefthash" else 3
    config = WatermarkingConfig(bias=4.0, hashing_key=key, seeding_scheme=scheme, context_width=window)
    sequences, start = generated(smollm2, smollm2_tokenizer, config, rows=6, length=50)
    ours = TransformersKgwLefthash(size) if scheme == "lefthash" else TransformersKgwSelfhash(size, window=window)
    n, green = tally(ours, (key,), sequences, start)
    assert log10_sf(ours.law, n, green) < -15
    for seed in range(5):
        n, green = tally(ours, ours.draw_key(bytes([seed]) * 32), sequences, start)
        assert log10_sf(ours.law, n, green) > -4


def test_transformers_own_detector_counts_the_same_greens(prose, smollm2_tokenizer, smollm2):
    ids = np.array(smollm2_tokenizer.encode(prose[0]).ids[:300])
    key = 97
    config = WatermarkingConfig(hashing_key=key)
    detector = WatermarkDetector(smollm2.config, "cpu", config, ignore_repeated_ngrams=True)
    theirs = detector(torch.from_numpy(ids)[None], return_dict=True)
    n, green = tally(TransformersKgwLefthash(smollm2.config.vocab_size), (key,), ids[None], 1)
    assert (n, green) == (int(theirs.num_tokens_scored[0]), int(theirs.num_green_tokens[0]))
