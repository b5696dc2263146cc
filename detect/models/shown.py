"""Contexts as text: whether one stands in the text that a model is shown before the document.

A model that is shown a text copies from it. Where the text is marked, what follows a context there was chosen with the
key, so such a context is no evidence of training. Another tokenizer, a chat template or a clipped prompt change the
ids; the text stays. So contexts are compared as text, and rather left out once too often.
"""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from watermark.models.tokenizer import load_tokenizer

__all__ = ["context_texts", "stands_in"]

_UNKNOWN = "\ufffd"  # what decoders put for a part of a character


def context_texts(tokenizer: Any, contexts: npt.NDArray[np.uint32]) -> list[str]:
    """The texts of contexts, for `stands_in`.

    Parameters
    ----------
    tokenizer
        The spec's, as for `watermark.models.tokenizer.load_tokenizer`.
    contexts
        Token ids, oldest first, shape (n, h).

    Returns
    -------
    list of str
        n texts without white space and parts of characters at their ends, and without what normalisers of tokenizers
        take away: case, forms of compatibility, kinds and lengths of white space.
    """
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = load_tokenizer(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)  # as it is: a copy would take a while
    found = backend.decode_batch(contexts.tolist(), skip_special_tokens=False)
    return [_folded(text).strip(" " + _UNKNOWN) for text in found]


def stands_in(context_text: str, shown: str) -> bool:
    """Whether a context stands in a text, anywhere in it and be it inside of words.

    Parameters
    ----------
    context_text
        From `context_texts`. One without any letters left says nothing of where it stands: it counts as present.
    shown
        All that the model is shown before the document, as it is. Where that is nothing, nothing stands in it.
    """
    text = _of_shown(shown)
    return bool(text) and all(part.strip() in text for part in context_text.split(_UNKNOWN))


@lru_cache(maxsize=16)
def _of_shown(shown: str) -> str:
    return _folded(shown)


def _folded(text: str) -> str:
    """Decomposed, as a context may begin with a mark that belongs to the letter before it."""
    return " ".join(unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()).split())
