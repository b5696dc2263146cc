"""Loads the machine code of all steps by running them once on next to nothing; what a fork server preloads.

Only kernels without threads run here: a process that has started threads must not be forked.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
from pathlib import Path
from typing import NoReturn

import numpy as np

from detect.corpus import gather
from detect.corpus.score import score_block
from detect.corpus.settings import ScanSettings
from detect.corpus.settle import read_kept, settle_bucket
from detect.keyed.rings import key_set
from detect.text.encode import TokenBatch
from watermark.keys import KeyRing, SecretKey
from watermark.spec import WatermarkSpec


def warm() -> None:
    """Gather, settle and score forty tokens under a key that is no secret."""
    key = SecretKey(bytes(32))
    spec = WatermarkSpec(vocabulary_size=64, tokenizer="", key_fingerprint=key.fingerprint)
    rows = gather.Rows(
        TokenBatch.of([np.arange(40, dtype=np.uint32)]), np.zeros(1, np.int64), np.zeros(1, np.int64), [None]
    )
    with tempfile.TemporaryDirectory(prefix="dyetrace-") as name:
        folder = Path(name)
        gather.write_block(folder, 0, rows, spec.context_width, buckets=1)
        distinct = settle_bucket([(folder, 0)], 0, 1, folder / "settled")
        block = gather.read_block(folder, 0)
        kept = read_kept([folder / "settled"], 0, 1, block.starts)
        first, prints = gather.in_reading_order(block, spec.context_width, kept)
        keys = key_set([spec], [KeyRing.from_master(key, 0)])
        score_block(block, first, prints, distinct, keys, ScanSettings(decoys=1))


def _leave(*_: object) -> NoReturn:
    """End as one who cleans up: the scan was cut off before it began."""
    raise SystemExit(1)


signal.signal(signal.SIGTERM, _leave)
with contextlib.suppress(OSError):  # without a place to write, the scan's own files meet the same and say it
    warm()
signal.signal(signal.SIGTERM, signal.SIG_DFL)
