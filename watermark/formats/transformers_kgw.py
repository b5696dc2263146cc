"""`transformers-kgw-lefthash` and `transformers-kgw-selfhash`: what `WatermarkingConfig` of transformers writes.

Kirchenbauer et al. 2023, algorithms 2 and 3, in the form of transformers' `WatermarkLogitsProcessor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from watermark.errors import DyetraceError
from watermark.formats.parts.permutation import permutation, seeds_of, seeds_of_products
from watermark.formats.parts.seeded_greens import LARGEST_SEED, SeededGreens
from watermark.formats.protocol import I64, NativeKey
from watermark.prf import U32

HASH_TABLE_SIZE = 1_000_003


@dataclass(frozen=True)
class TransformersKgwLefthash(SeededGreens):
    """``seeding_scheme="lefthash"``: seed = key * previous token.

    The context is one token whatever the configuration's ``context_width``, which only says how many tokens must
    stand before the first marked one. It is the last of the model's input, the prompt's tail included; in a batch
    padded on the left the padding too, where a prompt is empty. Repeated contexts are marked alike. After token 0 the
    seed is 0 under every key: such tokens prove nothing and count as one that is red.

    Attributes
    ----------
    vocabulary_size
        The model configuration's ``vocab_size``, which may be larger than the tokenizer's.
    gamma
        ``greenlist_ratio``.
    """

    vocabulary_size: int
    gamma: float = 0.25

    name: ClassVar[str] = "transformers-kgw-lefthash"
    system: ClassVar[str] = "transformers 5.24.0"
    why_not_exact: ClassVar[str] = "torch keeps 32 bits of the seed key * previous token"
    licence: ClassVar[str] = "Apache-2.0; formula re-implemented"
    largest_key: ClassVar[int] = LARGEST_SEED

    @property
    def context_width(self) -> int:
        """The previous token."""
        return 1

    @property
    def keyless_seed(self) -> int:
        """That of token 0."""
        return 0

    def seeds(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """(key * previous) mod (2^64 - 1)."""
        return seeds_of_products(key[0], contexts[:, -1])


@dataclass(frozen=True)
class TransformersKgwSelfhash(SeededGreens):
    """``seeding_scheme="selfhash"``: seed = min over the window of key * hash(w) * hash(token), in wrapping int64.

    The window ends with the token itself. Its other tokens are the last of the model's input: the prompt's tail, then
    generated ones; padding on the left counts where a prompt is shorter. A sequence shorter than ``window`` is left
    unmarked. Only the 40 likeliest tokens of a step can be raised. Windows that share their minimum and their token
    share their word.

    Attributes
    ----------
    vocabulary_size
        The model configuration's ``vocab_size``.
    gamma
        ``greenlist_ratio``.
    window
        The configuration's ``context_width``: tokens hashed, the token itself among them.
    """

    vocabulary_size: int
    gamma: float = 0.25
    window: int = 1

    name: ClassVar[str] = "transformers-kgw-selfhash"
    system: ClassVar[str] = "transformers 5.24.0"
    why_not_exact: ClassVar[str] = "torch keeps 32 bits of the seed, a product of the key and entries of a table"
    licence: ClassVar[str] = "Apache-2.0; formula re-implemented"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise DyetraceError(f"{self.name}: window must be 1 or more (got {self.window})")

    @property
    def context_width(self) -> int:
        """The window without the token."""
        return self.window - 1

    def seeds(self, key: NativeKey, contexts: I64, tokens: I64) -> U32:
        """Of each window, the least product as int64 shows it, mod (2^64 - 1)."""
        table = permutation(key[0], HASH_TABLE_SIZE)
        own = table[tokens % HASH_TABLE_SIZE] + 1
        least = key[0] * own * own
        for column in contexts.T:
            least = np.minimum(least, key[0] * (table[column % HASH_TABLE_SIZE] + 1) * own)
        return seeds_of(least)
