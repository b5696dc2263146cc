"""What a verdict assumes: one sentence each, and whether this run checked it. Every report ends with them.

A p-value is right about the key's randomness and silent about how the evidence was gathered. `docs/validity.md` says
why each of these sentences is needed; a report says which of them it looked at itself.
"""

from __future__ import annotations

import msgspec

CHECKED, NOT_CHECKED = "checked here", "not checked here"


class Assumption(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sentence that must be true for the verdict to hold.

    Attributes
    ----------
    says
        The assumption, a whole sentence in plain ASCII.
    checked
        Whether this run looked at it.
    how
        A whole sentence: what was looked at and found, or who can check it and how.
    """

    says: str
    checked: bool
    how: str

    @property
    def status(self) -> str:
        """`CHECKED` or `NOT_CHECKED`."""
        return CHECKED if self.checked else NOT_CHECKED
