"""Items of a container: the first ones, from which its fields are chosen, and blocks of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from detect.readers import records
from detect.readers.batch import Broken, one_line
from detect.readers.records import Item
from detect.readers.stream import damage_of

_REST = "and all that follows cannot be read: "


_MOST = 1 << 14  # items in a block


class Damaged(OSError):
    """Why a container can't be read any further."""


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


def blocks_of(found: Iterator[tuple[Item, int]], stream: BinaryIO, size: int) -> Iterator[list[Item]]:
    """Items in blocks of about so many bytes.

    Parameters
    ----------
    found
        Items of the stream with their lengths; it may raise `Damaged`.

    Raises
    ------
    Broken
        The rest can't be read; ``record`` is the number of the first item of it.
    """
    count, filled, damage = 0, 0, ""
    block: list[Item] = []
    try:
        for item, length in found:
            block.append(item)
            filled += length
            if filled >= size or len(block) >= _MOST:
                yield block
                count += len(block)
                block, filled = [], 0
    except Damaged as error:
        damage = one_line(error)
    damage = damage_of(stream) or damage
    count += len(block)
    if block:
        yield block
    if damage:
        raise lost(damage, count)
