"""Tokenizers of folders: they cut texts as their own files say, whatever class is named, or they are refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.tiny_models import tokenizer
from watermark.errors import DyetraceError
from watermark.models.converted import model_tokenizer
from watermark.models.tokenizer import load_tokenizer, tokenizer_fingerprint

TEXT = "The two boats, 1234 of them, went up the river; na\u00efve  readers\n\nsaid so: \u65e5\u672c."


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def pieces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import sentencepiece

    from detect.text.natural_text import natural_documents

    folder = tmp_path_factory.mktemp("pieces")
    (folder / "text").write_text("\n".join(text[:3000] for _, text in natural_documents("prose", 20)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "own"),
        vocab_size=500,
        model_type=request.param,
        byte_fallback=True,
        minloglevel=2,
    )
    return folder / "own.model"


def folder_of(place: Path, name: str, content: bytes, named: str | None = None) -> Path:
    place.mkdir()
    (place / name).write_bytes(content)
    (place / "config.json").write_text(json.dumps({"model_type": "llama"}))
    if named is not None:
        (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
    return place


@pytest.mark.parametrize("named", [None, "LlamaTokenizer", "T5Tokenizer"])
def test_a_sentencepiece_file_alone_is_cut_as_sentencepiece_does(
    named: str | None, pieces: Path, tmp_path: Path
) -> None:
    import sentencepiece

    folder = folder_of(tmp_path / "m", "tokenizer.model", pieces.read_bytes(), named)
    wanted = sentencepiece.SentencePieceProcessor(str(pieces)).encode(TEXT)
    assert model_tokenizer(folder).encode(TEXT, add_special_tokens=False) == wanted
    assert load_tokenizer(folder).encode(TEXT, add_special_tokens=False).ids == wanted


def test_a_tiktoken_file_alone_is_refused_with_the_way_out(tmp_path: Path) -> None:
    ranks = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
    for name in ("tokenizer.model", "qwen.tiktoken"):
        folder = folder_of(tmp_path / name, name, ranks)
        with pytest.raises(DyetraceError, match=r"tiktoken.*writes tokenizer\.json.*trace its endpoint"):
            model_tokenizer(folder)


@pytest.mark.parametrize("content", [b"", b"\x0a\x00broken"])
def test_a_broken_file_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DyetraceError) as caught:
        model_tokenizer(folder_of(tmp_path / "m", "tokenizer.model", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "named", ["LlamaTokenizer", "T5Tokenizer", "BertTokenizer", "GPT2Tokenizer", "NoSuchTokenizer"]
)
def test_a_tokenizer_json_is_read_as_it_is_whatever_class_is_named(named: str, tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": named}))
    found = model_tokenizer(tmp_path)
    assert found.encode("7 8 299", add_special_tokens=False) == [7, 8, 299]
    assert tokenizer_fingerprint(found) == tokenizer_fingerprint(tmp_path)


def test_a_tokenizer_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", "vocab.json", b"{}")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}})
    )
    (folder / "own.py").write_text("raise SystemExit('code of the suspect ran')\n")
    with pytest.raises(DyetraceError) as caught:
        model_tokenizer(folder)
    assert "\n" not in str(caught.value)
