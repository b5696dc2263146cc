"""Web archives, written by warcio: a document for each page or its text, and nothing is passed over unseen."""

from __future__ import annotations

import bz2
import gzip
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from detect.readers import BrokenRecord, place, warc
from tests.detect.readers.reading import SKIP, batches, documents, ids, skipped, source_of, write

# The writer leaves a temporary file of each record open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

TEXTS = [f"Grüße vom Text {number}.\r\n\r\nWARC/1.0 is no record here.\n" for number in range(6)]
Answer = tuple[str, bytes, dict[str, str]]  # type, content, further headers


def archive(texts: Sequence[str] = (), answers: Sequence[Answer] = (), *, packed: bool = False) -> bytes:
    file = io.BytesIO()
    writer = WARCWriter(file, gzip=packed)
    writer.write_record(writer.create_warcinfo_record("x.warc", {"software": "a test"}))
    for number, text in enumerate(texts):
        payload, uri = io.BytesIO(text.encode()), f"https://example.org/{number}?a=b"
        writer.write_record(
            writer.create_warc_record(uri, "conversion", payload=payload, warc_content_type="text/plain")
        )
    for number, (kind, content, more) in enumerate(answers):
        uri = f"https://example.org/page{number}"
        headers = StatusAndHeaders("200 OK", [("Content-Type", kind), *more.items()], protocol="HTTP/1.1")
        asked = StatusAndHeaders("GET / HTTP/1.1", [("Accept", "*/*")], is_http_request=True)
        writer.write_record(writer.create_warc_record(uri, "request", http_headers=asked))
        writer.write_record(
            writer.create_warc_record(uri, "response", payload=io.BytesIO(content), http_headers=headers)
        )
        about = io.BytesIO(b"fetchTimeMs: 1")
        writer.write_record(
            writer.create_warc_record(uri, "metadata", payload=about, warc_content_type="application/warc-fields")
        )
    return file.getvalue()


@pytest.mark.parametrize("name", ["s.wet", "s.warc", "s.wet.gz", "s.warc.gz", "no-ending", "s.warc.bz2", "s.txt"])
def test_each_text_is_a_document_with_its_address_as_its_id(tmp_path: Path, name: str) -> None:
    data = archive(TEXTS, packed=name.endswith(".gz"))
    source = source_of(write(tmp_path / name, bz2.compress(data) if name.endswith(".bz2") else data))
    assert (source.form, source.column, source.kind) == ("warc", "text", "text")
    assert documents(source) == TEXTS
    assert ids(source) == [f"https://example.org/{number}?a=b" for number in range(6)]
    [found] = batches(source)
    assert found.records.tolist() == [1, 2, 3, 4, 5, 6]
    assert place(source, 1).endswith(f"{name}, record 2")


def test_of_pages_the_text_is_read_whatever_they_are_packed_in(tmp_path: Path) -> None:
    page = "<html><head><title>No</title><script>no()</script></head><body><p>Ein <b>Bär</b> &amp; mehr</p>{}</body>"
    html = page.format("<ul><li>one</li></ul>")
    chunked = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"
    answers: list[Answer] = [
        ("text/html; charset=utf-8", html.encode(), {}),
        ("text/html; charset=ISO-8859-1", html.encode("latin-1"), {}),
        ("text/html", html.replace("<head>", '<head><meta charset="windows-1252">').encode("cp1252"), {}),
        ("application/xhtml+xml", gzip.compress(html.encode(), mtime=0), {"Content-Encoding": "gzip"}),
        ("text/html", html.encode(), {"Content-Encoding": "gzip"}),  # already unpacked by who wrote the archive
        ("text/plain", chunked, {"Transfer-Encoding": "chunked"}),
        ("text/plain; charset=utf-16-le", "wide".encode("utf-16-le"), {}),
        ("application/ld+json", b'{"a": "b"}', {}),
        ("text/html", b"", {}),
    ]
    source = source_of(write(tmp_path / "s.warc.gz", archive(answers=answers, packed=True)))
    found = documents(source)
    assert [" ".join(text.split()) for text in found[:5]] == ["Ein Bär & mehr • one"] * 5
    assert found[5:] == ["hello world", "wide", '{"a": "b"}']
    assert ids(source)[5] == "https://example.org/page5"


