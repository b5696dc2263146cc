"""Whether token ids spell the text beside them: those of another tokenizer would hide a mark that is there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from watermark.models.prompts import well_formed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_AFTER = 32  # characters that ids may spell after a text: servers cut the words that stopped an answer off its text
_UNKNOWN = "\ufffd"  # what decoders put for a part of a character, and some servers leave out


class Speller:
    """Holds token ids against texts.

    Parameters
    ----------
    tokenizer
        The spec's.
    vocabulary
        The spec's vocabulary size; ids beyond it are another tokenizer's.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary

    def spells(self, ids: Sequence[int], text: str) -> bool:
        """Whether ids are those of a text.

        Decoders clean texts up in ways of their own, so white space and parts of characters may differ. Answers that a
        model wrote do not always encode to the ids that it wrote, so decoding is the test. Of other texts, which a
        tokenizer may have normalised, it is enough that they encode to the ids.

        Parameters
        ----------
        ids
            Of a document, special tokens in it or not.
        text
            Of the same document. An empty one says nothing against ids.
        """
        own = _bare(text)
        if any(not 0 <= token < self._vocabulary for token in ids):
            return False
        if not own:
            return True
        for skip in (True, False):
            spelled = _bare(self._tokenizer.decode(list(ids), skip_special_tokens=skip))
            if spelled.startswith(own) and len(spelled) - len(own) <= _AFTER:
                return True
        encoded = self._tokenizer.encode(well_formed(text), add_special_tokens=False).ids
        return bool(encoded == [token for token in ids if token not in self._special])

    def holds(self, ids: Sequence[int], text: str) -> bool:
        """Whether a text stands in what ids spell, as a prompt does in what a chat template made of it."""
        known = all(0 <= token < self._vocabulary for token in ids)
        return known and _bare(text) in _bare(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    @cached_property
    def _special(self) -> frozenset[int]:
        added = self._tokenizer.get_added_tokens_decoder()
        return frozenset(token for token, one in added.items() if one.special)


def _bare(text: str) -> str:
    return "".join(text.replace(_UNKNOWN, "").split())
