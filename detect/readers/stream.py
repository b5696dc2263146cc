"""Bytes of files: unchanged since they were found, decompressed, hashed, cut into blocks of whole lines."""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from detect.readers.batch import BATCH_BYTES, MAX_DOCUMENT, Broken, Piece, Source, one_line
from watermark.errors import DyetraceError, MachineError

_CHUNK = 1 << 14  # decompressed at a time; so much at most is lost before the place where a file is damaged
_LEAST = 1 << 10  # of a zstd file given to a decompressor that can't be asked for less than all of it: 32 MB at most
_ZSTD_WINDOW, ZSTD_LONGEST = 1 << 27, 1 << 31  # what every decompressor allows, and what zstandard can be asked for
_XZ_MEMORY = 512 << 20
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LZMA = tuple(
    bytes(pair)
    for pair in ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (32, 0), (64, 0), (128, 0), (0, 1), (0, 2), (0, 4))
)
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


class _Members:
    """Bytes of a file of several members; the standard library takes damage after a member for the end of the file.

    Parameters
    ----------
    file
        The compressed bytes.
    new
        Makes a decompressor with the interface of `bz2.BZ2Decompressor`.
    padding
        What may stand between members.
    """

    def __init__(self, file: BinaryIO, new: Callable[[], Any], padding: bytes = b"") -> None:
        self._file = file
        self._new = new
        self._padding = padding
        self._member = new()

    def read(self, size: int) -> bytes:
        while True:
            fresh = b""
            if self._member.eof:
                fresh = (self._member.unused_data or self._file.read(_CHUNK)).lstrip(self._padding)
                while not fresh and (more := self._file.read(_CHUNK)):
                    fresh = more.lstrip(self._padding)
                if not fresh:
                    return b""
                self._member = self._new()
            elif self._member.needs_input:
                fresh = self._file.read(_CHUNK)
                if not fresh:
                    raise EOFError("the file ends before its end mark")
            if data := self._member.decompress(fresh, size):
                return bytes(data)

    def close(self) -> None:
        self._file.close()


class _Gzip:
    """A member of a gzip file, with the interface of `bz2.BZ2Decompressor`: web archives have a member a record."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, size: int) -> bytes:
        found = self._member.decompress(self._member.unconsumed_tail + data, size)
        self.needs_input = not self._member.unconsumed_tail and len(found) < size
        return found


class _LongZstd:
    """Bytes of a zstd file with a long window, which pyarrow refuses. Memory: the window, up to 2 GiB, or the text."""

    def __init__(self, file: BinaryIO, package: Any) -> None:
        self._file = file
        self._decompressor = package.ZstdDecompressor(max_window_size=ZSTD_LONGEST)
        self._error = package.ZstdError
        self._frame = self._decompressor.decompressobj()
        self._fresh = b""
        self._inside = True
        self._ready = io.BytesIO()

    def read1(self, size: int) -> bytes:
        while not (data := self._ready.read(size)):
            if self._frame.eof:
                self._fresh = self._frame.unused_data + self._fresh
                self._frame, self._inside = self._decompressor.decompressobj(), False
            fresh, self._fresh = self._fresh[:_LEAST], self._fresh[_LEAST:]
            fresh = fresh or self._file.read(_LEAST)
            if not fresh:
                if self._inside:
                    raise EOFError("the file ends before its end mark")
                return b""
            self._inside = True
            try:
                self._ready = io.BytesIO(self._frame.decompress(fresh))
            except self._error as error:
                raise OSError(one_line(error)) from None
        return data

    def read(self, size: int) -> bytes:
        return self.read1(size)

    def close(self) -> None:
        self._file.close()


def _zstd_window(head: bytes) -> int:
    """The window that the first frame asks for, in bytes; 0 where it can't be seen."""
    if not head.startswith(ZSTD_MAGIC) or len(head) < 14:
        return 0
    described = head[4]
    if not described & 0x20:  # not a single segment, whose window is its content
        base = 1 << (10 + (head[5] >> 3))
        return base + base // 8 * (head[5] & 7)
    start = 5 + (0, 1, 2, 4)[described & 3]
    size = (1, 2, 4, 8)[described >> 6]
    return int.from_bytes(head[start : start + size], "little")


def _zstd(file: io.BufferedReader[Any]) -> Any:
    """The bytes of a zstd file."""
    window = _zstd_window(file.peek(32))
    if window <= _ZSTD_WINDOW:
        pyarrow = arrow("zstd")
        return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd")
    if window > ZSTD_LONGEST:
        raise Broken(f"asks for {window >> 20:,} MiB of memory to be decompressed; give it a smaller window")
    try:
        import zstandard
    except ImportError:
        raise MachineError(
            f"zstd with a window of {window >> 20:,} MiB needs zstandard: pip install 'dyetrace[scan]'"
        ) from None
    return _LongZstd(file, zstandard)


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
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            self.damage = _said(error)
            return 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def opened(path: str, compression: str) -> Iterator[io.BufferedReader]:
    """The bytes of a file, decompressed.

    Raises
    ------
    Broken
        It cannot be opened.
    """
    try:
        file = open(path, "rb")
    except OSError as error:
        raise Broken(f"cannot be opened: {one_line(error.strerror or error)}") from None
    with file, decompressed(file, compression) as stream:
        yield stream


def decompressed(file: io.BufferedReader[Any], compression: str) -> io.BufferedReader:
    """The bytes of an open file, decompressed.

    Raises
    ------
    Broken
        It needs more memory than is given to it.
    MachineError
        A package is missing.
    """
    if not compression:
        return file
    try:
        stream = _OPEN[compression](file)
    except OSError as error:
        raise Broken(f"cannot be opened: {one_line(error.strerror or error)}") from None
    return io.BufferedReader(_Decompressed(stream), BATCH_BYTES)


_OPEN: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda file: _Members(file, _Gzip, b"\0"),
    "bz2": lambda file: _Members(file, bz2.BZ2Decompressor),
    "xz": lambda file: _Members(file, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), b"\0"),
    "zstd": _zstd,
}


def compression_of(magic: bytes) -> str:
    """What a file is compressed with, by its first bytes; "" where it isn't."""
    if magic.startswith(b"\x1f\x8b"):
        return "gzip"
    if magic.startswith(ZSTD_MAGIC) or (magic[1:4] == b"\x2a\x4d\x18" and magic[:1] in b"PQRSTUVWXYZ[\\]^_"):
        return "zstd"
    # .xz; and the older .lzma, which has no mark of its own: default properties, a power of two, a length or none
    if magic.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")) and (magic[:1] == b"\xfd" or magic[3:5] in _LZMA):
        return "xz"
    # A block, or the end of a stream without any.
    return "bz2" if magic.startswith(b"BZh") and magic[4:10] in (b"1AY&SY", b"\x17rE8P\x90") else ""


def _said(error: Exception) -> str:
    said = one_line(error)
    if "too much memory" in said or "larger than maximum" in said:
        return f"{said} (it has a long window: decompress it first, with zstd's own option for long windows)"
    if isinstance(error, lzma.LZMAError) and "limit" in said:
        return f"it needs more than {_XZ_MEMORY >> 20} MiB of memory (decompress it with xz -d)"
    return said


def begin(stream: io.BufferedReader) -> bytes:
    """Go past a byte order mark; returns some of the bytes that follow, which stay to be read."""
    head = stream.peek(len(BOM))
    if head.startswith(BOM):
        stream.read(len(BOM))
        head = stream.peek(1)
    return head


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
