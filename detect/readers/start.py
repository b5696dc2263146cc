"""The first items of a container, from which its fields are chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detect.readers import records
from detect.readers.batch import Broken
from detect.readers.records import Item

_REST = "and all that follows cannot be read: "


def lost(damage: str, record: int) -> Broken:
    """Say that nothing can be read from a record on."""
    return Broken(f"{_REST}{damage}; get the file again", record)


def first_items(blocks: Iterator[Sequence[Item]]) -> list[Item]:
    """As many items as are looked at; fewer where the rest can't be read.

    Raises
    ------
    Broken
        There is none that can be.
    """
    found: list[Item] = []
    size = 0
    try:
        for block in blocks:
            found += block
            size += sum(len(item) if isinstance(item, bytes) else 0 for item in block)
            if len(found) >= records.SAMPLE_ITEMS or size > records.SAMPLE_BYTES:
                break
    except Broken as error:
        if not found:
            raise Broken(error.reason.replace(_REST, "cannot be read: ")) from None
        found.append(error)
    return found[: records.SAMPLE_ITEMS]
