"""Web archives (WARC, WET): a document for each record that holds a page or its text, with its address as its id."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

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
from detect.readers.stream import opened
from watermark.errors import MachineError

_ABOUT = frozenset({"warcinfo", "request", "metadata", "revisit"})
"""Types of records that are about pages, and hold none."""
_WANTED = frozenset(
    b"warc-type warc-target-uri warc-record-id warc-segment-number content-length content-type content-encoding "
    b"transfer-encoding".split()
)
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXTUAL = ("json", "xml", "javascript", "yaml")  # ends of types beside text/... that are text
_INSPECTED = Inspected((("text", "text"),), "id")
_LINE, _HEADERS = 1 << 16, 1 << 20
_CHUNK = 1 << 20


def inspect(path: str, compression: str, options: ReadOptions) -> Inspected:
    """Columns and id column, which all web archives have.

    Raises
    ------
    Broken
        Its first record can't be read.
    """
    first_items(items(path, compression, Passed(), records.SAMPLE_BYTES))
    return _INSPECTED


def read(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Batch]:
    """Batches of an archive: one for each few MB of text."""
    if piece.start > 0:
        return
    passed = Passed()
    yield from passed.on(records.read(items(source.path, source.compression, passed), source, options), source)


def items(path: str, compression: str, passed: Passed, size: int = BATCH_BYTES) -> Iterator[list[Item]]:
    """Records in blocks; those without a document stand as blank ones.

    Raises
    ------
    Broken
        The rest can't be read; ``record`` is the number of the first record of it.
    """
    with opened(path, compression) as stream:
        yield from blocks_of(_records(stream, passed), stream, size)


def _records(stream: BinaryIO, passed: Passed) -> Iterator[tuple[Item, int]]:
    """Each record, and how long its text is."""
    while (headers := _headers(stream)) is not None:
        item = _item(headers, _content(stream, headers), passed)
        yield item, len(item["text"]) if isinstance(item, dict) else 0


def _headers(stream: BinaryIO) -> dict[bytes, str] | None:
    """The next record's headers, by their names in lower case; None at the end of the file.

    Raises
    ------
    Damaged
        There is no record.
    """
    line = b"\n"
    while line and not line.strip():
        line = stream.readline(_LINE)
    if not line:
        return None
    if not line.startswith(b"WARC/"):
        raise Damaged("there is no record where one should begin")
    return _fields(stream)


def _fields(stream: BinaryIO) -> dict[bytes, str]:
    """Those headers of a record or an answer that matter, up to the blank line behind them.

    Raises
    ------
    Damaged
        There is none.
    """
    found: dict[bytes, bytes] = {}
    name, size = b"", 0
    while (line := stream.readline(_LINE)) not in (b"\r\n", b"\n"):
        size += len(line)
        if size > _HEADERS:
            raise Damaged("a record has no end of headers")
        if not line.endswith(b"\n"):
            raise Damaged("it ends within a record's headers")
        if line[0] in b" \t":  # goes on from the line before
            if name in found:
                found[name] += line
            continue
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _WANTED:
            found[name] = value
    return {name: " ".join(value.decode(errors="replace").split()) for name, value in found.items()}


def _content(stream: BinaryIO, headers: dict[bytes, str]) -> bytes | None:
    """What the record holds; None where that is too long.

    Raises
    ------
    Damaged
        The file ends before it does.
    """
    said = headers.get(b"content-length", "")
    if not (said.isascii() and said.isdecimal()):
        raise Damaged("a record does not say how long it is")
    length = int(said)
    if length <= MAX_DOCUMENT:
        content: bytes | None = stream.read(length)
        left = length - len(content or b"")
    else:
        content, left = None, length
        while left and (chunk := stream.read(min(left, _CHUNK))):
            left -= len(chunk)
    if left:
        raise Damaged("it ends within a record")
    return content


def _item(headers: dict[bytes, str], content: bytes | None, passed: Passed) -> Item:
    """A record's document; blank where it has none."""
    kind = headers.get(b"warc-type", "").lower()
    if kind in _ABOUT:
        return b""
    if kind == "continuation" or headers.get(b"warc-segment-number", "1") != "1":
        return Broken("is a part of a longer record, which is not joined; join them first")
    if content is None:
        return Broken(f"is longer than {MAX_DOCUMENT >> 20} MiB")
    try:
        said = headers.get(b"content-type", "")
        if kind == "response" and said.replace(" ", "").lower().startswith("application/http"):
            said, content = _payload(content)
        media, _, parameters = said.partition(";")
        media = media.strip().lower()
        if media.partition("/")[0] in NO_TEXT:
            passed.add(one_line(media), len(content))
            return b""
        if not content:
            return b""  # a redirect, or nothing but headers
        text = _text(content, media, _charset(parameters))
    except Broken as error:
        return error
    return {"text": text, "id": (headers.get(b"warc-target-uri") or headers.get(b"warc-record-id", "")).strip("<>")}


