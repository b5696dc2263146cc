"""Which key marks the next token of each row: by tenant, by sub-key, and by the selector's bit of the context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from watermark import prf
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey
from watermark.spec import WatermarkSpec

if TYPE_CHECKING:
    import torch

TENANT, GLOBAL = 0, 1


def selector_threshold(spec: WatermarkSpec) -> int:
    """A context belongs to the global key when its selector word (token 0) is below this; 2^32 means all of them."""
    return round(spec.global_share * 2**32)


def subkey(key: SecretKey, index: int) -> SecretKey:
    """Sub-key number ``index`` of a global or tenant key: what finally marks tokens."""
    return key.derive("subkey", index)


class RowKeys:
    """The keys of a batch's rows, ready to be picked by context on the device that generates.

    Parameters
    ----------
    spec, ring
        The watermark and the owner's keys.
    tenants
        The tenant of each row; None where the spec has no tenants.
    subkeys
        The sub-key index of each row.
    device
        Where the logits are.
    """

    def __init__(
        self,
        spec: WatermarkSpec,
        ring: KeyRing,
        tenants: Sequence[str | None],
        subkeys: Sequence[int],
        device: torch.device,
    ) -> None:
        self._width = spec.context_width
        self._threshold = selector_threshold(spec)
        self._cpu = device.type == "cpu"
        pairs = [self._pair(ring, tenant, index) for tenant, index in zip(tenants, subkeys, strict=True)]
        self._rows = np.arange(len(pairs)) if self._cpu else self._indices(len(pairs), device)
        self._keys = self._words([[key.words for key in pair] for pair in pairs], device)
        wide = self._width > prf.NONCE_WORDS
        self._context_keys = (
            self._words([[prf.context_key_words(key, self._width) for key in pair] for pair in pairs], device)
            if wide
            else None
        )
        b = len(pairs)
        self._selector = self._words([ring.selector.words] * b, device)
        self._selector_context = (
            self._words([prf.context_key_words(ring.selector, self._width)] * b, device) if wide else None
        )

    def _pair(self, ring: KeyRing, tenant: str | None, index: int) -> tuple[SecretKey, SecretKey]:
        if ring.global_key is None and self._threshold > 0:
            raise DyetraceError("marking text needs the master key, not a tenant's")
        if self._threshold == 2**32:
            if tenant is not None:
                raise DyetraceError(
                    f"tenant {tenant!r} was given, but the spec has no tenants (global_share 1); make a spec with "
                    "`dyetrace spec --tenants`"
                )
            shared = subkey(ring.global_key, index)  # type: ignore[arg-type]
            return shared, shared
        if tenant is None:
            raise DyetraceError(
                "the spec splits contexts between the global and a tenant's key, so each request needs a tenant"
            )
        if tenant not in ring.tenants:
            raise DyetraceError(f"tenant {tenant!r} is not among the keys that were loaded")
        mine = subkey(ring.tenants[tenant], index)
        return mine, mine if ring.global_key is None else subkey(ring.global_key, index)

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
            return self._at(prf, contexts.numpy().astype(np.uint32), np.zeros((len(contexts), 1), dtype=np.uint32))
        from watermark.backends import torch_backend

        return self._at(torch_backend, contexts, contexts.new_zeros((len(contexts), 1)))

    def _at(self, backend: Any, contexts: Any, zero_token: Any) -> tuple[Any, Any]:
        """One text for numpy and torch arrays: ``backend`` brings `words_among` and `nonces` for either."""
        if self._threshold == 2**32:
            keys = self._keys[:, GLOBAL]
            context_keys = None if self._context_keys is None else self._context_keys[:, GLOBAL]
            return keys, backend.nonces(contexts, context_keys)
        selector = backend.words_among(self._selector, backend.nonces(contexts, self._selector_context), zero_token)
        owner = (selector[:, 0] < self._threshold) * GLOBAL
        keys = self._keys[self._rows, owner]
        context_keys = None if self._context_keys is None else self._context_keys[self._rows, owner]
        return keys, backend.nonces(contexts, context_keys)
