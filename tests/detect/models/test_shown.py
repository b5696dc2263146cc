"""Contexts as text: found again whatever tokenizer, template or line breaks lie between."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from detect.models.shown import context_texts, stands_in

SHOWN = "<|im_start|>user\nCorrect this: The Quick brown fox,\n  it jumps\u3000over caf\u00e9s \ufb01nally.<|im_end|>\n"


def contexts(tokenizer: Tokenizer, text: str, width: int) -> np.ndarray:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return np.array([ids[i : i + width] for i in range(len(ids) - width + 1)], dtype=np.uint32)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_every_context_of_what_is_shown_stands_in_it(smollm2_tokenizer: Tokenizer, width: int) -> None:
    shown = SHOWN + "\U0001f468\u200d\U0001f469\u200d\U0001f467 zoo\u0308m \u4f60\u597d\t\tx  1234567"
    found = context_texts(smollm2_tokenizer, contexts(smollm2_tokenizer, shown, width))
    assert len(found) > 20 and all(stands_in(text, shown) for text in found)


@pytest.mark.parametrize(
    "text",
    [
        "the quick brown",  # other case
        "fox, it jumps over",  # other white space
        " finally.",  # a ligature
        "\n",  # nothing but white space
        "orrec",  # inside a word
        "caf\u0065\u0301",  # the same letter in two code points
    ],
)
def test_what_a_normaliser_or_a_new_line_changes_still_stands_there(smollm2_tokenizer: Tokenizer, text: str) -> None:
    ids = smollm2_tokenizer.encode(text, add_special_tokens=False).ids
    assert stands_in(context_texts(smollm2_tokenizer, np.array([ids], dtype=np.uint32))[0], SHOWN)


@pytest.mark.parametrize("text", ["slow brown", "brown the", "fox. it", "cafos finally", "<|im_end|>assistant"])
def test_what_was_not_shown_does_not(smollm2_tokenizer: Tokenizer, text: str) -> None:
    ids = smollm2_tokenizer.encode(text, add_special_tokens=False).ids
    assert not stands_in(context_texts(smollm2_tokenizer, np.array([ids], dtype=np.uint32))[0], SHOWN)


def test_parts_of_characters_at_the_ends_and_inside_are_passed_over() -> None:
    words = {"<0xE4>": 0, "<0xBD>": 1, "\u2581brown": 2, "\u2581fox": 3, "\u2581cow": 4}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], byte_fallback=True))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    rows = np.array([[0, 2, 3], [2, 3, 1], [2, 0, 3], [0, 1, 0], [2, 1, 4], [4, 0, 0]], dtype=np.uint32)
    texts = context_texts(tokenizer, rows)
    assert texts[:2] == ["brown fox", "brown fox"] and texts[3] == ""
    assert [stands_in(text, SHOWN) for text in texts] == [True, True, True, True, False, False]


def test_where_nothing_is_shown_nothing_stands_in_it(smollm2_tokenizer: Tokenizer) -> None:
    texts = context_texts(smollm2_tokenizer, contexts(smollm2_tokenizer, "a fox\n\n", 1))
    assert not any(stands_in(text, shown) for text in texts for shown in ("", " \n"))


def test_ids_beyond_the_tokenizer_stand_everywhere(smollm2_tokenizer: Tokenizer) -> None:
    assert stands_in(context_texts(smollm2_tokenizer, np.array([[90_000, 90_001]], dtype=np.uint32))[0], "any text")
