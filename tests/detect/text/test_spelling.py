"""Token ids are held against the text beside them: decoders' ways are let pass, another tokenizer's ids are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from detect.text.spelling import Speller
from watermark.models.tokenizer import load_tokenizer, vocabulary_size

TEXT = "The sea is calm , isn 't it ? Caf\u00e9s open at \u516b."


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> Tokenizer:
    return load_tokenizer(smollm2_dir)


def spells(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> bool:
    return Speller(tokenizer, vocabulary_size(tokenizer)).spells(ids, text)


def test_ids_that_decode_to_the_text_are_its_own_however_a_decoder_cleans_up(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT).ids
    apart = [one for character in TEXT for one in tokenizer.encode(character).ids]  # what a model may write as well
    assert apart != ids
    for some in (ids, apart, [0, *ids, 2], [1, *apart, 2]):  # with special tokens around
        for text in (TEXT, f" {TEXT}\n", TEXT.replace(" ,", ",").replace(" 't", "'t").replace(" ?", "?")):
            assert spells(tokenizer, some, text)
    cut = next(some for n in range(len(ids)) if "\ufffd" in tokenizer.decode(some := ids[: len(ids) - n]))
    assert spells(tokenizer, cut, tokenizer.decode(cut)) and spells(
        tokenizer, cut, tokenizer.decode(cut).strip("\ufffd")
    )
    assert spells(tokenizer, [*ids, *tokenizer.encode("\n\nUser:").ids], TEXT)  # words that stopped it, cut off


def test_other_ids_are_not(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT).ids
    assert not spells(tokenizer, [(one + 1) % 40_000 for one in ids], TEXT)
    assert not spells(tokenizer, [*ids, vocabulary_size(tokenizer)], TEXT)  # which decoders pass over in silence
    assert not spells(tokenizer, ids[:-1], TEXT)
    assert not spells(tokenizer, ids[::-1], TEXT)
    assert not spells(tokenizer, [], TEXT)
    assert not spells(tokenizer, [*ids, *ids], TEXT)


def test_an_empty_text_says_nothing_against_ids(tokenizer: Tokenizer) -> None:
    assert spells(tokenizer, tokenizer.encode(TEXT).ids, "") and spells(tokenizer, [], "")


def test_ids_of_a_text_that_the_tokenizer_normalises_are_its_own(tokenizer: Tokenizer) -> None:
    lower: Any = Tokenizer.from_str(tokenizer.to_str())
    lower.normalizer = normalizers.Lowercase()
    ids = lower.encode(TEXT).ids
    assert spells(lower, ids, TEXT) and spells(lower, [*ids, 2], TEXT) and not spells(lower, ids[1:], TEXT)
