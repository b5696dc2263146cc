"""Names of keys under test, as they stand on record: "global", "tenant:NAME", and with several specs one of these
behind what names the spec: "epoch 2 tenant:NAME".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TENANT = "tenant:"
"""Before an account's name in its key's."""
_WRITTEN = re.compile(rf"(?:(.*?) )??(?:global|{TENANT}(\S.*))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class KeyName:
    """Which key it is; `str` writes it as records do.

    Attributes
    ----------
    tenant
        The account; None for the global key.
    of_spec
        What names the spec where several are tested; "" where there is one.
    """

    tenant: str | None = None
    of_spec: str = ""

    @classmethod
    def read(cls, written: str) -> KeyName:
        """The key of a name on record; what is no such name (`is_key_name`) is taken for an account's."""
        match = _WRITTEN.fullmatch(written)
        return cls(written) if match is None else cls(match[2], (match[1] or "").strip())

    def __str__(self) -> str:
        own = "global" if self.tenant is None else TENANT + self.tenant
        return f"{self.of_spec} {own}" if self.of_spec else own

    @property
    def is_global(self) -> bool:
        """Whether it is the global key, which marks the contexts that accounts' keys don't (`detect.keyed.owners`)."""
        return self.tenant is None


GLOBAL = KeyName()


def is_key_name(written: str) -> bool:
    """Whether a name on record is that of a key."""
    return _WRITTEN.fullmatch(written) is not None
