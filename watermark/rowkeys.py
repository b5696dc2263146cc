"""Which key marks the next token of each row: by tenant, by sub-key, and by the selector's bit of the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from watermark import prf
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, MarkingKey, SecretKey
from watermark.keys.foreign import ForeignKey
from watermark.spec import WatermarkSpec

if TYPE_CHECKING:
    import torch

TENANT, GLOBAL = 0, 1


def selector_threshold(spec: WatermarkSpec) -> int:
    """A context belongs to the global key when its selector word (token 0) is below this; 2^32 means all of them."""
    return round(spec.global_share * 2**32)


def marks_globally(
    spec: WatermarkSpec, selector: SecretKey, count: int, nonces: Callable[[prf.U32 | None], prf.U32]
) -> npt.NDArray[np.bool_]:
    """Which of ``count`` contexts the global key marks, (n,); the account's key marks the others.

    ``nonces`` gives their nonces, (3, n), under the words of a key that compresses wide contexts.
    """
    threshold = selector_threshold(spec)
    if threshold in (0, 2**32):
        return np.full(count, threshold > 0)
    of_contexts = nonces(prf.context_key_words(selector, spec.context_width))
    words: prf.U32 = prf.words_at(selector.words, of_contexts, np.zeros(count, dtype=np.uint32))
    return words < np.uint32(threshold)


@overload
def subkey(key: SecretKey, index: int) -> SecretKey: ...
@overload
def subkey(key: MarkingKey, index: int) -> MarkingKey: ...
def subkey(key: MarkingKey, index: int) -> MarkingKey:
    """Sub-key number ``index`` of a global or tenant key: what finally marks tokens. A foreign key has itself alone."""
    if isinstance(key, ForeignKey):
        return key
    return key.derive("subkey", index)


@dataclass(frozen=True, slots=True, eq=False)
class KeyWords:
    """What marks one answer: the words of its tenant's and of the global sub-key, in the order `TENANT`, `GLOBAL`.

    Attributes
    ----------
    keys
        Shape (2, 8) uint32.
    context_keys
        Of the keys that compress contexts of more than three tokens, same shape; None for narrower ones.
    """

    keys: prf.U32
    context_keys: prf.U32 | None


def key_words(spec: WatermarkSpec, ring: KeyRing, tenant: str | None, index: int) -> KeyWords:
    """The key words for an answer to ``tenant`` (None where the spec has no tenants) under sub-key ``index``.

    Raises
    ------
    DyetraceError
        The ring lacks a key that the spec needs, or the spec and the tenant don't go together.
    """
    pair = _pair(spec, ring, tenant, index)
    wide = spec.context_width > prf.NONCE_WORDS
    compress = [prf.context_key_words(key, spec.context_width) for key in pair] if wide else None
    return KeyWords(
        np.array([key.words for key in pair], dtype=np.uint32),
        None if compress is None else np.array(compress, dtype=np.uint32),
    )


def _pair(spec: WatermarkSpec, ring: KeyRing, tenant: str | None, index: int) -> tuple[SecretKey, SecretKey]:
    threshold, common = selector_threshold(spec), ring.global_key
    if isinstance(common, ForeignKey):
        raise DyetraceError(f"{common.format} is read, not written: the system that the mark is of marks with it")
    if common is None and threshold > 0:
        raise DyetraceError("marking text needs the master key, not a tenant's")
    if threshold == 2**32:
        if tenant is not None:
            raise DyetraceError(
                f"tenant {tenant!r} was given, but the spec has no tenants (global_share 1); make a spec with "
                "`dyetrace spec --tenants`"
            )
        shared = subkey(common, index)  # type: ignore[arg-type]
        return shared, shared
    if tenant is None:
        raise DyetraceError(
            "the spec splits contexts between the global and a tenant's key, so each request needs a tenant"
        )
    if tenant not in ring.tenants:
        raise DyetraceError(f"tenant {tenant!r} is not among the keys that were loaded")
    mine = subkey(ring.tenants[tenant], index)
    return mine, mine if common is None else subkey(common, index)


class RowKeys:
    """The keys of a batch's rows, ready to be picked by context on the device that generates.

    Parameters
    ----------
    spec
        The watermark.
    selector
        The key that says which of the two keys marks a context.
    rows
        The key words of each row.
    device
        Where the logits are.
    """

    def __init__(
        self, spec: WatermarkSpec, selector: SecretKey, rows: Sequence[KeyWords], device: torch.device
    ) -> None:
        self._width = spec.context_width
        self._threshold = selector_threshold(spec)
        self._cpu = device.type == "cpu"
        b = len(rows)
        self._rows = np.arange(b) if self._cpu else self._indices(b, device)
        self._keys = self._words([row.keys for row in rows], device)
        wide = self._width > prf.NONCE_WORDS
        self._context_keys = self._words([row.context_keys for row in rows], device) if wide else None
        self._selector = self._words([selector.words] * b, device)
        self._selector_context = (
            self._words([prf.context_key_words(selector, self._width)] * b, device) if wide else None
        )

    @classmethod
    def of(
        cls,
        spec: WatermarkSpec,
        ring: KeyRing,
        tenants: Sequence[str | None],
        subkeys: Sequence[int],
        device: torch.device,
    ) -> RowKeys:
        """The keys of rows with these tenants (None where the spec has none) and sub-keys."""
        rows = [key_words(spec, ring, tenant, index) for tenant, index in zip(tenants, subkeys, strict=True)]
        return cls(spec, ring.selector, rows, device)

    def pick(self, rows: torch.Tensor) -> RowKeys:
        """The keys of some of the rows, (k,) int64, in their order; a row may stand several times."""
        index = rows.numpy() if self._cpu else rows
        picked = copy(self)
        picked._rows = np.arange(len(rows)) if self._cpu else self._indices(len(rows), rows.device)
        for name in ("_keys", "_context_keys", "_selector", "_selector_context"):
            words = getattr(self, name)
            setattr(picked, name, None if words is None else words[index])
        return picked

    @staticmethod
    def _indices(count: int, device: torch.device) -> Any:
        """On the device itself: a numpy index would be copied there at every step."""
        import torch

        return torch.arange(count, device=device)

    def _words(self, words: Any, device: torch.device) -> Any:
        array = np.array(words, dtype=np.uint32)
        if self._cpu:
            return array
        from watermark.backends import torch_backend

        return torch_backend.key_tensor(array, device)

    def at(self, contexts: torch.Tensor) -> tuple[Any, Any]:
        """Keys (b, 8) and nonces (3, b) for the next contexts (b, h) int64, as `watermark.backends.rows` takes them."""
        if self._cpu:
            owned = getattr(prf.backend(), "owned_keys", None)
            if owned is not None and self._width <= prf.NONCE_WORDS and 0 < self._threshold < 2**32:
                found: tuple[Any, Any] = owned(contexts.numpy(), self._selector[0], self._threshold, self._keys)
                return found
            return self._at(prf, contexts.numpy().astype(np.uint32), np.zeros((len(contexts), 1), dtype=np.uint32))
        from watermark.backends import torch_backend

        return self._at(torch_backend, contexts, contexts.new_zeros((len(contexts), 1)))

    def _at(self, backend: Any, contexts: Any, zero_token: Any) -> tuple[Any, Any]:
        """One text for numpy and torch arrays: ``backend`` brings `words_among` and `nonces` for either."""
        if self._threshold == 2**32:
            keys = self._keys[:, GLOBAL]
            context_keys = None if self._context_keys is None else self._context_keys[:, GLOBAL]
            return keys, backend.nonces(contexts, context_keys)
        # Nonces of narrow contexts are the contexts themselves, whatever the key.
        wide = self._context_keys
        narrow = backend.nonces(contexts, None) if wide is None else None
        of_selector = backend.nonces(contexts, self._selector_context) if narrow is None else narrow
        selector = backend.words_among(self._selector, of_selector, zero_token)
        owner = (selector[:, 0] < self._threshold) * GLOBAL
        keys = self._keys[self._rows, owner]
        return keys, narrow if wide is None else backend.nonces(contexts, wide[self._rows, owner])
