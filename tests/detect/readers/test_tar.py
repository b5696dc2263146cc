"""Archives, written by webdataset and tarfile: samples and lines as records, and every member accounted for."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import webdataset

from detect.readers import BrokenRecord, place, tar
from tests.detect.readers.reading import SKIP, batches, documents, ids, skipped, source_of, write

Members = Sequence[tuple[str, bytes]]
SAMPLES: Members = [
    ("set/000.jpg", b"\xff\xd8\0"),
    ("set/000.txt", b"A first text."),
    ("set/000.json", b'{"url": "u", "width": 3}'),
    ("set/001.txt", "Ein zweiter Text, größer.".encode()),
    ("set/001.cls", b"7"),
]
TEXTS = ["A first text.", "Ein zweiter Text, größer."]


def archive(members: Members, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as writer:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            writer.addfile(member, io.BytesIO(data))
    return file.getvalue()


def counted(path: Path | str) -> dict[str, int]:
    found = batches(source_of(path, SKIP), SKIP)
    return {turn.part: turn.count for batch in found for turn in batch.turns if not turn.read}


@pytest.mark.parametrize(
    ("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz"), ("s.tar.xz", "w:xz"), ("s", "w:bz2")]
)
def test_members_of_one_name_are_a_record_with_the_name_as_its_id(tmp_path: Path, name: str, mode: str) -> None:
    source = source_of(write(tmp_path / name, archive(SAMPLES, mode)))
    assert (source.form, source.column, documents(source), ids(source)) == (
        "tar",
        "text",
        TEXTS,
        ["set/000", "set/001"],
    )
    assert counted(source.path) == {"member .jpg": 1}
    assert place(source, 1).endswith(f"{name}, record 2")


def test_what_webdataset_wrote_is_read(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": f"Answer {i}"}] for i in range(30)]
    with webdataset.TarWriter(str(tmp_path / "chats.tar.gz")) as sink:
        for number, turns in enumerate(chats):
            sink.write({"__key__": f"{number:04}", "json": {"messages": turns, "id": number}})
    source = source_of(tmp_path / "chats.tar.gz")
    assert documents(source) == [[f"Answer {i}"] for i in range(30)]
    assert ids(source) == [str(number) for number in range(30)]


def test_lines_and_lists_in_members_are_records(tmp_path: Path) -> None:
    line = json.dumps({"text": "A line.", "id": "own"}).encode() + b"\n"
    members: Members = [
        ("a.jsonl", line * 2 + b"\n"),
        ("b.jsonl.gz", gzip.compress(line[:-1], mtime=0)),
        ("c.jsonl.zst", bytes(pa.compress(line, codec="zstd", asbytes=True))),
        ("d.txt.xz", lzma.compress(b"A line.")),
        ("e.json", b'[{"text": "A line."}, "A line."]'),
        ("f.json.gz", gzip.compress(b'{"text": "A line."}', mtime=0)),
        ("plain", b"A line."),
    ]
    source = source_of(write(tmp_path / "s.tar", archive(members)))
    assert documents(source) == ["A line."] * 9
    assert ids(source) == ["own"] * 4 + ["d", "e#1", "e#2", "f", "plain"]


def test_names_with_dots_lose_no_text(tmp_path: Path) -> None:
    long = "x" * 200
    members: Members = [
        ("www.a.org.txt", b"one"),
        ("www.b.org.txt", b"two"),
        ("./v1.2 notes.TXT", b"three"),
        (f"{long}/é.txt", b"four"),
        ("a.b.json", b'{"text": "five", "id": 5}'),
    ]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        source = source_of(write(tmp_path / "s.tar", archive(members, form=form)))
        assert documents(source) == ["one", "two", "three", "four", "five"]
        assert ids(source) == ["www.a.org", "www.b.org", "v1.2 notes", f"{long}/é", "5"]


def test_links_and_odd_members_are_counted_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a secret of this machine")
    with tarfile.open(tmp_path / "s.tar", "w") as writer:
        for name, kind in (
            ("folder", tarfile.DIRTYPE),
            ("link.txt", tarfile.SYMTYPE),
            ("hard.txt", tarfile.LNKTYPE),
            ("pipe", tarfile.FIFOTYPE),
            ("device", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(tmp_path / "secret.txt")
            writer.addfile(member)
        for name in ("../../outside.txt", "/tmp/absolute.txt", ".hidden.txt", "x/._a.txt"):
            member = tarfile.TarInfo(name)
            member.size = 6
            writer.addfile(member, io.BytesIO(b"A text"))
    before = sorted(tmp_path.parent.rglob("*"))
    source = source_of(tmp_path / "s.tar")
    assert documents(source) == ["A text"] * 2
    assert counted(source.path) == {"member that is a link": 2, "member that is no file": 2}
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_members_that_cannot_be_read_are_broken_and_named(tmp_path: Path) -> None:
    members: Members = [
        ("a.txt", b"A text."),
        ("b.txt", b"caf\xe9"),
        ("c.json", b'{"text": '),
        ("d.parquet", b"PAR1"),
        ("e.pdf", b"%PDF\0"),
        ("f.jsonl.gz", gzip.compress(b'{"text": "A line."}\n' * 9, mtime=0)[:-8]),
        ("g.npy", b"\x93NUMPY"),
        ("h.txt", b"Another text."),
    ]
    source = source_of(write(tmp_path / "s.tar", archive(members)), SKIP)
    assert documents(source, SKIP) == ["A text.", *["A line."] * 9, "Another text."]
    assert [reason for _, reason in skipped(source)] == [
        "is not UTF-8 text (byte 4) (member b.txt)",
        "is not JSON: Expecting value (character 18) (member c.json)",
        "is a .parquet file inside of an archive; unpack the archive first (member d.parquet)",
        "is no text (member e.pdf)",
        "and the lines after it cannot be decompressed: the file ends before its end mark (member f.jsonl.gz)",
    ]
    with pytest.raises(BrokenRecord, match=r"s.tar, record 2 is not UTF-8 text .*member b.txt.*--on-error skip"):
        batches(source)


@pytest.mark.parametrize("cut", [512 * 4, 512 * 5 + 100, 512 * 7 + 3, 512 * 9, 512 * 10, 512 * 10 + 7])
def test_an_archive_that_is_cut_short_says_so_and_keeps_what_came_before(tmp_path: Path, cut: int) -> None:
    data = archive(SAMPLES)
    assert len(data) > 512 * 11
    source = source_of(write(tmp_path / "s.tar", data[:cut]), SKIP)
    found = documents(source, SKIP)
    assert found == TEXTS[: len(found)]
    [(record, reason)] = skipped(source)
    assert record == len(found)
    assert reason.startswith("and all that follows cannot be read: ")


def test_a_damaged_header_ends_the_archive_aloud_and_archives_behind_one_another_are_read(tmp_path: Path) -> None:
    data = bytearray(archive(SAMPLES))
    data[512 * 6 + 3] ^= 0xFF  # the name of the fourth member
    source = source_of(write(tmp_path / "s.tar", bytes(data)), SKIP)
    assert documents(source, SKIP) == TEXTS[:1]
    [(_, reason)] = skipped(source)
    assert "a header is damaged" in reason
    twice = source_of(write(tmp_path / "t.tar", archive(SAMPLES) * 2))
    assert documents(twice) == TEXTS * 2
    rubbish = source_of(write(tmp_path / "u.tar", archive(SAMPLES) + b"rubbish, no archive" * 100))
    assert documents(rubbish, SKIP) == TEXTS
    assert "a header is damaged" in skipped(rubbish)[0][1]


def test_a_member_too_long_for_memory_is_broken_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "MAX_DOCUMENT", 1 << 20)
    long = b"a" * (1 << 21)
    members: Members = [
        ("a.txt", long),
        ("b.txt.gz", gzip.compress(long, mtime=0)),
        ("c.txt", b"A text."),
        ("d.jsonl", long),
    ]
    source = source_of(write(tmp_path / "s.tar", archive(members)), SKIP)
    assert documents(source, SKIP) == ["A text."]
    assert [reason for _, reason in skipped(source)][:2] == [
        "is longer than 1 MiB (member a.txt)",
        "is longer than 1 MiB (member b.txt.gz)",
    ]
    assert len(skipped(source)) == 3


def test_an_archive_without_texts_holds_no_document_and_its_members_are_counted(tmp_path: Path) -> None:
    source = source_of(write(tmp_path / "s.tar", archive([("a.jpg", b"\xff\xd8")])))
    assert documents(source) == []
    assert counted(source.path) == {"member .jpg": 1}
