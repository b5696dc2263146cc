"""`gigatoken`, made to read a tokenizer as `tokenizers` reads it, and honest about the texts where it can't.

Used by `detect.text.encode` alone, which also checks the ids. Arranged here, each case found by comparing ids:

* some tokenizers make each digit a piece of its own, which gigatoken has no notion of;
* a byte without a token (SmolLM2 lacks 21 of the 256), which `tokenizers` drops and gigatoken refuses;
* characters newer than the Unicode tables of one of the two.
"""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Gigatoken"]

_RENEW = 1 << 28  # characters; its cache of words only grows: 9 bytes per character on random words
_LAST_BLOCK = 0x34000  # no Unicode version has put letters, digits or symbols between here and 0xE0000


class Gigatoken:
    """The fast encoder for one tokenizer.

    What it has no notion of becomes placeholder tokens with ids from `limit` up: single digits that aren't
    one token, whose ids are put in afterwards, and bytes without a token. A text with such a byte is
    doubtful, since its neighbours may merge in the reference; so is one with a character that is unknown to
    this Python's Unicode.

    Attributes
    ----------
    name
        Name and version.
    splits_words
        Whether a text may be cut before a space between two words without changing its ids.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self.name = f"gigatoken {metadata.version('gigatoken')}"
        self._limit = limit
        data = json.loads(tokenizer.to_str())
        pieces = tokenizer.pre_tokenizer.pre_tokenize_str("ab cd") if tokenizer.pre_tokenizer else []
        self.splits_words = [span for _, span in pieces] == [(0, 2), (2, 5)]
        self._expansions: list[list[int]] = []
        if _splits_digits(data["pre_tokenizer"]):
            # An added token is cut out of the text before anything else, which is what isolating digits does.
            data["pre_tokenizer"] = data["pre_tokenizer"]["pretokenizers"][1]
            for character in _numeric_characters():
                ids = tokenizer.encode(character, add_special_tokens=False).ids
                number = ids[0] if len(ids) == 1 else limit + len(self._expansions)
                data["added_tokens"].append(_added_token(character, number))
                if len(ids) != 1:
                    self._expansions.append(ids)
        self._doubtful = limit + len(self._expansions)
        if '"ByteLevel"' in json.dumps(data["pre_tokenizer"]) and data["model"]["type"] == "BPE":
            vocabulary = data["model"]["vocab"]
            missing = [character for character in _byte_level_alphabet() if character not in vocabulary]
            vocabulary.update(zip(missing, range(self._doubtful, self._doubtful + len(missing)), strict=True))
        self._json = json.dumps(data)
        self._load()

    def _load(self) -> None:
        import gigatoken

        self._tokenizer: Any = gigatoken.Tokenizer.from_json(self._json)
        self._fed = 0

    def encode(self, texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64], set[int]]:
        """Return flat ids, their offsets (one more than there are texts), and which texts are doubtful."""
        characters = sum(map(len, texts))
        if self._fed and self._fed + characters > _RENEW:
            self._load()
        self._fed += characters
        # On the calling thread: 20 Mtok/s or more as it is, and a thread pool would not survive a fork.
        layout = self._tokenizer.encode_batch(texts, parallel=False).layout
        offsets = np.asarray(layout.offsets.data, np.int64)
        ids = np.asarray(layout.content.data, np.uint32)[: offsets[-1]]
        doubtful = _with_unknown_characters(texts)
        found = np.flatnonzero(ids >= self._limit)
        if found.size:
            dropped = found[ids[found] >= self._doubtful]
            doubtful.update((np.searchsorted(offsets, dropped, side="right") - 1).tolist())
            ids, offsets = self._expanded(ids, offsets, found[ids[found] < self._doubtful])
        return ids, offsets, doubtful

    def _expanded(
        self, ids: NDArray[np.uint32], offsets: NDArray[np.int64], places: NDArray[np.intp]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Put the ids that they stand for in the places of placeholders."""
        inserted = [self._expansions[number - self._limit] for number in ids[places].tolist()]
        counts = np.ones(ids.size, np.int64)
        counts[places] = [len(one) for one in inserted]
        starts = np.concatenate([[0], np.cumsum(counts)])
        result = np.repeat(ids, counts)
        for start, one in zip(starts[places].tolist(), inserted, strict=True):
            result[start : start + len(one)] = one
        return result, starts[offsets]


def _splits_digits(pre_tokenizer: Any) -> bool:
    """Whether it is single digits first, then GPT-2's pattern, as in SmolLM and StarCoder."""
    match pre_tokenizer:
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False},
            ],
        }:
            return True
    return False


def _added_token(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": content, **flags}


def _byte_level_alphabet() -> list[str]:
    """Return GPT-2's printable stand-ins for the 256 bytes."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


@cache
def _numeric_characters() -> list[str]:
    """Return what the reference's own digit splitter, with its version of Unicode, isolates."""
    from tokenizers import pre_tokenizers

    # No numeric character lies beyond plane 1; the letters between keep all others in longer pieces.
    characters = (chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000)
    pieces = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(f"a{'a'.join(characters)}a")
    return sorted({piece for piece, _ in pieces if len(piece) == 1} - {"a"})


@cache
def _unknown_table() -> NDArray[np.bool_]:
    unknown = [unicodedata.category(chr(code)) == "Cn" for code in range(_LAST_BLOCK)]
    return np.array([*unknown, False])


def _has_unknown(text: str) -> bool:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return bool(_unknown_table()[np.minimum(codes, _LAST_BLOCK)].any())


def _with_unknown_characters(texts: list[str]) -> set[int]:
    """Return which texts hold a code point that is unassigned in this Python's version of Unicode.

    A newer version may call it a letter or a digit, and encoders with different tables split differently.
    """
    suspects = [index for index, text in enumerate(texts) if not text.isascii()]
    if not suspects or not _has_unknown("".join(texts[index] for index in suspects)):
        return set()
    return {index for index in suspects if _has_unknown(texts[index])}
