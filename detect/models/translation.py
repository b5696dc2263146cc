"""Which of the owner's tokens begins where a token of another vocabulary begins.

Both byte-level vocabularies (GPT-2, Llama 3, Qwen, DeepSeek) and SentencePiece's (Llama 2, Mistral, Gemma) spell the
text, so their tokens are compared by the bytes that they stand for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from watermark.errors import DyetraceError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["NO_TOKEN", "continuing", "token_bytes", "translation"]

NO_TOKEN = -1
_SPACE = "\u2581"  # SentencePiece's sign for a space
_CHUNK = 4096  # an Encoding is some 100 times the size of its ids


def token_bytes(tokenizer: Tokenizer) -> list[bytes | None]:
    """Return the bytes of each token by its id: None for special tokens and for ids that no token has.

    Raises
    ------
    DyetraceError
        The tokenizer's tokens do not spell its text (WordPiece and the like).
    """
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    kinds = set(_types([data.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")]))
    spelled: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    found: list[bytes | None] = [None] * (1 + max(spelled.values(), default=-1))
    added = tokenizer.get_added_tokens_decoder()
    sentencepiece = not kinds & {"ByteLevel"}
    if not kinds & {"ByteLevel", "Metaspace", "ByteFallback"}:
        raise DyetraceError(
            f"the tokens of this {data['model']['type']} tokenizer do not spell its text; a model with another "
            "tokenizer is read only where that is byte-level or of SentencePiece's kind"
        )
    values = {letter: value for value, letter in enumerate(_byte_level_letters())}
    fallback = {f"<0x{value:02X}>": bytes([value]) for value in range(256)}
    for token, number in spelled.items():
        if number in added:
            continue
        if sentencepiece:
            found[number] = fallback.get(token) or token.replace(_SPACE, " ").encode("utf-8", "replace")
        else:
            with suppress(KeyError):  # of a letter that stands for no byte
                found[number] = bytes(map(values.__getitem__, token))
    for number, entry in added.items():
        if not entry.special:
            content = entry.content.replace(_SPACE, " ") if sentencepiece else entry.content
            found[number] = content.encode("utf-8", "replace")
    return found


def _types(part: Any) -> Iterator[str]:
    """All "type" entries in a tokenizer's parts."""
    if isinstance(part, dict):
        yield str(part.get("type"))
        part = list(part.values())
    if isinstance(part, list):
        for value in part:
            yield from _types(value)


def _byte_level_letters() -> list[str]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2's ``bytes_to_unicode``)."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(value if value in plain else next(others)) for value in range(256)]


def continuing(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that takes each text for the rest of a longer one: it puts no space before its first word."""
    from tokenizers import Tokenizer

    data = json.loads(tokenizer.to_str())
    data["normalizer"] = _without_prefix(data.get("normalizer"))
    data["pre_tokenizer"] = _without_prefix(data.get("pre_tokenizer"))
    return Tokenizer.from_str(json.dumps(data))


def _without_prefix(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Prepend":
        return None
    changed = dict(part)
    if "prepend_scheme" in changed:
        changed["prepend_scheme"] = "never"
    if "add_prefix_space" in changed:
        changed["add_prefix_space"] = False
    for name in ("normalizers", "pretokenizers"):
        if name in changed:
            changed[name] = [kept for one in changed[name] if (kept := _without_prefix(one)) is not None]
    return changed


def translation(owner: Tokenizer, model: Tokenizer) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Translate each token of a model's vocabulary.

    Parameters
    ----------
    owner, model
        Tokenizers of the two.

    Returns
    -------
    tuple
        The owner's token that comes first when the model's token comes next, `NO_TOKEN` where there is none, shape
        (V_model,); and whether both stand for the same text, shape (V_model,). Both arrays are the same for everybody
        who has the two tokenizers.

    Notes
    -----
    A token of the model may be the beginning of several of the owner's (``'`` of ``'s`` and ``'ve``), and gives all its
    probability to one. Sharing it by the owner's order of merges predicted text worse (SmolLM2's tokens from Gemma 3:
    3.06 nats a token whole, 3.07 to 3.08 shared; Gemma's from SmolLM2: 3.4 and 4.1).
    """
    seen = tuple(hashlib.blake2b(one.to_str().encode()).digest() for one in (owner, model))
    if seen not in _known:
        _known[seen] = _translated(owner, model)
        for array in _known[seen]:
            array.flags.writeable = False
    return _known[seen]


_known: dict[tuple[bytes, ...], tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]] = {}
"""Of the tokenizers of this process, by hashes of them: several models often share one."""


def _translated(owner: Tokenizer, model: Tokenizer) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    owner_bytes, model_bytes = token_bytes(owner), token_bytes(model)
    owner, model = continuing(owner), continuing(model)
    to_token = np.full(len(model_bytes), NO_TOKEN, dtype=np.int32)
    texts = {number: text for number, spelled in enumerate(model_bytes) if (text := _text(spelled))}
    # What ends in white space depends on what follows: where a model reads "  two" as "  " and "two", GPT-2 reads " "
    # and " two".
    spaced = [number for number, text in texts.items() if text[-1].isspace()]
    follows = dict(zip(spaced, _first_ids(model, [texts[number] + "a" for number in spaced]), strict=True))
    asked = [text + "a" if follows.get(number) == number else text for number, text in texts.items()]
    for number, first in zip(texts, _first_ids(owner, asked), strict=True):
        start = owner_bytes[first] if first >= 0 else None
        if start and (model_bytes[number] or b"").startswith(start):
            to_token[number] = first
    of_bytes: dict[bytes, int] = {}
    for number, spelled in enumerate(owner_bytes):
        if spelled:
            of_bytes.setdefault(spelled, number)
    for number, spelled in enumerate(model_bytes):
        if spelled and number not in texts:  # with a fragment of a character
            starts = (spelled[:end] for end in range(len(spelled), 0, -1))
            to_token[number] = next((of_bytes[start] for start in starts if start in of_bytes), NO_TOKEN)
    same = [token >= 0 and owner_bytes[token] == spelled for token, spelled in zip(to_token, model_bytes, strict=True)]
    return to_token, np.array(same, dtype=np.bool_)


def _text(spelled: bytes | None) -> str:
    """A token as text, "" where it is none: special, or not made of whole characters."""
    try:
        return (spelled or b"").decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _first_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The first id of each text, `NO_TOKEN` where there is none."""
    found: list[int] = []
    for start in range(0, len(texts), _CHUNK):
        encoded = tokenizer.encode_batch_fast(list(texts[start : start + _CHUNK]), add_special_tokens=False)
        found.extend(one.ids[0] if one.ids else NO_TOKEN for one in encoded)
    return found
