"""Compressed and plain text files: every codec, several members, and damage that is never passed over."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard

from detect.readers import BrokenRecord, ReadOptions, plain, read, split, stream
from tests.detect.readers.reading import SKIP, batches, documents, jsonl, skipped, source_of, write
from watermark.errors import DyetraceError


def _zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def _bz2(data: bytes) -> bytes:
    """In blocks of 100 kB, of which there are several."""
    return bz2.compress(data, compresslevel=1)


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=0)


def _long_zstd(data: bytes) -> bytes:
    """As `zstd --long=31` writes a stream: whoever reads it must be ready for a window of 2 GiB."""
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True, compression_level=1)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return writer.compress(data) + writer.flush()


CODECS = pytest.mark.parametrize(
    ("ending", "compress"),
    [("gz", gzip.compress), ("zst", _zstd), ("bz2", _bz2), ("xz", _xz), ("zst", _long_zstd)],
    ids=["gzip", "zstd", "bz2", "xz", "zstd --long"],
)
Compress = Callable[[bytes], bytes]

_WORDS = random.Random(5)
TEXTS = [" ".join(_WORDS.choices(["red", "green", "blue", "grün"], k=60)) + f" {i}" for i in range(1500)]
DATA = jsonl(*({"text": text} for text in TEXTS)).encode()


@CODECS
def test_several_members_read_as_one_file_and_one_piece(tmp_path: Path, ending: str, compress: Compress) -> None:
    cut = 300_001
    data = compress(DATA[:cut]) + compress(b"") + compress(DATA[cut:])
    source = source_of(write(tmp_path / f"s.jsonl.{ending}", data))
    assert len(split(source, 1000)) == 1
    assert documents(source) == TEXTS


@CODECS
def test_first_bytes_count_and_not_the_ending(tmp_path: Path, ending: str, compress: Compress) -> None:
    assert documents(source_of(write(tmp_path / "plain.jsonl", compress(DATA)))) == TEXTS
    assert documents(source_of(write(tmp_path / f"s.jsonl.{ending}", DATA))) == TEXTS


@CODECS
@pytest.mark.parametrize("damage", ["one byte short", "half", "second member short", "rubbish after", "byte flipped"])
def test_lines_before_the_damage_are_read_and_the_rest_is_listed(
    tmp_path: Path, ending: str, compress: Compress, damage: str
) -> None:
    whole = compress(DATA)
    flipped = bytearray(whole)
    flipped[len(whole) * 2 // 3] ^= 0xFF
    data = {
        "one byte short": whole[:-1],
        "half": whole[: len(whole) // 2],
        "second member short": whole + whole[: len(whole) // 2],
        "rubbish after": whole + b"rubbish, not a member",
        "byte flipped": bytes(flipped),
    }[damage]
    if ending == "zst" and damage == "byte flipped":
        pytest.skip("frames have no checksum unless their writer adds one")
    source = source_of(write(tmp_path / f"s.jsonl.{ending}", data))
    found = documents(source, SKIP)
    [(record, reason)] = [entry for entry in skipped(source) if "all that follows" in entry[1]]
    if damage != "byte flipped":  # of that, wrong bytes may come out before it is noticed
        assert found == (TEXTS + TEXTS)[: len(found)]
        assert record == len(found)
    if damage in ("second member short", "rubbish after"):
        assert sum(map(len, found)) >= sum(map(len, TEXTS)) - (1 << 14)
    assert "get the file again" in reason
    with pytest.raises(BrokenRecord, match=rf"s.jsonl.{ending}, line \d+ "):
        batches(source)


def test_a_file_that_ends_in_the_midst_of_its_only_block_is_refused_when_it_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl.bz2", bz2.compress(DATA[:20_000])[:-500])
    with pytest.raises(DyetraceError, match=r"s.jsonl.bz2 cannot be read: the file ends .*; get the file again"):
        source_of(path)


@CODECS
def test_a_compressed_file_without_any_byte_is_damaged(tmp_path: Path, ending: str, compress: Compress) -> None:
    path = write(tmp_path / f"s.jsonl.{ending}", b"")
    with pytest.raises(DyetraceError, match="is empty, which no compressed file is"):
        source_of(path)
    empty = source_of(write(tmp_path / f"none.jsonl.{ending}", compress(b"")))
    assert documents(empty) == []


@CODECS
def test_a_plain_text_is_one_document_also_compressed(tmp_path: Path, ending: str, compress: Compress) -> None:
    text = "Grüße\r\n{not json}\n"
    source = source_of(write(tmp_path / f"essay.txt.{ending}", compress(text.encode())))
    assert (source.form, source.kind, source.column, documents(source)) == ("text", "text", "", [text])
    broken = source_of(write(tmp_path / f"cut.txt.{ending}", compress(text.encode() * 1000)[:-3]))
    [(record, reason)] = skipped(broken)
    assert record == 0
    assert reason.startswith("cannot be read to its end: ")


def test_an_empty_text_is_a_document_and_a_text_in_another_encoding_is_broken(tmp_path: Path) -> None:
    assert documents(source_of(write(tmp_path / "empty.txt", ""))) == [""]
    assert documents(source_of(write(tmp_path / "bom.txt", "\ufeffa"))) == ["a"]
    latin = source_of(write(tmp_path / "latin.txt", "café".encode("latin-1")))
    with pytest.raises(BrokenRecord, match=r"latin.txt is not UTF-8 text \(byte 4\); convert it first; mend it, or"):
        list(read(latin, split(latin)[0], ReadOptions()))
    assert skipped(latin) == [(0, "is not UTF-8 text (byte 4); convert it first")]


def test_a_text_too_long_for_memory_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MAX_DOCUMENT", 1 << 20)
    source = source_of(write(tmp_path / "long.txt", b"a" * ((1 << 20) + 1)))
    [(_, reason)] = skipped(source)
    assert "longer than 1 MiB" in reason


def test_the_older_form_of_xz_and_padding_between_members_are_read(tmp_path: Path) -> None:
    alone = lzma.compress(DATA, format=lzma.FORMAT_ALONE, preset=0)
    assert documents(source_of(write(tmp_path / "s.jsonl.lzma", alone))) == TEXTS
    padded = _xz(DATA[:100_000]) + bytes(16) + _xz(DATA[100_000:]) + bytes(8)
    assert documents(source_of(write(tmp_path / "s.jsonl.xz", padded))) == TEXTS


def test_what_needs_too_much_memory_to_be_decompressed_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_XZ_MEMORY", 1 << 20)
    with pytest.raises(DyetraceError, match=r"it needs more than 1 MiB of memory \(decompress it with xz -d\)"):
        source_of(write(tmp_path / "s.jsonl.xz", lzma.compress(b"{}", preset=6)))
    later = _zstd(DATA) + _long_zstd(DATA)  # the first frame alone says how a file is opened
    reasons = [reason for _, reason in skipped(source_of(write(tmp_path / "s.jsonl.zst", later)))]
    assert len(reasons) == 1
    assert "decompress it first, with zstd's own option for long windows" in reasons[0]


def test_long_windows_need_a_package_and_name_it(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl.zst", _long_zstd(DATA))
    code = """
import sys
sys.modules["zstandard"] = None
from detect.readers import *
from watermark.errors import MachineError
try:
    find_sources(["s.jsonl.zst"], ReadOptions())
except MachineError as error:
    print(error)
"""
    environment = {"PYTHONPATH": str(Path(stream.__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == ("zstd with a window of 2,048 MiB needs zstandard: pip install 'dyetrace[scan]'"), (
        run.stderr
    )
