"""Whether a commitment on record is of the tested key: it is opened where its opening lies beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from watermark.commitment import Commitment, load_opening, opening_path, verify
from watermark.keys import TenantKey, load_key
from watermark.spec import WatermarkSpec


def is_opened(path: Path | None, commitment: Commitment | None, specs: Sequence[WatermarkSpec], key: str) -> bool:
    """Whether the commitment was opened with this key.

    Parameters
    ----------
    path
        Of the commitment, or None; its opening is looked for beside it, where its owner keeps it.
    commitment
        What stands there.
    specs
        Those tested.
    key
        Where the key is (file:, env:, cmd:). An account's key opens nothing.

    Raises
    ------
    DyetraceError
        The opening is damaged, or it does not fit spec and key: then the commitment is of another key.
    """
    if path is None or commitment is None:
        return False
    beside = opening_path(path)
    spec = next((spec for spec in specs if spec.spec_id == commitment.spec_id), None)
    if spec is None or not os.access(beside, os.R_OK):
        return False
    held = load_key(key)
    if isinstance(held, TenantKey):
        return False
    verify(commitment, load_opening(beside), spec, held)
    return True
