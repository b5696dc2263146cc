from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from watermark.errors import DyetraceError
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint, vocabulary_size

VOCABULARY = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5}
MERGES = [("a", "b"), ("b", "c"), ("ab", "c")]


def small(vocabulary: dict[str, int] = VOCABULARY, merges: list[tuple[str, str]] = MERGES) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


def truncate(tokenizer: Tokenizer) -> None:
    tokenizer.enable_truncation(5)


def pad(tokenizer: Tokenizer) -> None:
    tokenizer.enable_padding()


def wrap_in_specials(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 6)])


def decode_otherwise(tokenizer: Tokenizer) -> None:
    tokenizer.decoder = decoders.ByteLevel()


def trim_offsets(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)


def normalize_with_nothing(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([])


def add_token(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens(["<new>"])


def lowercase(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def prefix_space(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def split_digits(tokenizer: Tokenizer) -> None:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), byte_level])


def swallow_spaces(tokenizer: Tokenizer) -> None:
    tokenizer.add_special_tokens([AddedToken("<end>", lstrip=True)])


@pytest.mark.parametrize(
    "change", [truncate, pad, wrap_in_specials, decode_otherwise, trim_offsets, normalize_with_nothing]
)
def test_what_cant_change_the_ids_of_a_text_keeps_the_fingerprint(
    change: Callable[[Tokenizer], None],
) -> None:
    tokenizer = small()
    change(tokenizer)
    assert tokenizer.to_str() != small().to_str()
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(small())


@pytest.mark.parametrize("change", [add_token, lowercase, prefix_space, split_digits, swallow_spaces])
def test_what_can_change_them_changes_it(change: Callable[[Tokenizer], None]) -> None:
    tokenizer = small()
    change(tokenizer)
    assert tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(small())


def test_the_order_of_merges_and_the_ids_of_tokens_count() -> None:
    swapped = {**VOCABULARY, "ab": 4, "bc": 3}
    prints = {
        tokenizer_fingerprint(tokenizer)
        for tokenizer in (small(), small(merges=[MERGES[1], MERGES[0], MERGES[2]]), small(vocabulary=swapped))
    }
    assert len(prints) == 3


def test_formatting_order_of_keys_and_the_older_way_to_write_merges_do_not_count(tmp_path: Path) -> None:
    data: dict[str, Any] = json.loads(small().to_str())
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    data["model"]["vocab"] = dict(reversed(data["model"]["vocab"].items()))
    del data["model"]["ignore_merges"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(dict(reversed(data.items())), indent=4))
    assert tokenizer_fingerprint(tmp_path) == tokenizer_fingerprint(small())


def test_an_added_token_may_stand_in_the_vocabulary_as_well() -> None:
    assert tokenizer_fingerprint(small({**VOCABULARY, "<end>": 6})) == tokenizer_fingerprint(small())


def test_scores_of_a_unigram_model_count() -> None:
    def unigram(score: float) -> Tokenizer:
        return Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", score)], unk_id=0))

    assert tokenizer_fingerprint(unigram(-2.0)) == tokenizer_fingerprint(unigram(-2.0))
    assert tokenizer_fingerprint(unigram(-2.0)) != tokenizer_fingerprint(unigram(-2.5))


def test_a_path_a_folder_and_the_objects_of_both_libraries_agree(smollm2_dir: Path) -> None:
    from transformers import AutoTokenizer

    sources = [
        smollm2_dir,
        str(smollm2_dir / "tokenizer.json"),
        Tokenizer.from_file(str(smollm2_dir / "tokenizer.json")),
        AutoTokenizer.from_pretrained(smollm2_dir, local_files_only=True),
    ]
    # Published specs hold this value: it may not move with a version of dyetrace or of `tokenizers`.
    assert {tokenizer_fingerprint(source) for source in sources} == {"cb8e384e312b601df34ba051f3e25c66"}
    assert {vocabulary_size(source) for source in sources} == {49152}


def test_vocabulary_size_is_one_more_than_the_largest_id() -> None:
    assert vocabulary_size(small()) == 7
    assert vocabulary_size(small({**VOCABULARY, "z": 40})) == 41


def test_an_empty_vocabulary_is_refused() -> None:
    with pytest.raises(DyetraceError, match="empty"):
        vocabulary_size(Tokenizer(models.BPE()))


def test_a_loaded_tokenizer_never_cuts_or_pads(tmp_path: Path) -> None:
    tokenizer = small()
    truncate(tokenizer)
    pad(tokenizer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for source in (tmp_path, tokenizer):
        assert len(load_tokenizer(source).encode("abcabcabc" * 10).ids) == 30
    assert tokenizer.truncation is not None  # the caller's own object is left alone


def test_a_missing_or_damaged_tokenizer_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"version": "1.0",\n "model": 3}')
    for source, message in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path, "has no tokenizer.json"),
        (tmp_path / "broken.json", "is not a tokenizer.json"),
    ):
        with pytest.raises(DyetraceError, match=message) as caught:
            load_tokenizer(source)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DyetraceError, match=r"tokenizer \(int\) must be"):
        load_tokenizer(3)
