"""Corpora of token ids made for tests: documents sampled from random distributions, under a key or without one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detect.corpus.engines import Engine
from detect.corpus.settings import ScanSettings
from detect.corpus.tasks import Task, run
from detect.keyed.rings import KeySet, key_set
from watermark import prf
from watermark.keys import KeyRing, SecretKey
from watermark.rowkeys import selector_threshold, subkey
from watermark.spec import WatermarkSpec

SECRET = SecretKey(hashlib.sha256(b"the key of these corpora").digest())
VOCABULARY = 5_000
CANDIDATES = 48


def spec(**changes: Any) -> WatermarkSpec:
    fields: dict[str, Any] = {"vocabulary_size": VOCABULARY, "tokenizer": "t", "key_fingerprint": SECRET.fingerprint}
    return WatermarkSpec(**(fields | changes))


def keys_of(made: WatermarkSpec, tenants: Sequence[str] = (), secret: SecretKey = SECRET) -> KeySet:
    return key_set([made], [KeyRing.from_master(secret, made.epoch, tuple(tenants))])


def documents(
    count: int,
    length: int,
    seed: int,
    made: WatermarkSpec | None = None,
    tenant: str | None = None,
    secret: SecretKey = SECRET,
    concentration: float = 0.5,
) -> np.ndarray:
    """Shape (count, length): ids drawn by Gumbel's race from random distributions over a few candidates.

    With a spec the race is the key's, each document under a sub-key of its own; else it is the generator's.
    """
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCABULARY, (count, length), dtype=np.uint32)
    ring = KeyRing.from_master(secret, 0 if made is None else made.epoch, () if tenant is None else (tenant,))
    for position in range(2, length):
        tokens = rng.integers(0, VOCABULARY, (count, CANDIDATES), dtype=np.uint32)
        p = rng.dirichlet(np.full(CANDIDATES, concentration), count)
        u = rng.random((count, CANDIDATES))
        if made is not None:
            nonces = prf.nonces(ids[:, position - 2 : position], None)
            u = (prf.words_among(_row_keys(made, ring, tenant, nonces), nonces, tokens) + 0.5) / 2**32
        ids[:, position] = tokens[np.arange(count), np.argmax(np.log(u) / np.maximum(p, 1e-300), axis=1)]
    return ids


def _row_keys(made: WatermarkSpec, ring: KeyRing, tenant: str | None, nonces: np.ndarray) -> np.ndarray:
    count = nonces.shape[1]
    assert ring.global_key is not None
    assert isinstance(ring.global_key, SecretKey)
    keys = np.array([subkey(ring.global_key, row % made.subkeys).words for row in range(count)])
    if tenant is None:
        return keys
    theirs = np.array([subkey(ring.tenants[tenant], row % made.subkeys).words for row in range(count)])
    selector = np.repeat(ring.selector.words[None], count, axis=0)
    words = prf.words_among(selector, nonces, np.zeros((count, 1), dtype=np.uint32))[:, 0]
    return np.where((words < selector_threshold(made))[:, None], keys, theirs)


def write_jsonl(path: Path, rows: Sequence[np.ndarray] | np.ndarray, first: int = 0) -> Path:
    lines = [msgspec.json.encode({"id": f"doc-{first + i}", "token_ids": row.tolist()}) for i, row in enumerate(rows)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


class InlineEngine:
    """Runs tasks in this very process, in the order of a permutation: no engine's order may matter."""

    name = "inline"

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed

    def run(self, tasks: Any) -> Any:
        waiting: list[Task] = list(tasks)
        if self._seed is not None:
            np.random.default_rng(self._seed).shuffle(waiting)
        for task in waiting:
            yield run(Task(*task))

    def close(self) -> None:
        pass


_: Engine = InlineEngine()
SETTINGS = ScanSettings(decoys=20)
