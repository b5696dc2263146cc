"""Archives (tar, WebDataset): a record for each group of members of one name, or for each line of its JSONL members.

Members are read as they go by; nothing is written to disk.
"""

from __future__ import annotations

import io
import mimetypes
import posixpath
import tarfile
from collections.abc import Iterator
from typing import IO, Any, BinaryIO, cast

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
from detect.readers.passed import Passed
from detect.readers.records import Item
from detect.readers.start import first_items, lost
from detect.readers.stream import BOM, compression_of, damage_of, decompressed, opened

_CHUNK = 1 << 16
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz")
_LINES = (".jsonl", ".ndjson", ".jsonlines")
_TEXTS = ("", ".txt", ".text")
_PACKED = frozenset({".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather", ".ipc", ".tar", ".tgz", ".warc", ".wet"})
"""What is read as a file, and not inside of an archive."""
_NUMBERS = frozenset({".npy", ".npz", ".pth", ".pt", ".pyd", ".pickle", ".pkl", ".safetensors", ".ten", ".tb", ".bin"})
_NO_TEXT = frozenset({"image", "audio", "video", "font"})


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
    count, filled, damage = 0, 0, ""
    block: list[Item] = []
    with opened(path, compression) as stream:
        try:
            for item, length in _records(stream, passed):
                block.append(item)
                filled += length
                if filled >= size:
                    yield block
                    count += len(block)
                    block, filled = [], 0
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            damage = one_line(error)
        damage = damage_of(stream) or damage
    count += len(block)
    if block:
        yield block
    if damage:
        raise lost(damage, count)


class _Damaged(OSError):
    """A header can't be read."""


class _Header(tarfile.TarInfo):
    """A header of which a damaged one ends the archive aloud; the library takes some of these for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:
        try:
            header = super().fromtarfile(tarfile)
        except _ENDS:
            tarfile.finished = True
            raise
        except _BREAKS as error:
            raise _Damaged(f"a header is damaged: {one_line(error)}") from None
        tarfile.finished = False
        return header


# Kept by the library since Python 3.3, and named in no manual.
_ENDS = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_BREAKS = (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError)  # type: ignore[attr-defined]


class _Tar(tarfile.TarFile):
    """An archive that knows whether its end mark was seen."""

    tarinfo = _Header
    finished = False


def _members(stream: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Members, also of archives behind one another, with their contents, each to be read before the next one.

    Raises
    ------
    OSError
        The archive is damaged, or ends without an end mark.
    """
    with _Tar.open(fileobj=stream, mode="r|", ignore_zeros=True, encoding="utf-8", errors="replace") as archive:
        for member in archive:
            yield member, archive.extractfile(member) if member.isreg() else None
            archive.members = []  # type: ignore[attr-defined]  # which would grow with the archive
        if not archive.finished:
            raise OSError("it ends without an end mark, as if cut short")


def _records(stream: BinaryIO, passed: Passed) -> Iterator[tuple[Item, int]]:
    """Records and their sizes, each as soon as its last member has gone by."""
    sample: dict[str, Any] = {}
    at, name, size = "", "", 0
    members = _members(stream)
    while True:
        try:
            member, content = next(members, (None, None))
        except (tarfile.TarError, OSError, EOFError, ValueError):
            if sample:  # which may lack members that came later
                yield _record(sample, name), size
            raise
        if member is None:
            break
        path = posixpath.normpath(member.name)
        base = posixpath.basename(path)
        if member.isdir() or base.startswith("."):
            continue
        if content is None:
            passed.add("member that is a link" if member.islnk() or member.issym() else "member that is no file", 0)
            continue
        bare = path.removesuffix(next(filter(path.lower().endswith, _COMPRESSED), ""))
        bare, ending = posixpath.splitext(bare)
        ending = ending.lower()
        field = "text" if ending in _TEXTS else ending.lstrip(".")
        group = posixpath.join(posixpath.dirname(path), base.partition(".")[0])
        if sample and (group != at or field in sample):
            yield _record(sample, name), size
            sample, size = {}, 0
        at = group
        if ending in _LINES:
            for line in _lines(content):
                yield line, len(line) if isinstance(line, bytes) else 0
            continue
        if _holds_no_text(ending):
            passed.add(f"member {one_line(ending)}", member.size)
            continue
        try:
            data = _content(content)
            found = _parsed(data, ending)
        except Broken as error:
            yield Broken(f"{error.reason} (member {one_line(member.name)[:100]})"), 0
            continue
        if ending == ".json" and isinstance(found, list):
            for number, record in enumerate(_each(found), 1):
                yield {"id": f"{bare}#{number}"} | record, len(data) // max(1, len(found))
            continue
        name = name if sample else bare
        sample[field] = found
        size += len(data)
    if sample:
        yield _record(sample, name), size


def _record(sample: dict[str, Any], name: str) -> dict[str, Any]:
    """A sample as one record: its texts by their endings, and the fields of its JSON object beside them."""
    record = {field: value for field, value in sample.items() if field != "json"}
    described = sample.get("json")
    if isinstance(described, dict) and not set(described) & set(record):
        record |= described
    elif "json" in sample:
        record["json"] = described
    return record if record.get("id") else record | {"id": name}


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
    return kind in _NO_TEXT or ending in _NUMBERS


def _content(file: IO[bytes]) -> bytes:
    """A member's bytes, decompressed.

    Raises
    ------
    Broken
        They are too long or damaged.
    """
    data = file.read(MAX_DOCUMENT + 1)
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


def _lines(file: IO[bytes]) -> Iterator[Item]:
    """Lines of a JSONL member, decompressed."""
    whole = io.BufferedReader(cast(Any, file), _CHUNK)
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