def _payload(content: bytes) -> tuple[str, bytes]:
    """Type and bytes of what a server answered, as they were before they were packed for the way.

    Raises
    ------
    Broken
        It is no answer, or packed in an unknown way.
    """
    if b"\r\n\r\n" not in content and b"\n\n" not in content:
        content = content.rstrip() + b"\r\n\r\n"  # headers alone, whose end is the record's
    stream = io.BytesIO(content)
    try:
        if not stream.readline(_LINE).startswith(b"HTTP/"):
            raise Damaged("it begins in another way")
        headers = _fields(stream)
    except Damaged as error:
        raise Broken(f"holds no answer of a server: {one_line(error)}") from None
    said = headers.get(b"content-type", "")
    packed = headers.get(b"content-encoding", "").lower().removeprefix("x-").removeprefix("identity")
    chunked = "chunked" in headers.get(b"transfer-encoding", "").lower()
    if (not packed and not chunked) or said.partition("/")[0].lower() in NO_TEXT:
        return said, stream.read()
    if packed not in ("", "gzip", "deflate", "br"):
        raise Broken(f"is packed as {one_line(packed)}, which is not read")
    try:
        from warcio.bufferedreaders import ChunkedDataReader, DecompressingBufferedReader
    except ImportError:
        raise MachineError("what servers send in parts or packed needs warcio: pip install 'dyetrace[web]'") from None
    # Archives are allowed to hold what was packed unpacked, headers unchanged; the reader finds that out.
    kind = ChunkedDataReader if chunked else DecompressingBufferedReader
    reader = kind(stream, decomp_type=packed or None)
    found = bytearray()
    try:
        while len(found) <= MAX_DOCUMENT and (part := reader.read(_CHUNK)):
            found += part
    except Exception as error:
        raise Broken(f"cannot be unpacked: {one_line(error)}") from None
    if len(found) > MAX_DOCUMENT:
        raise Broken(f"is longer than {MAX_DOCUMENT >> 20} MiB")
    return said, bytes(found)


def _charset(parameters: str) -> str:
    named = (part.partition("=") for part in parameters.split(";"))
    return next((value.strip().strip("\"'") for name, _, value in named if name.strip().lower() == "charset"), "")


def _text(data: bytes, media: str, charset: str) -> str:
    """The text of a page or of a file that was served.

    Raises
    ------
    Broken
        It is none, or in an unknown encoding.
    """
    if media in _HTML or (not media and data.lstrip()[:5].lower() in (b"<html", b"<!doc")):
        return _of_html(data, charset)
    if media and not media.startswith("text/") and not media.endswith(_TEXTUAL):
        raise Broken(f"is {one_line(media)}, which is not read; convert it to text")
    try:
        return data.decode(charset or "utf-8")
    except (LookupError, UnicodeDecodeError):
        raise Broken(f"is not text in {one_line(charset or 'UTF-8')}") from None


def _of_html(data: bytes, charset: str) -> str:
    """All text of a page that can be seen, menus and all: nothing can be found in what is left out here."""
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    except ImportError:
        raise MachineError("pages in HTML need resiliparse: pip install 'dyetrace[web]'") from None
    try:
        page = data.decode(charset or "utf-8")
    except (LookupError, UnicodeDecodeError):
        page = bytes_to_str(data, detect_encoding(data, from_html_meta=True) or "utf-8")
    text: str = extract_plain_text(page, main_content=False, noscript=True, hidden_elements=True, form_fields=True)
    return text
