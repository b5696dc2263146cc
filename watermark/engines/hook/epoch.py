"""A spec and its keys as a server holds them, read anew when the operator rotates them.

An answer keeps the epoch under which it began; answers of two epochs may share a batch.
"""

from __future__ import annotations

import os
import threading
import time
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np

from watermark.engines.hook.settings import Settings
from watermark.errors import DyetraceError
from watermark.keys import KeyRing, SecretKey, load_master
from watermark.rowkeys import KeyWords, key_words
from watermark.schemes.protocol import Scheme
from watermark.spec import WatermarkSpec, check_key, load_spec

_KEPT_KEYS = 4096
_KEPT_ACCOUNTS = 65_536


class Epoch:
    """One spec with the owner's keys; keys of accounts are derived when first asked for.

    Parameters
    ----------
    spec
        The watermark.
    master
        The key that it was made with.

    Raises
    ------
    DyetraceError
        The key is not the spec's.
    """

    def __init__(self, spec: WatermarkSpec, master: SecretKey) -> None:
        check_key(spec, master.fingerprint)
        self.spec = spec
        self.spec_id = spec.spec_id
        self.scheme = spec.build_scheme()
        self.moments = moments(self.scheme)
        self._master = master
        self.ring = KeyRing.from_master(master, spec.epoch)
        self.selector = self.ring.selector
        self.key_words = lru_cache(_KEPT_KEYS)(self._derived)

    def ring_of(self, tenant: str | None) -> KeyRing:
        """The ring, with the key of this account in it."""
        if tenant is not None and tenant not in self.ring.tenants:
            if len(self.ring.tenants) >= _KEPT_ACCOUNTS:
                self.ring.tenants.clear()
            self.ring.tenants.update(KeyRing.from_master(self._master, self.spec.epoch, (tenant,)).tenants)
        return self.ring

    def _derived(self, tenant: str | None, subkey: int) -> KeyWords:
        return key_words(self.spec, self.ring_of(tenant), tenant, subkey)

    def __repr__(self) -> str:
        return f"Epoch({self.spec_id}, epoch {self.spec.epoch})"


def moments(scheme: Scheme) -> tuple[float, float]:
    """Mean and standard deviation of a scheme's statistic over uniform words, to a percent: enough for an alarm."""
    words = np.random.default_rng(0).integers(2**32, size=1 << 17, dtype=np.uint32)
    scores = scheme.statistic(words).astype(np.float64)
    return float(scores.mean()), float(scores.std())


class Epochs:
    """The epoch in force, looked up anew every ``settings.reload_seconds`` when the spec file has changed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._stamp = self._file_stamp()
        self._looked = time.monotonic()
        self._current = self._load()
        self.trouble: str | None = None

    def current(self) -> Epoch:
        """The epoch for requests that begin now; a new spec that can't be used leaves the old one in force."""
        now = time.monotonic()
        if now - self._looked < self._settings.reload_seconds:
            return self._current
        with self._lock:
            self._looked = now
            stamp = self._file_stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._current = self._next(self._current)
                    self.trouble = None
                except DyetraceError as error:
                    self.trouble = f"the changed spec is not used, epoch {self._current.spec.epoch} goes on: {error}"
        return self._current

    def _next(self, old: Epoch) -> Epoch:
        """The changed spec's, if only keys differ: answers of both share batches; engines are set up for the old."""
        new = self._load()
        keys_alone = msgspec.structs.replace(new.spec, epoch=old.spec.epoch, key_fingerprint=old.spec.key_fingerprint)
        if keys_alone != old.spec:
            raise DyetraceError("it differs in more than its epoch and key; restart the server for that")
        return new

    def _load(self) -> Epoch:
        return Epoch(load_spec(self._settings.spec), load_master(self._settings.key))

    def _file_stamp(self) -> tuple[int, int] | None:
        try:
            seen = os.stat(Path(self._settings.spec))
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size
