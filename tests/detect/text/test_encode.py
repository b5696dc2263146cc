from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from detect.text import encode_fast
from detect.text.encode import Encoder, TokenBatch
from detect.text.encode_fast import Gigatoken
from detect.text.natural_text import natural_documents

pytest.importorskip("gigatoken")

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def fast(smollm2_tokenizer: Tokenizer) -> Encoder:
    """An encoder that never checks, so that what is tested is the fast encoder itself."""
    encoder = Encoder(smollm2_tokenizer, fast=True, check_share=0)
    encoder._checked_characters = sys.maxsize
    return encoder


def reference(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def lists(batch: TokenBatch) -> list[list[int]]:
    return [row.tolist() for row in batch]


class Liar(Gigatoken):
    """A fast encoder that gets one text wrong, which Gigatoken might."""

    wrong = "This one is encoded wrongly."

    def encode(self, texts: list[str]) -> Any:
        ids, offsets, doubtful = super().encode(texts)
        ids = ids.copy()
        for index, text in enumerate(texts):
            if text.startswith(self.wrong):
                ids[offsets[index]] += 1
        return ids, offsets, doubtful


def lying(tokenizer: Tokenizer, **options: Any) -> Encoder:
    encoder = Encoder(tokenizer, fast=True, **options)
    encoder._fast = Liar(tokenizer, encoder.vocabulary_size)
    return encoder


@pytest.mark.parametrize("kind", ["prose", "code", "licences", "repetitive"])
def test_natural_text_gets_the_ids_of_tokenizers(kind: str, fast: Encoder) -> None:
    texts = [text[:20_000] for _, text in natural_documents(kind, 15)]
    assert lists(fast.encode_batch(texts)) == reference(fast.tokenizer, texts)
    assert fast.backend.startswith("gigatoken ")


@given(st.lists(st.text(), max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_text_gets_the_ids_of_tokenizers(fast: Encoder, texts: list[str]) -> None:
    assert lists(fast.encode_batch(texts)) == reference(fast.tokenizer, texts)
    assert fast.backend.startswith("gigatoken ")


@pytest.mark.parametrize(
    "text",
    [
        "In 2024, 3 of 10:\n\n1. one\n\n2. two   12",  # single digits, after any space
        "x² + ½ = ٣٤٥ Ⅷ ①",  # digits that are several tokens
        "-\x04- \x06\x06 a\x13b",  # bytes that the vocabulary lacks: their neighbours merge
        "<|im_start|>user\nhi<|im_end|> <|im_end|>1<|im_end",  # special tokens, and not quite
        "\U00032c21 \U0001cee0,b \U00018df1'EKK",  # unassigned in some versions of Unicode
        "a" * 5000 + " " * 5000 + "\n" * 5000,
        "",
    ],
)
def test_hard_text_gets_the_ids_of_tokenizers(text: str, fast: Encoder) -> None:
    assert fast.encode(text).tolist() == fast.tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("mode", [True, False])
def test_surrogates_count_as_the_replacement_character(mode: bool, smollm2_tokenizer: Tokenizer) -> None:
    encoder = Encoder(smollm2_tokenizer, fast=mode)
    batch = encoder.encode_batch(["\ud83d\ude00 pair", "lone \ud800.", "none"])
    assert lists(batch) == reference(smollm2_tokenizer, ["\U0001f600 pair", "lone \ufffd.", "none"])


def test_long_documents_with_doubtful_parts_get_the_ids_of_tokenizers(fast: Encoder) -> None:
    text = " ".join(text for _, text in natural_documents("prose", 100))
    text = f"{text[:50_000]}-\x04-{text[50_000:90_000]}² \x06x"
    assert fast.encode(text).tolist() == fast.tokenizer.encode(text, add_special_tokens=False).ids


def test_ids_do_not_depend_on_when_the_word_cache_is_renewed(
    fast: Encoder, prose: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fast.encode_batch(prose).ids
    monkeypatch.setattr(encode_fast, "_RENEW", 5000)
    assert fast._fast is not None
    renewals: list[None] = []
    load = fast._fast._load

    def renew() -> None:
        load()
        renewals.append(None)

    monkeypatch.setattr(fast._fast, "_load", renew)
    parts = [fast.encode_batch(prose[start : start + 20]).ids for start in range(0, 60, 20)]
    assert len(renewals) >= 2
    assert np.array_equal(np.concatenate(parts), whole[: sum(map(len, parts))])


@pytest.mark.parametrize("pattern", [GPT4, GPT4.replace("{1,3}", "")], ids=["cl100k", "qwen2"])
def test_tokenizers_of_the_gpt4_and_llama3_kind_are_encoded_fast_and_alike(
    pattern: str, prose: list[str], code: list[str]
) -> None:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        show_progress=False,
        special_tokens=["<|begin|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(prose, trainer)
    encoder = Encoder(tokenizer, fast=True)
    texts = [*prose[:40], *code[:3]]
    assert lists(encoder.encode_batch(texts)) == reference(tokenizer, texts)
    assert encoder.backend.startswith("gigatoken ")


def test_a_tokenizer_that_the_fast_encoder_cant_read_is_encoded_by_tokenizers() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "wet": 1, "##ter": 2}, unk_token="[UNK]"))
    encoder = Encoder(tokenizer, fast=True)
    assert encoder.encode("wetter").tolist() == [1, 2]
    assert encoder.backend.startswith("tokenizers ")
    assert "gigatoken can't take this tokenizer" in encoder.note


def test_without_gigatoken_the_note_says_how_to_get_it(
    smollm2_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    encoder = Encoder(smollm2_tokenizer, fast=True)
    assert encoder.backend.startswith("tokenizers ")
    assert "pip install 'dyetrace[fast-text]'" in encoder.note


def test_a_fast_encoder_that_fails_the_hard_strings_is_not_used(
    smollm2_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Liar, "wrong", "3.14")
    monkeypatch.setattr("detect.text.encode.Gigatoken", Liar)
    encoder = Encoder(smollm2_tokenizer, fast=True)
    assert encoder.backend.startswith("tokenizers ")
    assert "differs on the test string '3.14159'" in encoder.note


def test_the_first_wrong_document_sends_the_whole_call_to_tokenizers(
    smollm2_tokenizer: Tokenizer, prose: list[str]
) -> None:
    encoder = lying(smollm2_tokenizer, check_share=1)
    encoder.encode_batch(prose[:5])
    texts = [*prose[5:8], f"{Liar.wrong} Really.", *prose[8:10]]
    assert lists(encoder.encode_batch(texts)) == reference(smollm2_tokenizer, texts)
    assert encoder.backend.startswith("tokenizers ")
    assert "differs on document 4 of a call with 6; 5 documents of earlier calls" in encoder.note


def test_a_long_document_that_begins_wrongly_is_found(smollm2_tokenizer: Tokenizer, prose: list[str]) -> None:
    encoder = lying(smollm2_tokenizer)
    text = f"{Liar.wrong} {' '.join(prose)}"[:300_000]
    assert len(text) > 1 << 18
    assert encoder.encode(text).tolist() == smollm2_tokenizer.encode(text, add_special_tokens=False).ids
    assert encoder.backend.startswith("tokenizers ")


def test_a_panic_in_the_fast_encoder_is_survived(smollm2_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    encoder = Encoder(smollm2_tokenizer, fast=True)
    monkeypatch.setattr(encoder._fast, "encode", lambda texts: (_ for _ in ()).throw(PanicException("index 3")))
    assert encoder.encode("still here").tolist() == reference(smollm2_tokenizer, ["still here"])[0]
    assert "failed: index 3" in encoder.note
    encoder = Encoder(smollm2_tokenizer, fast=True)
    monkeypatch.setattr(encoder._fast, "encode", lambda texts: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        encoder.encode("stop")


@pytest.mark.parametrize(("share", "least", "most"), [(0.2, 0.2, 0.35), (1.0, 1.0, 1.0)])
def test_the_promised_share_of_the_characters_is_checked(
    share: float, least: float, most: float, smollm2_tokenizer: Tokenizer, code: list[str]
) -> None:
    encoder = Encoder(smollm2_tokenizer, fast=True, check_share=share)
    for text in code:
        encoder.encode(text)
    checked = encoder._checked_characters / encoder._characters
    assert least <= checked <= most
    assert f"({encoder._checked_characters:,} of {sum(map(len, code)):,} characters)" in encoder.note


def test_every_document_is_checked_until_64_kb_are(smollm2_tokenizer: Tokenizer, prose: list[str]) -> None:
    encoder = Encoder(smollm2_tokenizer, fast=True, check_share=0)
    encoder.encode_batch(prose)
    assert sum(map(len, prose)) > 1 << 17
    assert (1 << 16) <= encoder._checked_characters < (1 << 16) + 5000


def test_the_fast_encoder_is_loaded_only_where_it_pays(smollm2_tokenizer: Tokenizer, prose: list[str]) -> None:
    encoder = Encoder(smollm2_tokenizer)
    encoder.encode_batch(prose[:20])
    assert encoder.backend.startswith("tokenizers ") and "too little text" in encoder.note
    large = prose * 3
    assert lists(encoder.encode_batch(large)) == reference(smollm2_tokenizer, large)
    assert encoder.backend.startswith("gigatoken ")


def test_a_batch_is_flat_ids_and_offsets(fast: Encoder) -> None:
    batch = fast.encode_batch(["one two", "", "three"])
    assert batch.ids.dtype == np.uint32 and batch.offsets.dtype == np.int64
    assert batch.offsets.tolist() == [0, 2, 2, 3]
    assert len(batch) == 3 and batch[1].size == 0
    assert np.array_equal(np.concatenate(list(batch)), batch.ids)
    with pytest.raises(IndexError, match="text 3 of 3"):
        batch[3]
    assert len(fast.encode_batch([])) == 0


def test_a_text_longer_than_the_tokenizers_own_limit_is_not_cut(smollm2_tokenizer: Tokenizer) -> None:
    limited = Tokenizer.from_str(smollm2_tokenizer.to_str())
    limited.enable_truncation(4)
    assert Encoder.load(limited).encode("one two three four five six").size == 6
