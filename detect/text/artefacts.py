"""What dyetrace's own files are, so that none of them is taken for a suspect's text or for answers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from detect.records.reading import FORMS
from watermark.errors import DyetraceError
from watermark.ledger_file import is_ledger

_LARGEST = 64 << 20  # bytes of a report; a larger file is taken for what it is said to be
_KEY = re.compile(rb"\s*(dyetrace-key-|-----BEGIN [A-Z ]*KEY-----|[0-9a-fA-F]{64}\s*\Z)")
_FORMATS = {
    **{form.format: f"the report of {form.name}" for form in FORMS},
    "dyetrace-report-signature": "a report's signature",
    "dyetrace-plan": "a plan",
    "dyetrace-partial-output": "the settings of an unfinished output",
}
# What has no "format" is known by fields that stand together nowhere else.
_FIELDS = {
    "a watermark spec": {"scheme", "vocabulary_size", "key_fingerprint"},
    "a commitment": {"sha256", "spec_id", "key_fingerprint", "created"},
    "a commitment's opening": {"sha256", "salt", "version"},
}


def artefact(path: str | Path) -> str | None:
    """What a file is if it is one of dyetrace's own: "a key", "a plan"; None for any other, and for answers."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            if _KEY.match(head):
                return "a key"
            if is_ledger(Path(path)):
                return "a ledger"
            if not head.lstrip().startswith(b"{") or os.fstat(file.fileno()).st_size > _LARGEST:
                return None
            return _of_json(head + file.read())
    except OSError:
        return None  # whoever reads it says why it can't be read


def _of_json(data: bytes) -> str | None:
    try:
        found: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # JSONL of several lines among them
    if not isinstance(found, dict):
        return None
    if isinstance(form := found.get("format"), str) and form in _FORMATS:
        return _FORMATS[form]
    return next((name for name, fields in _FIELDS.items() if fields <= found.keys()), None)


def check_text(path: str | Path, option: str, *, ledger: bool = False) -> None:
    """Refuse a file of dyetrace's own where text or answers are to be read.

    Parameters
    ----------
    path
        The file; standard input ("-") is not looked at.
    option
        What named it, for the message.
    ledger
        Whether a ledger serves as well.

    Raises
    ------
    DyetraceError
        It is a key, a spec, a plan, a report or the like.
    """
    found = None if str(path) == "-" else artefact(path)
    if found is not None and not (ledger and found == "a ledger"):
        raise DyetraceError(f"{option} {path} is {found} and no text to read; give the file that was meant")
