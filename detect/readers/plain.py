"""Plain text: a file is one document."""

from __future__ import annotations

from collections.abc import Iterator

from detect.readers.batch import MAX_DOCUMENT, Batch, Broken, Draft, Piece, ReadOptions, Source
from detect.readers.stream import BOM, damage_of, opened


def read(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Batch]:
    """The whole file; one that is cut short or not UTF-8 is broken."""
    if piece.start > 0 or piece.stop < 1:
        return
    draft = Draft(source.kind, options.skip_errors)
    try:
        draft.add(0, text_of(source), None)
    except Broken as error:
        draft.skip(0, error.reason)
    yield draft.batch(1)


def text_of(source: Source) -> str:
    """What the file says.

    Raises
    ------
    Broken
        It is cut short, too long for one document, or not UTF-8.
    """
    with opened(source.path, source.compression) as stream:
        data = stream.read(MAX_DOCUMENT + 1)
        damage = damage_of(stream)
    if damage:
        raise Broken(f"cannot be read to its end: {damage}; get the file again")
    if len(data) > MAX_DOCUMENT:
        raise Broken(f"is longer than {MAX_DOCUMENT >> 20} MiB, too long for one document; cut it into several")
    try:
        return data.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        raise Broken(f"is not UTF-8 text (byte {error.start + 1}); convert it first") from None
