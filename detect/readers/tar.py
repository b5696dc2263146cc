"""Archives (tar, WebDataset): a record for each group of members of one name, or for each line of its JSONL members.

Members are read as they go by; nothing is written to disk.
"""

from __future__ import annotations

import io
import mimetypes
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

from detect.readers import records
from detect.readers.batch import (
    BATCH_BYTES,
    MAX_DOCUMENT,
    Batch,
    Broken,
    Inspected,
    Piece,
    ReadOptions,
    Source,
    one_line,
)
from detect.readers.passed import NO_TEXT, Passed
from detect.readers.records import Item
from detect.readers.start import Damaged, blocks_of, first_items
from detect.readers.stream import BOM, compression_of, damage_of, decompressed, opened

_BLOCK, _CHUNK = 512, 1 << 16
_PAX = re.compile(rb"(\d{1,9}) ([^=]+)=")
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz")
_LINES = (".jsonl", ".ndjson", ".jsonlines")
_TEXTS = ("", ".txt", ".text")
_PACKED = frozenset({".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather", ".ipc", ".tar", ".tgz", ".warc", ".wet"})
"""What is read as a file, and not inside of an archive."""
_NUMBERS = frozenset({".npy", ".npz", ".pth", ".pt", ".pyd", ".pickle", ".pkl", ".safetensors", ".ten", ".tb", ".bin"})


def inspect(path: str, compression: str, options: ReadOptions) -> Inspected:
    """Columns and id column of an archive, from its first records.

    Raises
    ------
    Broken
        None of them is a record, or no field fits.
    """
    return records.inspect(first_items(items(path, compression, Passed(), records.SAMPLE_BYTES)), options)


def read(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Batch]:
    """Batches of an archive: one for each few MB."""
    if piece.start > 0:
        return
    passed = Passed()
    yield from passed.on(records.read(items(source.path, source.compression, passed), source, options), source)


def items(path: str, compression: str, passed: Passed, size: int = BATCH_BYTES) -> Iterator[list[Item]]:
    """Records in blocks.

    Raises
    ------
    Broken
        The rest can't be read; ``record`` is the number of the first record of it.
    """
    with opened(path, compression) as stream:
        yield from blocks_of(_records(stream, passed), stream, size)


class _Content(io.RawIOBase):
    """What is left of a member's content.

    Raises
    ------
    Damaged
        By all that reads: the archive ends within the member.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._padding = -size % _BLOCK
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def take(self, most: int) -> bytes:
        """The next bytes, so many at most."""
        wanted = min(most, self._left)
        data = self._stream.read(wanted)
        if len(data) < wanted:
            raise Damaged("it ends within a member")
        self._left -= wanted
        return data

    def skip(self) -> None:
        """Go on to the next header."""
        self._left += self._padding
        while self._left:
            self.take(_CHUNK)


@dataclass(frozen=True)
class _Member:
    """A member's name (as written, "/" between folders), type (one byte) and size."""

    name: str
    kind: bytes
    size: int

    @property
    def is_file(self) -> bool:
        return self.kind in (b"0", b"\0", b"7") and not self.name.endswith("/")


def _members(stream: BinaryIO) -> Iterator[tuple[_Member, _Content]]:
    """Members, also of archives behind one another, with their contents, each to be read before the next one.

    Raises
    ------
    Damaged
        The archive is damaged, or ends without an end mark.
    """
    ended, long, more = False, "", {}
    while header := stream.read(_BLOCK):
        if not header.strip(b"\0"):
            ended = ended or len(header) == _BLOCK
            continue
        ended = False
        member = _header(header)
        while member.kind == b"S" and header[482:483] == b"\1" and len(header) == _BLOCK:
            header = stream.read(_BLOCK)  # the holes of a sparse file go on
            header = header[:482] + header[504:505] + header[483:]
        content = _Content(stream, member.size)
        if member.kind in (b"x", b"L", b"g", b"K"):
            if member.size > _CHUNK * 16:
                raise Damaged("a name is too long")
            told = content.take(member.size)
            content.skip()
            if member.kind == b"x":
                more = _extended(told)
            elif member.kind == b"L":
                long = told.rstrip(b"\0").decode(errors="replace")
            continue
        size = more.get("size", "")
        if size.isdecimal() and int(size) != member.size:
            member = replace(member, size=int(size))
            content = _Content(stream, member.size)
        member = replace(member, name=more.get("path") or long or member.name)
        if any(name.startswith("GNU.sparse") for name in more):
            member = replace(member, kind=b"S")
        yield member, content
        content.skip()
        long, more = "", {}
    if not ended:
        raise Damaged("it ends without an end mark, as if cut short")


def _header(header: bytes) -> _Member:
    """A block that describes a member.

    Raises
    ------
    Damaged
        It does not.
    """
    if len(header) < _BLOCK:
        raise Damaged("it ends within a header")
    if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 256:
        raise Damaged("a header is damaged")
    name = header[:100].partition(b"\0")[0]
    folder = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    whole = folder + b"/" + name if folder else name
    return _Member(whole.decode(errors="replace"), header[156:157], _number(header[124:136]))


def _number(field: bytes) -> int:
    """A number in octal digits, or in bytes.

    Raises
    ------
    Damaged
        It is none.
    """
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise Damaged("a header is damaged") from None


def _extended(data: bytes) -> dict[str, str]:
    """What a pax header says of the member behind it: lines of a length, a name and a value."""
    found = {}
    while match := _PAX.match(data):
        end = int(match[1])
        found[match[2].decode(errors="replace")] = data[match.end() : end - 1].decode(errors="replace")
        if end <= match.end() or end > len(data):
            break
        data = data[end:]
    return found


