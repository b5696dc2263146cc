"""Text to token ids at corpus speed, with exactly the ids of `tokenizers`.

`gigatoken` is 15 to 50 times faster than `tokenizers` and is a reimplementation, so it is used only while it
is seen to agree: on a set of hard strings when it is loaded, then on a share of the documents themselves. The
first difference sends the whole call, and every later one, to `tokenizers`.
"""

# ruff: noqa: RUF001 (the hard strings hold look-alike characters on purpose)

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from detect.text.encode_fast import Gigatoken
from watermark.models.tokenizer import load_tokenizer, vocabulary_size

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Encoder", "EncoderUse", "TokenBatch"]

Ids = NDArray[np.uint32]

_WORTH_IT = 1 << 19  # characters from which on loading the fast encoder (0.5 s) pays
_FIRST = 1 << 16  # characters at the start of a run of which every document is checked
_WHOLE = 1 << 18  # longer documents are checked by their beginning and by slices
_SLICE = 1 << 14
_SAFE_CUT = re.compile(r"[a-z](?= [a-z])")  # every pre-tokenizer splits here


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Token ids of several texts in one flat array.

    Attributes
    ----------
    ids
        uint32, all texts one after the other.
    offsets
        int64, one more than there are texts; text `i` is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: Ids
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Ids:
        if not 0 <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[Ids]:
        return (self[index] for index in range(len(self)))

    @classmethod
    def of(cls, rows: Sequence[Ids]) -> TokenBatch:
        """Join one array per text."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        ids = np.concatenate(rows) if rows else np.empty(0, np.uint32)
        return cls(ids, offsets)


@dataclass(frozen=True, slots=True)
class EncoderUse:
    """What encoded texts, and how far it was checked.

    Attributes
    ----------
    backend
        Name and version.
    reference
        Of the tokenizer whose ids are the right ones.
    reason
        Why the fast encoder was not used; "" where it was.
    documents, characters
        Encoded.
    checked_documents, checked_characters
        Of these, encoded with the reference as well and found equal.
    """

    backend: str
    reference: str
    reason: str
    documents: int
    characters: int
    checked_documents: int
    checked_characters: int

    @property
    def note(self) -> str:
        """One sentence for reports."""
        if self.reason:
            return f"encoded with {self.backend}: {self.reason}"
        return (
            f"encoded with {self.backend}; ids equal to those of {self.reference} in all "
            f"{self.checked_documents:,} of {self.documents:,} documents that were encoded with both "
            f"({self.checked_characters:,} of {self.characters:,} characters)"
        )

    def plus(self, other: EncoderUse) -> EncoderUse:
        """Both together, of one backend."""
        return replace(
            self,
            documents=self.documents + other.documents,
            characters=self.characters + other.characters,
            checked_documents=self.checked_documents + other.checked_documents,
            checked_characters=self.checked_characters + other.checked_characters,
        )


class Encoder:
    """Turns texts into the ids of `tokenizer.encode(text, add_special_tokens=False)`.

    Names of special tokens inside a text become those tokens, as they do there. Unpaired surrogates, which no
    UTF-8 text holds, count as U+FFFD.

    Parameters
    ----------
    tokenizer
        The reference; it neither truncates nor pads (see `watermark.models.tokenizer.load_tokenizer`).
    fast
        Use `gigatoken` where it is installed, supports the tokenizer and agrees: as soon as there is enough
        text to repay loading it (None), at once (True) or never (False).
    check_share
        Share of the characters that is encoded a second time with `tokenizers`; 1 checks everything.

    Attributes
    ----------
    backend
        Name and version of what encodes now.
    """

    def __init__(self, tokenizer: Tokenizer, *, fast: bool | None = None, check_share: float = 0.01) -> None:
        self.tokenizer = tokenizer
        self.vocabulary_size = vocabulary_size(tokenizer)
        self.check_share = check_share
        self._documents = self._characters = 0
        self._checked_documents = self._checked_characters = 0
        self._reference = f"tokenizers {metadata.version('tokenizers')}"
        self._reason = "the fast encoder is switched off" if fast is False else "too little text to need more"
        self._fast: Gigatoken | None = None
        self._waiting = fast is None
        if fast:
            self._load_fast()

    @classmethod
    def load(cls, source: Any, *, fast: bool | None = None, check_share: float = 0.01) -> Encoder:
        """Read the tokenizer from a model folder, a tokenizer.json or a tokenizer object."""
        return cls(load_tokenizer(source), fast=fast, check_share=check_share)

    @property
    def backend(self) -> str:
        """Name and version of what encodes now."""
        return self._fast.name if self._fast else self._reference

    @property
    def use(self) -> EncoderUse:
        """What encoded the texts and how far that was checked."""
        return EncoderUse(
            backend=self.backend,
            reference=self._reference,
            reason="" if self._fast else self._reason,
            documents=self._documents,
            characters=self._characters,
            checked_documents=self._checked_documents,
            checked_characters=self._checked_characters,
        )

    @property
    def note(self) -> str:
        """One sentence for reports: what encoded the texts and how far that was checked."""
        return self.use.note

    def renewed(self) -> Encoder:
        """The same encoder with its counts at zero, as if no text had been seen; what was loaded is shared."""
        other = copy(self)
        other._documents = other._characters = other._checked_documents = other._checked_characters = 0
        return other

    def encode(self, text: str) -> Ids:
        """Return the ids of one text."""
        return self.encode_batch([text]).ids

    def encode_batch(self, texts: Sequence[str]) -> TokenBatch:
        """Return the ids of many texts; a few MB of text per call is fastest."""
        texts = list(texts)
        if self._waiting and self._characters + sum(map(len, texts)) > _WORTH_IT:
            self._load_fast()
        if self._fast is not None:
            batch = self._try_fast(texts)
            if batch is not None:
                return batch
        return self._slow(texts)

    def _load_fast(self) -> None:
        self._waiting = False
        try:
            self._fast = Gigatoken(self.tokenizer, self.vocabulary_size)
            different = next((text for text in _hard_texts(self.tokenizer) if not self._agrees(text)), None)
        except ImportError:
            self._reason = "gigatoken is not installed (15 times faster: pip install 'dyetrace[fast-text]')"
        except BaseException as error:
            _raise_unless_rust(error)
            self._reason = f"gigatoken can't take this tokenizer: {_one_line(error)}"
        else:
            if different is None:
                return
            self._reason = f"{self._fast.name} differs on the test string {different[:40]!a}"
        self._fast = None

    def _try_fast(self, texts: list[str]) -> TokenBatch | None:
        assert self._fast is not None
        try:
            ids, offsets, doubtful = self._fast.encode(texts)
            batch = TokenBatch(ids, offsets)
            wrong = self._first_difference(texts, batch, doubtful)
            problem = f"differs on document {wrong + 1:,}" if wrong is not None else ""
        except BaseException as error:
            if isinstance(error, TypeError) and (cleaned := _without_surrogates(texts)) != texts:
                return self._try_fast(cleaned)
            _raise_unless_rust(error)
            problem = f"failed: {_one_line(error)}"
        if problem:
            self._reason = f"{self._fast.name} {problem} of a call with {len(texts):,}"
            if self._documents:
                self._reason += f"; {self._documents:,} documents of earlier calls came from it"
            self._fast = None
            return None
        self._documents += len(texts)
        if not doubtful:
            return batch
        rows = list(batch)
        for index in doubtful:
            rows[index] = self._exact_in_parts(texts[index])
        return TokenBatch.of(rows)

    def _exact_in_parts(self, text: str) -> Ids:
        """Encode a doubtful text again, of a long one the doubtful parts alone."""
        assert self._fast is not None
        if len(text) <= _SLICE or not self._fast.splits_words:
            return self._exact(text)
        cuts, last = [0], 0
        for match in _SAFE_CUT.finditer(text):
            if match.end() - last >= _SLICE // 4:
                cuts.append(last := match.end())
        parts = [text[start:end] for start, end in zip(cuts, [*cuts[1:], None], strict=True)]
        ids, offsets, doubtful = self._fast.encode(parts)
        batch = TokenBatch(ids, offsets)
        rows = [self._exact(part) if index in doubtful else batch[index] for index, part in enumerate(parts)]
        return np.concatenate(rows)

    def _first_difference(self, texts: list[str], batch: TokenBatch, doubtful: set[int]) -> int | None:
        """Compare the share that is due with the reference; the index of the first wrong document."""
        for index, text in enumerate(texts):
            self._characters += len(text)
            owed = max(min(self._characters, _FIRST), self.check_share * self._characters)
            if self._checked_characters >= owed or index in doubtful:
                continue
            self._checked_documents += 1
            if len(text) <= _WHOLE:
                self._checked_characters += len(text)
                same = np.array_equal(batch[index], self._exact(text))
            else:
                same = self._long_agrees(text, batch[index], owed - self._checked_characters)
            if not same:
                return index
        return None

    def _long_agrees(self, text: str, ids: Ids, owed: float) -> bool:
        """Check the beginning of a long document in place, and slices from all over it on their own."""
        cuts = [match.end() for match in _SAFE_CUT.finditer(text, 0, _FIRST)]
        if cuts:
            head = self._exact(text[: cuts[-1]])
            self._checked_characters += cuts[-1]
            if not np.array_equal(head, ids[: len(head)]):
                return False
        for start in np.linspace(0, len(text) - _SLICE, max(2, int(owed) // _SLICE)).astype(int).tolist():
            self._checked_characters += _SLICE
            if not self._agrees(text[start : start + _SLICE]):
                return False
        return True

    def _agrees(self, text: str) -> bool:
        assert self._fast is not None
        ids, _, doubtful = self._fast.encode([text])
        return bool(doubtful) or np.array_equal(ids, self._exact(text))

    def _exact(self, text: str) -> Ids:
        # One text at a time: `encode_batch` would start a thread pool, which a later fork must not inherit.
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.uint32)

    def _slow(self, texts: list[str]) -> TokenBatch:
        rows: list[Ids] = []
        for start in range(0, len(texts), 256):  # an Encoding is some 100 times the size of its ids
            part = texts[start : start + 256]
            try:
                encoded = self.tokenizer.encode_batch_fast(part, add_special_tokens=False)
            except TypeError:  # what `tokenizers` says to a surrogate
                part = _without_surrogates(part)
                encoded = self.tokenizer.encode_batch_fast(part, add_special_tokens=False)
            rows.extend(np.array(one.ids, np.uint32) for one in encoded)
        self._documents += len(texts)
        self._characters += sum(map(len, texts))
        return TokenBatch.of(rows)


def _hard_texts(tokenizer: Tokenizer) -> list[str]:
    """Return strings on which encoders are known to differ, the tokenizer's own added tokens among them."""
    texts = [
        *("", " ", "\n", "\r\n", "  ", " \n", "\n ", "\t\t x", "a  b   c", "x\n\n  y\r\n\r\nz\r", "e\n "),
        *("3.14159", "x1y22z333 4444", "1,234,567.89", "\n\n1. one\n\n2. two", "   12", "٣٤٥ ²³½ Ⅷ ①", "१२३"),
        *("I'm you'll WE'RE it's 's'S 't", "don’t ‘x’ “y”", "snake_case camelCase PascalCASE HTTPServer"),
        *("naïve café", "cafe\u0301 nai\u0308ve", "Ångström \u212b", "ﬁ ﬂ", "ß ẞ İ ı", "Здравствуйте, мир!"),
        *("Γειά σου", "你好，世界。今天天气不错", "こんにちは世界", "안녕하세요", "مرحبا بالعالم"),
        *("שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก"),
        *("\U0001f468\u200d\U0001f469\u200d\U0001f467 👍🏽 🇫🇷", "𝒳𝟙𝟚 𐍈 𠜎"),
        *("a\u200bb\u200dc\u00a0d\u2003e\u3000f\ufeffg", "\x00\x01\x04\x06\x1f\x7f\x85", "\u2028\u2029"),
        *("\ufffd\ufffe\uffff", "\U00040000\U000e0041\U0010ffff", "z\u0337\u0321\u0353a\u0334g\u0336o"),
        *("a" * 3000, "ab" * 2000, "x" + " " * 1000 + "y", "\n" * 500, "!?" * 500, "9" * 400, "é" * 700),
        *("中" * 900, "if x == 1:\n\treturn {'a': [1, 2]}  # ok", "<div class='x'>&amp;</div>"),
        *("https://a.b/c?d=e&f=%20#g", "$$$ €€ £5 100%", "--- *** ___ ===", "..........", "\\frac{1}{2}"),
        *("</s><s><unk>[INST] <|endoftext|>", "▁a ▁▁b"),
    ]  # fmt: skip
    for token in list(tokenizer.get_added_tokens_decoder().values())[:300]:
        name = token.content
        texts.append(f"a{name}b {name} {name}{name}1{name}\n{name} .{name[:-1]} {name.upper()}")
    return [*texts, "\n".join(texts), "".join(texts), " ".join(texts[::-1])]


def _without_surrogates(texts: list[str]) -> list[str]:
    """Join surrogate pairs and replace unpaired ones by U+FFFD."""
    return [text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for text in texts]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _raise_unless_rust(error: BaseException) -> None:
    """Let everything through but errors of the encoder: a panic in Rust is not an `Exception`."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
