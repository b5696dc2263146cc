"""Bytes of files: unchanged since they were found, decompressed, hashed, cut into blocks of whole lines."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from detect.readers.batch import BATCH_BYTES, MAX_DOCUMENT, Broken, Piece, Source, one_line
from watermark.errors import DyetraceError, MachineError

_CHUNK = 1 << 14  # decompressed at a time; so much at most is lost before the place where a file is damaged
BOM = b"\xef\xbb\xbf"


def arrow(what: str) -> Any:
    """Import pyarrow, which plain files don't need."""
    try:
        import pyarrow
    except ImportError:
        raise MachineError(f"{what} needs pyarrow: pip install 'dyetrace[scan]'") from None
    return pyarrow


def check_unchanged(source: Source) -> None:
    """Refuse a file that isn't the one that was found.

    Raises
    ------
    DyetraceError
        It is gone, or its size or time of change differ.
    """
    try:
        now = os.stat(source.path)
    except OSError as error:
        raise DyetraceError(f"cannot read {one_line(source.name)}: {error.strerror}") from None
    if (now.st_size, now.st_mtime_ns) != (source.bytes, source.mtime_ns):
        raise DyetraceError(f"{one_line(source.name)} has changed since the scan began; start the scan again")


def sha256_of(source: Source) -> str:
    """SHA-256 of the file as it lies there.

    Raises
    ------
    DyetraceError
        It cannot be read, or has changed since it was found.
    """
    check_unchanged(source)
    try:
        with open(source.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DyetraceError(f"cannot read {one_line(source.name)}: {error.strerror}") from None
    check_unchanged(source)
    return digest


class _Bz2:
    """Bytes of a bz2 file. The standard library's reader takes damage after a member for the end of the file."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")
        self._member = bz2.BZ2Decompressor()

    def read(self, size: int) -> bytes:
        while True:
            fresh = b""
            if self._member.eof:
                fresh = self._member.unused_data or self._file.read(_CHUNK)
                if not fresh:
                    return b""
                self._member = bz2.BZ2Decompressor()
            elif self._member.needs_input:
                fresh = self._file.read(_CHUNK)
                if not fresh:
                    raise EOFError("the file ends before its end mark")
            if data := self._member.decompress(fresh, size):
                return data

    def close(self) -> None:
        self._file.close()


class _Decompressed(io.RawIOBase):
    """Decompressed bytes up to the end or to where the file is damaged; ``damage`` then says how."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._read = getattr(stream, "read1", stream.read)  # what there is before a damaged place, not all or nothing
        self.damage = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.damage:
            return 0
        try:
            data = self._read(min(len(buffer), _CHUNK))
        except (OSError, EOFError, zlib.error) as error:
            self.damage = one_line(error)
            return 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def opened(path: str, compression: str) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed.

    Raises
    ------
    Broken
        It cannot be opened.
    """
    try:
        if not compression:
            stream: Any = open(path, "rb")
        elif compression == "gzip":
            stream = io.BufferedReader(_Decompressed(gzip.open(path, "rb")), BATCH_BYTES)
        elif compression == "bz2":
            stream = io.BufferedReader(_Decompressed(_Bz2(path)), BATCH_BYTES)
        else:
            pyarrow = arrow(compression)
            raw = pyarrow.CompressedInputStream(pyarrow.OSFile(path, "rb"), compression)
            stream = io.BufferedReader(_Decompressed(raw), BATCH_BYTES)
    except OSError as error:
        raise Broken(f"cannot be opened: {one_line(error.strerror or error)}") from None
    with stream:
        yield stream


def damage_of(stream: BinaryIO) -> str:
    """Say why a stream ended early; "" where it didn't."""
    return getattr(getattr(stream, "raw", None), "damage", "")


def lines(path: str, compression: str, piece: Piece, block: int = BATCH_BYTES) -> Iterator[list[bytes]]:
    """Lists of the lines that start in ``piece``, without their "\\n"; a line longer than allowed is cut short.

    Raises
    ------
    Broken
        The rest can't be read; ``record`` is the number of the first line of it.
    """
    count = 0
    position, stop = (piece.start, piece.stop) if not compression else (0, sys.maxsize)
    with opened(path, compression) as stream:
        if position:
            # The line that the byte before the piece belongs to is another's.
            stream.seek(position - 1)
            position += _skip_line(stream) - 1
        while position < stop:
            data = stream.read(min(block, stop - position))
            position += len(data)
            if data and not data.endswith(b"\n"):
                tail = stream.readline(MAX_DOCUMENT + 1)
                data += tail
                position += len(tail)
            if position - len(data) == 0:
                data = data.removeprefix(BOM)
            damage = damage_of(stream)
            if not data and not damage:
                break
            found = data.split(b"\n")
            if data.endswith(b"\n") or damage:
                found.pop()  # after the last "\n": nothing, or a line that is not whole
            elif len(found[-1]) > MAX_DOCUMENT:
                position += _skip_line(stream)
            count += len(found)
            yield found
            if damage:
                raise Broken(f"and all that follows cannot be read: {damage}; get the file again", count)
    if not compression and position < stop:
        raise DyetraceError(f"{one_line(path)} has become shorter while it was read; start the scan again")


def _skip_line(stream: BinaryIO) -> int:
    """Read to the end of the line and return the number of bytes."""
    length = 0
    while data := stream.readline(BATCH_BYTES):
        length += len(data)
        if data.endswith(b"\n"):
            break
    return length


def newlines_before(path: str, position: int) -> int:
    """Count the lines that end before a place in a file."""
    count = 0
    with open(path, "rb") as file:
        while position > 0 and (data := file.read(min(BATCH_BYTES, position))):
            count += data.count(b"\n")
            position -= len(data)
    return count