def _records(stream: BinaryIO, passed: Passed) -> Iterator[tuple[Item, int]]:
    """Records and their sizes, each as soon as its last member has gone by."""
    sample: dict[str, Any] = {}
    at, name, size = "", "", 0
    members = _members(stream)
    while True:
        try:
            member, content = next(members, (None, None))
        except Damaged:
            if sample:  # which may lack members that came later
                yield _record(sample, name), size
            raise
        if member is None or content is None:
            break
        path = posixpath.normpath(member.name)
        base = posixpath.basename(path)
        if member.kind == b"5" or member.name.endswith("/") or base.startswith("."):
            continue
        if not member.is_file:
            passed.add("member that is a link" if member.kind in (b"1", b"2") else "member that is no file", 0)
            continue
        bare, ending = posixpath.splitext(path[: _stem(path)])
        ending = ending.lower()
        field = "text" if ending in _TEXTS else ending.lstrip(".")
        group = posixpath.join(posixpath.dirname(path), base.partition(".")[0])
        if sample and (group != at or field in sample):
            yield _record(sample, name), size
            sample, size = {}, 0
        at = group
        if ending in _LINES:
            for line in _lines(content):
                yield _in_member(line, member.name), len(line) if isinstance(line, bytes) else 0
            continue
        if _holds_no_text(ending):
            passed.add(f"member {one_line(ending)}", member.size)
            continue
        try:
            data = _content(content)
            found = _parsed(data, ending)
        except Broken as error:
            yield _in_member(error, member.name), 0
            continue
        except Damaged:
            if sample:
                yield _record(sample, name), size
            raise
        if ending == ".json" and isinstance(found, list):
            for number, record in enumerate(_each(found), 1):
                yield {"id": f"{bare}#{number}"} | record, len(data) // max(1, len(found))
            continue
        name = name if sample else bare
        sample[field] = found
        size += len(data)
    if sample:
        yield _record(sample, name), size


def _stem(path: str) -> int:
    """Where the ending of a compressed file begins in a name, or its end."""
    return len(path) - len(next((ending for ending in _COMPRESSED if path.lower().endswith(ending)), ""))


def _in_member(item: Item, name: str) -> Item:
    return Broken(f"{item.reason} (member {one_line(name)[:100]})") if isinstance(item, Broken) else item


def _record(sample: dict[str, Any], name: str) -> dict[str, Any]:
    """A sample as one record: its texts by their endings, and the fields of its JSON object beside them."""
    record = {field: value for field, value in sample.items() if field != "json"}
    described = sample.get("json")
    if isinstance(described, dict) and not set(described) & set(record):
        record |= described
    elif "json" in sample:
        record["json"] = described
    return record if record.get("id") not in (None, "") else record | {"id": name}


def _each(found: list[Any]) -> Iterator[dict[str, Any]]:
    """Records of a JSON list, which may be one chat."""
    if found and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in found):
        yield {"messages": found}
        return
    for value in found:
        if isinstance(value, dict):
            yield value
        else:
            yield {"messages" if isinstance(value, list) else "text": value}


def _holds_no_text(ending: str) -> bool:
    """Whether members of this ending are pictures, sounds or numbers."""
    kind = (mimetypes.guess_type(f"x{ending}")[0] or "").partition("/")[0]
    return kind in NO_TEXT or ending in _NUMBERS


def _content(file: _Content) -> bytes:
    """A member's bytes, decompressed.

    Raises
    ------
    Broken
        They are too long or damaged.
    """
    data = file.take(MAX_DOCUMENT + 1)
    if (compression := compression_of(data[:16])) and len(data) <= MAX_DOCUMENT:
        with decompressed(io.BufferedReader(cast(Any, io.BytesIO(data))), compression) as stream:
            data = stream.read(MAX_DOCUMENT + 1)
            if damage := damage_of(stream):
                raise Broken(f"cannot be decompressed: {damage}")
    if len(data) > MAX_DOCUMENT:
        raise Broken(f"is longer than {MAX_DOCUMENT >> 20} MiB")
    return data.removeprefix(BOM)


def _parsed(data: bytes, ending: str) -> Any:
    """Text or JSON of a member.

    Raises
    ------
    Broken
        It is neither.
    """
    if ending in _PACKED:
        raise Broken(f"is a {ending} file inside of an archive; unpack the archive first")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Broken(f"is not UTF-8 text (byte {error.start + 1})") from None
    if "\0" in text:
        raise Broken("is no text")
    return _value(data) if ending == ".json" else text


def _value(data: bytes) -> Any:
    """What a member's JSON says.

    Raises
    ------
    Broken
        It is no JSON.
    """
    found = records.parsed(b'{"json":' + data + b"}")
    return None if found is None else found["json"]


def _lines(file: _Content) -> Iterator[Item]:
    """Lines of a JSONL member, decompressed."""
    whole = io.BufferedReader(file, _CHUNK)
    with decompressed(whole, compression_of(whole.peek(16)[:16])) as stream:
        first = True
        while line := stream.readline(MAX_DOCUMENT + 1):
            if not line.endswith(b"\n") and damage_of(stream):
                break
            yield line.removeprefix(BOM) if first else line  # too long ones are cut short, and so refused
            first = False
            while line and not line.endswith(b"\n"):
                line = stream.readline(_CHUNK)
        if damage := damage_of(stream):
            yield Broken(f"and the lines after it cannot be decompressed: {damage}")
