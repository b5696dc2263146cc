"""Other systems' keys: how their configurations spell them, and how decoys are drawn. No message shows any of a key."""

from __future__ import annotations

import hashlib
import re

from watermark.errors import DyetraceError


def decimal_key(text: str, system: str, largest: int) -> int:
    """A key spelt as a decimal number in 0 .. largest; DyetraceError otherwise."""
    digits = text.strip()
    if not re.fullmatch(r"[0-9]{1,40}", digits) or int(digits) > largest:
        raise DyetraceError(f"a key of {system} is a decimal number from 0 to {largest}; this one is not (not shown)")
    return int(digits)


def hex_key(text: str, system: str) -> int:
    """A 64-bit key spelt as 1 to 16 hex digits, with or without 0x; DyetraceError otherwise."""
    match = re.fullmatch(r"(?:0[xX])?([0-9a-fA-F]{1,16})", text.strip())
    if match is None:
        raise DyetraceError(f"a key of {system} is 1 to 16 hex digits, 0x before them if you like (not shown)")
    return int(match[1], 16)


def several(text: str) -> list[str]:
    """The parts of a list of keys: separated by commas, in brackets or not."""
    return text.strip().removeprefix("[").removesuffix("]").split(",")


def drawn(seed: bytes, purpose: str, bits: int, number: int = 0) -> int:
    """A uniform number of ``bits`` bits (at most 64) derived from a seed, another one for each ``number``."""
    person = purpose.encode()[:16]
    digest = hashlib.blake2b(seed + number.to_bytes(4, "little"), digest_size=8, person=person).digest()
    return int.from_bytes(digest, "little") >> (64 - bits)