def test_an_answer_of_headers_alone_holds_no_document(tmp_path: Path) -> None:
    moved = b"HTTP/1.1 301 Moved\r\nLocation: /there\r\n"
    head = f"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\nContent-Length: {len(moved)}\r\n\r\n"
    data = head.encode() + moved + b"\r\n\r\n" + archive(TEXTS[:1])
    assert documents(source_of(write(tmp_path / "s.warc", data))) == TEXTS[:1]


def test_what_is_no_text_is_counted_and_what_cannot_be_read_is_broken(tmp_path: Path) -> None:
    answers: list[Answer] = [
        ("image/png", b"\x89PNG", {}),
        ("text/plain", b"a text", {}),
        ("video/mp4; x=y", b"\0", {"Transfer-Encoding": "chunked"}),
        ("application/pdf", b"%PDF", {}),
        ("text/plain", b"caf\xe9", {}),
        ("text/plain; charset=nonsense", b"a", {}),
        ("text/html", b"\0", {"Content-Encoding": "zstd"}),
    ]
    source = source_of(write(tmp_path / "s.warc", archive(answers=answers)), SKIP)
    assert documents(source, SKIP) == ["a text"]
    assert [(number, reason) for number, reason in skipped(source)] == [
        (11, "is application/pdf, which is not read; convert it to text"),
        (14, "is not text in UTF-8"),
        (17, "is not text in nonsense"),
        (20, "is packed as zstd, which is not read"),
    ]
    counted = [(turn.part, turn.read, turn.count) for batch in batches(source, SKIP) for turn in batch.turns]
    assert counted == [("image/png", False, 1), ("video/mp4", False, 1)]
    with pytest.raises(BrokenRecord, match=r"s.warc, record 12 is application/pdf, which is not read"):
        batches(source)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("part", [0.4, 0.6, 0.9])
def test_an_archive_that_is_cut_short_says_so(tmp_path: Path, packed: bool, part: float) -> None:
    data = archive(TEXTS, packed=packed)
    source = source_of(write(tmp_path / "s.wet", data[: int(len(data) * part)]))
    found = documents(source, SKIP)
    assert found == TEXTS[: len(found)]
    [(record, reason)] = skipped(source)
    assert record == len(found) + 1
    assert reason.startswith("and all that follows cannot be read: ")


def test_a_record_that_is_damaged_ends_the_archive_aloud(tmp_path: Path) -> None:
    data = archive(TEXTS)
    third = data.index(b"https://example.org/2")
    for name, broken, reason in (
        ("length", data.replace(b"Content-Length", b"Content-Lenght"), "does not say how long it is"),
        ("longer", data[:third] + data[third:].replace(b"Content-Length: 5", b"Content-Length: 6", 1), "should begin"),
        ("shorter", data[:third] + data[third:].replace(b"Content-Length: 5", b"Content-Length: 4", 1), "should begin"),
    ):
        source = source_of(write(tmp_path / f"{name}.warc", broken if name != "length" else data + broken[200:]))
        lost = skipped(source)
        assert len(lost) == 1 and "all that follows" in lost[0][1]
        assert reason in lost[0][1] or name == "length"


def test_a_record_too_long_for_memory_is_broken_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warc, "MAX_DOCUMENT", 1 << 16)
    bomb: Answer = ("text/plain", gzip.compress(b"a" * (1 << 20), mtime=0), {"Content-Encoding": "gzip"})
    source = source_of(write(tmp_path / "s.warc", archive(["a", "b" * (1 << 17), "c"], [bomb])))
    assert documents(source, SKIP) == ["a", "c"]
    assert skipped(source) == [(2, "is longer than 0 MiB"), (5, "is longer than 0 MiB")]


def test_texts_need_no_package_and_pages_name_theirs(tmp_path: Path) -> None:
    write(tmp_path / "texts.wet", archive(TEXTS[:1]))
    write(tmp_path / "pages.warc", archive(answers=[("text/html", b"<p>page</p>", {})]))
    code = """
import sys
sys.modules["warcio"] = sys.modules["resiliparse"] = None
from detect.readers import *
from watermark.errors import DyetraceError
for name in "texts.wet", "pages.warc":
    try:
        [source], _ = find_sources([name], ReadOptions(skip_errors=True))
        print([batch.texts for piece in split(source) for batch in read(source, piece, ReadOptions())])
    except DyetraceError as error:
        print(error)
"""
    root = Path(warc.__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == [str([TEXTS[:1]]), "pages in HTML need resiliparse: pip install 'dyetrace[web]'"]
