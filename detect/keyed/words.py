"""The words of tuples under any key: ours by the cipher, a foreign format's by its own function. The one place."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt

from detect.text.distinct import I64, U64, Mask, Tuples, first_occurrences
from watermark import prf
from watermark.formats.protocol import Format, is_format
from watermark.keys import MarkingKey
from watermark.keys.foreign import ForeignKey
from watermark.schemes.protocol import Scheme


class Source:
    """Tuples made ready for any number of keys.

    Parameters
    ----------
    scheme
        Whose words.
    width
        h, the context width.
    contexts
        Gives the contexts, (n, h) uint32, oldest first, `watermark.prf.MISSING` before the beginning; asked at most
        once, and only where they are needed.
    nonces
        Gives their nonces under a context key, (3, n), or under None for contexts of up to three tokens.
    tokens
        Shape (n,) uint32.
    """

    def __init__(
        self,
        scheme: Scheme,
        width: int,
        contexts: Callable[[], prf.U32],
        nonces: Callable[[prf.U32 | None], prf.U32],
        tokens: prf.U32,
    ) -> None:
        self._scheme = scheme
        self._width = width
        self._find_contexts = contexts
        self._find_nonces = nonces
        self._tokens = tokens

    @classmethod
    def of(cls, scheme: Scheme, tuples: Tuples) -> Source:
        """Of distinct tuples."""
        return cls(scheme, tuples.width, lambda: tuples.contexts, tuples.nonces, tuples.tokens)

    def under(self, key: MarkingKey) -> prf.U32:
        """The words under one key, shape (n,): uint32, or uint64 where a format of two keys so has it."""
        if isinstance(key, ForeignKey):
            words = _format(self._scheme).words(key.native, self._signed, self._tokens.astype(np.int64))
            return cast(prf.U32, words)
        if self._width <= prf.NONCE_WORDS:
            return prf.words_at(key.words, self._nonces, self._tokens)
        nonces = self._find_nonces(prf.context_key_words(key, self._width))
        return prf.words_at(key.words, nonces, self._tokens)

    def first_inputs(self, key: MarkingKey) -> Mask | None:
        """Which tuples are the first with what is really hashed, (n,); None where tuples differ in it anyway."""
        if not isinstance(key, ForeignKey):
            return None
        inputs = _format(self._scheme).inputs(key.native, self._signed, self._tokens.astype(np.int64))
        return first_occurrences(_mixed(inputs.astype(np.uint64)))

    @cached_property
    def _nonces(self) -> prf.U32:
        return self._find_nonces(None)

    @cached_property
    def _signed(self) -> I64:
        """Contexts as formats take them: -1 (`watermark.formats.protocol.ABSENT`) before the beginning."""
        return signed(self._find_contexts())


def signed(contexts: prf.U32) -> npt.NDArray[np.int64]:
    """Contexts (n, h) as int64, with -1 for `watermark.prf.MISSING`; token ids are below 2^31."""
    return contexts.view(np.int32).astype(np.int64)


def _mixed(numbers: U64) -> U64:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014), a bijection; that 0 is avoided costs a tuple at most."""
    z = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.maximum(z ^ (z >> np.uint64(31)), np.uint64(1))


def _format(scheme: Scheme) -> Format:
    assert is_format(scheme), f"a foreign key with scheme {scheme.name!r}"
    return scheme
