"""How fast scans read each format, beside JSON lines with the same documents.

    python -m benchmarks.reading_speed                  20 MB of natural text in every format

Documents of some 2,000 characters with an id are written in each format by the packages that people write them with,
and read as a scan reads them: found, cut, read, as one piece each. The figure to read is the speed beside JSON lines in
the same round (1 is as fast, 0.5 takes twice as long), by characters of text.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import random
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from benchmarks.common import Report, json_option, quick_option, timings
from detect.readers import ReadOptions, find_sources, read, split

REFERENCE = "JSON lines"
_LENGTH = 2_000  # characters of a document, about

Texts = Sequence[str]


def natural_texts(characters: int) -> list[str]:
    """Documents cut from natural text at random places."""
    from detect.text.natural_text import natural_documents

    whole = "\n\n".join(
        text for kind in ("prose", "code") for _, text in natural_documents(kind, 200 if characters > 10**6 else 8)
    )
    rng = random.Random(1)
    starts = [rng.randrange(len(whole) - _LENGTH) for _ in range(max(2, characters // _LENGTH))]
    return [whole[start : start + _LENGTH] for start in starts]


def _records(texts: Texts) -> list[dict[str, str]]:
    return [{"id": f"document {number}", "text": text} for number, text in enumerate(texts)]


def write_lines(path: Path, texts: Texts) -> None:
    """A record on each line, compressed as the path's ending says."""
    data = "".join(json.dumps(record) + "\n" for record in _records(texts)).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".xz":
        data = lzma.compress(data, preset=1)
    elif path.suffix == ".zst":
        import pyarrow as pa

        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)


def write_json(path: Path, texts: Texts, *, indent: int | None = None, inside: bool = False) -> None:
    """One array, or an object that holds it."""
    records = _records(texts)
    path.write_text(json.dumps({"version": 1, "data": records} if inside else records, indent=indent))


def write_csv(path: Path, texts: Texts) -> None:
    """A table of two columns."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "text"), *((record["id"], record["text"]) for record in _records(texts))])


def write_warc(path: Path, texts: Texts, *, pages: bool = False) -> None:
    """A web archive of texts, or of pages in HTML."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=path.suffix == ".gz")
        for number, text in enumerate(texts):
            uri, kind, headers, data = f"https://example.org/{number}", "conversion", None, text.encode()
            if pages:
                kind, headers = "response", StatusAndHeaders("200 OK", [("Content-Type", "text/html")], "HTTP/1.1")
                data = f"<html><body><h1>{number}</h1><p>{text.replace('<', '&lt;')}</p></body></html>".encode()
            content = None if pages else "text/plain"
            record = writer.create_warc_record(
                uri, kind, payload=io.BytesIO(data), http_headers=headers, warc_content_type=content or ""
            )
            writer.write_record(record)


def write_tar(path: Path, texts: Texts) -> None:
    """An archive with a member for each text, and one about it."""
    with tarfile.open(path, "w") as archive:
        for number, text in enumerate(texts):
            for ending, data in (("json", b'{"url": "u"}'), ("txt", text.encode())):
                member = tarfile.TarInfo(f"{number:06}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def write_columns(path: Path, texts: Texts) -> None:
    """A Parquet or Arrow file."""
    import pyarrow as pa
    from pyarrow import feather, parquet

    table = pa.Table.from_pylist(_records(texts))
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        feather.write_feather(table, path)


FORMATS: dict[str, tuple[str, Callable[[Path, Texts], None]]] = {
    REFERENCE: ("lines.jsonl", write_lines),
    "JSON array": ("array.json", write_json),
    "JSON array, over several lines": ("pretty.json", partial(write_json, indent=2)),
    "JSON object that holds one": ("inside.json", partial(write_json, inside=True)),
    "CSV": ("table.csv", write_csv),
    "WET": ("texts.wet", write_warc),
    "WARC with pages in HTML": ("pages.warc", partial(write_warc, pages=True)),
    "tar of .txt and .json": ("archive.tar", write_tar),
    "Parquet": ("table.parquet", write_columns),
    "Arrow": ("table.arrow", write_columns),
    "JSON lines, gzip": ("lines.jsonl.gz", write_lines),
    "JSON lines, zstd": ("lines.jsonl.zst", write_lines),
    "JSON lines, xz": ("lines.jsonl.xz", write_lines),
    "WET, gzip": ("texts.wet.gz", write_warc),
}


def characters_in(path: Path) -> int:
    """Read a file whole; the characters of its documents."""
    [source], _ = find_sources([str(path)], ReadOptions())
    pieces = split(source, source.bytes + 1)
    return sum(sum(map(len, batch.texts or ())) for piece in pieces for batch in read(source, piece, ReadOptions()))


@click.command()
@quick_option
@json_option
@click.option("--megabytes", default=20.0, help="Size of the text.")
@click.option("--seconds", default=10.0, help="Time for each format.")
def main(quick: bool, json_path: Path | None, megabytes: float, seconds: float) -> None:
    """Measure how fast each format is read."""
    if quick:
        megabytes, seconds = 0.2, 0.02
    texts = natural_texts(int(megabytes * 1e6))
    report = Report("Reading speed", {"documents": len(texts), "characters": sum(map(len, texts))})
    with tempfile.TemporaryDirectory(prefix="dyetrace-reading-") as folder:
        paths = {}
        for name, (file, write) in FORMATS.items():
            paths[name] = Path(folder) / file
            write(paths[name], texts)
        found = timings(
            {name: partial(characters_in, path) for name, path in paths.items()}, REFERENCE, seconds=seconds
        )
        for name, timing in found.items():
            size = characters_in(paths[name])
            low, high = timing.ratio_quartiles
            report.add(
                format=name,
                MB_on_disk=paths[name].stat().st_size / 1e6,
                Mcharacters_per_s=size / 1e3 / timing.milliseconds,
                speed_to_JSON_lines=1 / timing.ratio,
                quartiles=(1 / high, 1 / low),
                characters=size,
            )
    report.finish(json_path)


if __name__ == "__main__":
    main()
