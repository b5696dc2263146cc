"""`lm-watermarking`: the code of "A Watermark for Large Language Models" and its successor on reliability.

Kirchenbauer et al. 2023 (arXiv 2301.10226 and 2306.04634); every named scheme of its `alternative_prf_schemes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np

from watermark.errors import DyetraceError
from watermark.formats.parts.permutation import Mask, greens, permutation, seeds_of, seeds_of_products
from watermark.formats.parts.seeded_greens import SeededGreens
from watermark.formats.protocol import I64, NativeKey
from watermark.prf import U32

TABLE_SIZE, TABLE_SEED = 1_000_003, 2_971_215_073

# The name of a scheme: its function, its window, and whether the window's last token is the marked token itself.
_NAMED = {
    "simple_1": ("additive_prf", 1, False),
    "lefthash": ("additive_prf", 1, False),
    "algorithm-3": ("anchored_minhash_prf", 4, True),
    "selfhash": ("anchored_minhash_prf", 4, True),
    "minhash": ("minhash_prf", 4, False),
    "skipgram": ("skipgram_prf", 5, False),
}


@dataclass(frozen=True)
class LmWatermarking(SeededGreens):
    """Green lists under the repository's ``seeding_scheme``, by name or free form.

    The window holds the last tokens of the model's input, the prompt's tail included, and under self-hashing the token
    itself; a shorter input is an error there, so no marked token has an incomplete window. Repeated contexts are
    marked alike. Self-hashing raises only the 41 likeliest tokens of a step. Where token 0 decides on the seed,
    it is the same under every key; such tokens prove nothing and count as one that is red.

    Attributes
    ----------
    vocabulary_size
        Length of the list ``vocab`` that the processor was made with.
    gamma
        Green share.
    seeding_scheme
        simple_1, lefthash, selfhash, algorithm-3, minhash, skipgram, or ``ff-NAME-WIDTH-SELF``, as in
        ff-additive_prf-4-False; a key behind it belongs in the key's place, not here.
    tail
        The greens are the last entries of the permutation (``select_green_tokens=False``, the earliest versions).
    """

    vocabulary_size: int
    gamma: float = 0.25
    seeding_scheme: str = "selfhash"
    tail: bool = False

    name: ClassVar[str] = "lm-watermarking"
    system: ClassVar[str] = "lm-watermarking (commit 5b0e207)"
    why_not_exact: ClassVar[str] = (
        "torch keeps 32 bits of the seed; schemes that hash the key's products by a table of 1,000,003 keep 19"
    )
    licence: ClassVar[str] = "Apache-2.0; formulas re-implemented"
    seed_bits: ClassVar[int] = 19
    """Of any scheme; an instance has 32 where its scheme keeps them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        function, window, _ = self._scheme
        if function == "minskipgram_prf" and window < 2:
            raise DyetraceError(f"{self.name}: minskipgram_prf needs a window of 2 or more (got {window})")
        if function not in _HASHED_KEY:
            object.__setattr__(self, "seed_bits", 32)

    @property
    def _scheme(self) -> tuple[str, int, bool]:
        if self.seeding_scheme in _NAMED:
            return _NAMED[self.seeding_scheme]
        parts = self.seeding_scheme.split("-")
        if len(parts) == 5 and parts[0] == "ff":
            raise DyetraceError(f"{self.name}: leave the key out of seeding_scheme; it is given as the key")
        if (
            len(parts) != 4
            or parts[0] != "ff"
            or parts[1] not in _FUNCTIONS
            or not parts[2].isdecimal()
            or int(parts[2]) < 1
        ):
            raise DyetraceError(
                f"{self.name}: seeding_scheme must be one of {', '.join(_NAMED)} or ff-NAME-WIDTH-True|False with NAME "
                f"one of {', '.join(_FUNCTIONS)} (got {self.seeding_scheme!r})"
            )
        return parts[1], int(parts[2]), parts[3] == "True"

    @property
    def context_width(self) -> int:
        """Tokens of the window before the token itself."""
        _, window, self_salt = self._scheme
        return window - self_salt

    def seeds(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """The named function of the window, mod (2^64 - 1)."""
        function, _, self_salt = self._scheme
        return _FUNCTIONS[function](key[0], np.column_stack([contexts, tokens]) if self_salt else contexts)

    @property
    def keyless_seed(self) -> int | None:
        """That of a window of zeros, where the function multiplies the key by tokens alone."""
        function, window, _ = self._scheme
        if function in _TABLE_OF_TOKENS:
            return None
        return int(_FUNCTIONS[function](1, np.zeros((1, window), dtype=np.int64))[0])

    def is_green(self, seeds: U32, tokens: I64) -> Mask:
        """What the system itself has for tokens under their seeds, (n,) bool."""
        if not self.tail:
            return super().is_green(seeds, tokens)
        size = self.vocabulary_size
        red = greens(seeds, tokens, size, size - self.count)
        return ~red & (tokens >= 0) & (tokens < size)


def _hashed(values: I64) -> I64:
    return permutation(TABLE_SEED, TABLE_SIZE)[values % TABLE_SIZE] + 1


# Each takes the key and windows (n, w), oldest token first. Products of arrays wrap in int64 as torch's do; the key's
# product with a single number is Python's there and does not.


def _multiplicative(key: int, window: I64) -> U32:
    return seeds_of_products(key, window.prod(1))


def _additive(key: int, window: I64) -> U32:
    return seeds_of_products(key, window.sum(1))


def _minfunc(key: int, window: I64) -> U32:
    return seeds_of_products(key, window.min(1))


def _simple_skip(key: int, window: I64) -> U32:
    return seeds_of(_hashed(key * window[:, ::2]).prod(1))


def _skipgram(key: int, window: I64) -> U32:
    return seeds_of(_hashed(key * window[:, 0]))


def _anchored_skipgram(key: int, window: I64) -> U32:
    return seeds_of(_hashed(key * window[:, 0]) * _hashed(key * window[:, -1]))


def _minhash(key: int, window: I64) -> U32:
    return seeds_of(_hashed(key * window).min(1))


def _anchored_minhash(key: int, window: I64) -> U32:
    return seeds_of((key * _hashed(window) * _hashed(window[:, -1:])).min(1))


def _minskipgram(key: int, window: I64) -> U32:
    hashed = _hashed(key * window)
    pairs = [hashed[:, i] * hashed[:, j] for i, j in combinations(range(window.shape[1]), 2)]
    return seeds_of(np.min(pairs, axis=0))


def _noncomm(key: int, window: I64) -> U32:
    state = np.full(len(window), key, dtype=np.int64)
    for column in window.T:
        state = state * _hashed(state * column) % 2**32
    return seeds_of(state)


def _position(key: int, window: I64) -> U32:
    return seeds_of((key * window * np.arange(1, window.shape[1] + 1)).sum(1))


_FUNCTIONS: dict[str, Callable[[int, I64], U32]] = {
    "multiplicative_prf": _multiplicative,
    "additive_prf": _additive,
    "minfunc_prf": _minfunc,
    "simple_skip_prf": _simple_skip,
    "skipgram_prf": _skipgram,
    "anchored_skipgram_prf": _anchored_skipgram,
    "minhash_prf": _minhash,
    "anchored_minhash_prf": _anchored_minhash,
    "minskipgram_prf": _minskipgram,
    "noncomm_prf": _noncomm,
    "position_prf": _position,
}

# They see the key only as an index into the table: 1,000,003 kinds of key.
_HASHED_KEY = {"simple_skip_prf", "skipgram_prf", "anchored_skipgram_prf", "minhash_prf", "minskipgram_prf"}

# They multiply the key by entries of the table, which are never 0.
_TABLE_OF_TOKENS = {"anchored_minhash_prf", "noncomm_prf"}
