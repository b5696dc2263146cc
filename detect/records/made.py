"""When, with which code and by whom a report was made. No number and no choice depends on any of it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from detect.records.code_hash import code_sha256
from detect.records.written import clean
from watermark.errors import DyetraceError

LONGEST = 200
"""Characters of an examiner's name, and of a case."""


class Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who made a report, and with which code.

    Attributes
    ----------
    code_sha256
        Of dyetrace's own code (`detect.records.code_hash` has the rule).
    examiner, case
        As --examiner and --case say; null where nobody said. Nothing shows that they are true but a signature.
    """

    code_sha256: str
    examiner: str | None = None
    case: str | None = None


def made_by(examiner: str | None = None, case: str | None = None) -> Made:
    """What a report that is made now says of it.

    Raises
    ------
    DyetraceError
        A name or a case that nobody could read (see `label`).
    """
    return Made(
        code_sha256=code_sha256(),
        examiner=None if examiner is None else label(examiner, "--examiner"),
        case=None if case is None else label(case, "--case"),
    )


def now() -> str:
    """The present moment in UTC, to the second, as ISO 8601 writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def label(text: str, option: str) -> str:
    """One line of plain text, without space around it.

    Raises
    ------
    DyetraceError
        It is empty, too long, or holds characters that can't be seen.
    """
    found = text.strip()
    if not found:
        raise DyetraceError(f"{option} is empty: give a line of text, or leave it out")
    if len(found) > LONGEST:
        raise DyetraceError(f"{option} may have {LONGEST} characters (got {len(found):,}): give a shorter line")
    if clean(found) != found:
        raise DyetraceError(
            f"{option} must be one line of plain text (got {clean(found, 60)}): leave out control characters and "
            "others that can't be seen"
        )
    return found
