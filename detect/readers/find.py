"""Which files a list of paths, folders, globs and saved data sets means, and what each of them is."""

from __future__ import annotations

import glob
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from detect.readers import columnar, csv, json_items, jsonl, tar, warc
from detect.readers.batch import Broken, Form, Inspected, ReadOptions, Source, one_line
from detect.readers.sources import UNITS
from detect.readers.stream import BOM, compression_of, opened
from watermark.errors import DyetraceError

ENDINGS: dict[str, Form] = {
    ".jsonl": "jsonl",
    ".jsonlines": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".psv": "csv",
    ".warc": "warc",
    ".wet": "warc",
    ".wat": "warc",
    ".tar": "tar",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
    ".html": "text",
    ".htm": "text",
}
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".lzma")
_ARCHIVES = {".tgz": ".tar.gz", ".tbz": ".tar.bz2", ".tbz2": ".tar.bz2", ".txz": ".tar.xz", ".tzst": ".tar.zst"}
# What is put behind a name's ending: "data.csv.1", "train.jsonl-00000-of-00010", "a.json.bak".
_BEHIND = re.compile(r"(\.(\d+|bak|old|orig|part|tmp)|-\d+(-of-\d+)?)+$")
_ABOUT_DATA = frozenset(
    "dataset_dict.json dataset_info.json dataset_infos.json state.json _success _metadata _common_metadata".split()
)
_ABOUT_ENDINGS = (".crc", ".lock")
_LAKES = {"_delta_log": "Delta", "_versions": "Lance"}
_HEAD = 1 << 16
_SHOWN = 3  # files that can't be read, of those in folders
_POINTER = b"version https://git-lfs.github.com/spec/"
_PACKED = {
    b"PK\x03\x04": "a zip archive or an office document",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"\x04\x22\x4d\x18": "compressed with lz4",
    b"\x1f\x9d": "compressed with compress",
    b"\xff\x06\x00\x00sNaPpY": "compressed with snappy",
}
_LAID_OUT = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an office document",
    b"SQLite format 3\0": "an SQLite database",
    b"%PDF-": "a PDF document",
    b"%!PS": "a PostScript document",
    b"{\\rtf": "an RTF document",
}
_READ = "JSONL, JSON, CSV, WARC, tar, Parquet, Arrow or plain text"

_KEY = re.compile(rb"\s*(?:dyetrace-key-v1:\S*|[0-9a-fA-F]{64}|-----BEGIN [A-Z ]*PRIVATE KEY-----.*)\s*", re.DOTALL)
"""A key as dyetrace or a KMS writes it, or a private one for signatures."""


@dataclass(frozen=True)
class _Found:
    """A file that is to be read.

    Attributes
    ----------
    given
        Its path in the user's words.
    form
        What it is, where that is known.
    problem
        Why it can't be read, where that is known.
    named
        Whether the user named it, or a folder that it is in.
    """

    path: str
    name: str
    given: str
    form: Form | None = None
    problem: str | None = None
    named: bool = False


def find_sources(paths: Sequence[str], options: ReadOptions) -> tuple[list[Source], list[tuple[str, str]]]:
    """Find and inspect all files that ``paths`` mean, each once, in the order of the paths and sorted within each.

    A path is a file, a folder (all files below it but hidden ones and those about the data), a glob, or a folder made
    by `datasets.save_to_disk`.

    Returns
    -------
    tuple
        Sources, and (name, reason) of files that cannot be read, which are listed with ``skip_errors`` only.

    Raises
    ------
    DyetraceError
        A path means nothing, a file cannot be read, or none can.
    """
    found: dict[str, _Found] = {}
    for path in paths:
        for item in _expand(path):
            found.setdefault(os.path.realpath(item.path), item)
    names = [item.name for item in found.values()]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    sources: list[Source] = []
    skipped: list[tuple[str, str]] = []
    for item in found.values():
        name = item.given if item.name in twice else item.name
        try:
            sources += _sources(item, name, options)
        except Broken as error:
            if item.named and not options.skip_errors:
                raise DyetraceError(f"{one_line(name)} {one_line(error.reason)}") from None
            skipped.append((one_line(name), error.reason))
    if skipped and not sources:
        name, reason = skipped[0]
        raise DyetraceError(f"none of {len(skipped)} files can be read; {name} {one_line(reason)}")
    if skipped and not options.skip_errors:
        raise DyetraceError(_refusal(skipped, len(found)))
    return sources, skipped


def _refusal(skipped: Sequence[tuple[str, str]], files: int) -> str:
    """Name files of folders that can't be read, the first one with the reason."""
    (name, reason), *rest = skipped
    first = f"{name} {one_line(reason)}"
    more = ""
    if rest:
        shown = ", ".join(other for other, _ in rest[:_SHOWN]) + (", ..." if len(rest) > _SHOWN else "")
        more = f" ({len(skipped)} of {files} files can't be read; the others are {shown})"
    return f"{first}{more}; move away what is not to be read, name files one by one, or skip these with --on-error skip"


def _expand(path: str) -> Iterator[_Found]:
    if path == "-":
        raise DyetraceError("a scan reads its files more than once, so it cannot read standard input; give a file")
    if os.path.isdir(path):
        files = list(_walk(path, "", set()))
        if not files:
            raise DyetraceError(f"folder {one_line(path)} has no data file ({_READ}); name files one by one")
        yield from files
    elif os.path.exists(path):
        yield _Found(path, path, path, named=True)
    elif glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        matches = [match for match in matches if not ("**" in path and os.path.isdir(match))]
        if not matches:
            raise DyetraceError(f"no file matches {one_line(path)}")
        for match in matches:
            yield from _expand(match)
    else:
        raise DyetraceError(f"cannot read {one_line(path)}: No such file or directory")


def _walk(root: str, below: str, above: set[str]) -> Iterator[_Found]:
    """Files below a folder; ``above`` holds the real paths of the folders on the way, against loops of links."""
    folder = os.path.join(root, below) if below else root
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DyetraceError(f"cannot read folder {one_line(folder)}: {error.strerror}") from None
    lake = "Lance" if real.endswith(".lance") else next((_LAKES[name] for name in names if name in _LAKES), None)
    if lake is not None:
        name = below or os.path.basename(real)
        yield _Found(folder, name, folder, problem=f"is a {lake} table, which is not read; write it as Parquet first")
        return
    if "state.json" in names and "dataset_info.json" in names:
        yield from _saved(root, below)
        return
    if "dataset_dict.json" in names:
        _check_splits(folder)
    for name in names:
        path, inner = os.path.join(folder, name), os.path.join(below, name)
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            yield from _walk(root, inner, above | {real})
        elif name.lower() not in _ABOUT_DATA and not name.lower().endswith(_ABOUT_ENDINGS):
            yield _Found(path, inner, path)


def _saved(root: str, below: str) -> Iterator[_Found]:
    """The files of a folder made by `Dataset.save_to_disk`: those it lists, in its order."""
    folder = os.path.join(root, below) if below else root
    state = _json(os.path.join(folder, "state.json"))
    files = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(files, list) or not all(
        isinstance(f, dict) and isinstance(f.get("filename"), str) for f in files
    ):
        raise DyetraceError(f"{one_line(folder)}/state.json does not list the data files; save the data set again")
    if state.get("_indices_data_files"):
        raise DyetraceError(f"{one_line(folder)} keeps its rows' order in a file of its own; save the data set again")
    for file in files:
        inner = os.path.join(below, file["filename"])
        path = os.path.join(root, inner)
        if not os.path.exists(path):
            raise DyetraceError(f"{one_line(path)} is missing, which state.json beside it lists; get the folder again")
        yield _Found(path, inner, path, "arrow")


def _check_splits(folder: str) -> None:
    splits = _json(os.path.join(folder, "dataset_dict.json"))
    for name in splits.get("splits", []) if isinstance(splits, dict) else []:
        if not os.path.isdir(os.path.join(folder, str(name))):
            raise DyetraceError(f"{one_line(folder)} lacks split {name!r}, which dataset_dict.json lists")


def _json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise DyetraceError(f"cannot read {one_line(path)}: {one_line(error)}") from None


def _sources(item: _Found, name: str, options: ReadOptions) -> list[Source]:
    """One for each field that is read."""
    if item.problem is not None:
        raise Broken(item.problem)
    try:
        name.encode(), item.path.encode()
    except UnicodeEncodeError:
        raise Broken("has a name that is not UTF-8; rename it") from None
    try:
        found = os.stat(item.path)
        if not stat.S_ISREG(found.st_mode):
            raise Broken("is no regular file, and a scan reads its files more than once")
        with open(item.path, "rb") as file:
            magic = file.read(64)
    except OSError as error:
        raise Broken(f"cannot be read: {error.strerror}") from None
    by_ending, says_compressed = _by_ending(item.path)
    compression = compression_of(magic)
    if says_compressed and not found.st_size:
        raise Broken("is empty, which no compressed file is; get the file again")
    if magic.startswith(_POINTER):
        raise Broken("is a pointer of Git LFS, not the file itself: run git lfs pull where it lies")
    if options.form != "auto" and not item.named and by_ending not in (options.form, None):
        if {by_ending, options.form} != {"json", "jsonl"}:
            raise Broken(f"is {_named(by_ending)} by its name, and --format {options.form} is asked for")
    head = _head(item.path, compression)
    form = item.form or (_form(by_ending, magic, head) if options.form == "auto" else options.form)
    if form in ("parquet", "arrow"):
        if compression:
            raise Broken(f"is {form.capitalize()} inside {compression}; decompress it first")
        seen = columnar.inspect(item.path, form, options)
    else:
        _check_text(form, magic, head)
        seen = _inspect(form, item.path, compression, found.st_size, options)
    size, changed = found.st_size, found.st_mtime_ns
    return [
        Source(item.path, name, form, compression, column, kind, seen.id_column, size, changed, seen.columns)
        for column, kind in seen.chosen
    ]


def _inspect(form: Form, path: str, compression: str, size: int, options: ReadOptions) -> Inspected:
    """Columns and id column of a file."""
    if form == "jsonl":
        return jsonl.inspect(path, compression, size, options)
    if form == "text":
        return Inspected((("", "text"),), None)
    look = {"json": json_items.inspect, "csv": csv.inspect, "warc": warc.inspect, "tar": tar.inspect}[form]
    try:
        return look(path, compression, options)
    except Broken as error:
        raise Broken(re.sub(r"\(line (\d+)\)$", rf"({UNITS[form]} \1)", error.reason)) from None


def _form(by_ending: Form | None, magic: bytes, head: bytes) -> Form:
    """What a file is: its first bytes count, and its ending only where they leave a choice."""
    if magic.startswith(b"PAR1"):
        return "parquet"
    if magic.startswith(b"ARROW1") or (magic.startswith(b"\xff\xff\xff\xff") and by_ending in ("arrow", None)):
        return "arrow"
    if head.startswith(b"WARC/"):
        return "warc"
    if head[257:262] == b"ustar" or by_ending == "tar":
        return "tar"
    start = head.removeprefix(BOM).lstrip()
    if start[:1] in (b"{", b"[") and (by_json := _json_form(by_ending, start)) is not None:
        return by_json
    if by_ending in ("json", "warc"):
        return "jsonl" if by_ending == "json" else "warc"
    return by_ending or "text"


def _json_form(by_ending: Form | None, start: bytes) -> Form | None:
    """How JSON lies in a file that may be no JSON at all, in spite of its first byte; None where it isn't."""
    first, _, rest = start.partition(b"\n")
    whole = _is_record(first)
    if by_ending in ("json", "jsonl"):
        if whole and (rest.strip() or not json_items.is_one_object(start)):
            return "jsonl"
        if by_ending == "jsonl" and start[:1] == b"{" and first.strip() != b"{" and not whole:
            return "jsonl"  # of which the first line is broken, or longer than what was looked at
        return "json"
    if by_ending == "text":  # one object may be what somebody wrote as a text: an answer in JSON, say
        return "jsonl" if whole and _is_record(rest.lstrip().partition(b"\n")[0]) else None
    if whole:
        return "json" if not rest.strip() and json_items.is_one_object(start) else "jsonl"
    value, _ = json_items.mended(start)
    records = value if isinstance(value, list) else [value]
    return "json" if value and all(isinstance(record, dict) and record for record in records[:2]) else None


def _check_text(form: Form, magic: bytes, head: bytes) -> None:
    """Refuse what is none of the forms that are told by their bytes, and no text either."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Broken("is text in UTF-16; convert it to UTF-8 first: iconv -f UTF-16 -t UTF-8 FILE > NEW")
    if packed := next((name for start, name in _PACKED.items() if magic.startswith(start)), None):
        raise Broken(f"is {packed}; unpack it first")
    if laid_out := next((name for start, name in _LAID_OUT.items() if magic.startswith(start)), None):
        raise Broken(f"is {laid_out}; write what it holds as text first")
    if _KEY.fullmatch(head):
        raise Broken("looks like a secret key, which is no text to be read and quoted; move it out of the way")
    if head.startswith(b"filedesc:"):
        raise Broken("is an ARC file; convert it to WARC first: warcio recompress FILE NEW")
    if compression_of(head[:64]):
        raise Broken("is compressed twice; decompress it first")
    if form in ("text", "csv") and b"\0" in head:
        raise Broken(f"is no {_READ} file; convert it first")


def _named(form: Form | None) -> str:
    return {"parquet": "Parquet", "arrow": "Arrow", "text": "text", "tar": "tar"}.get(form or "", (form or "").upper())


def _by_ending(path: str) -> tuple[Form | None, bool]:
    """Form by a file's ending, and whether it ends as a compressed file."""
    name = _BEHIND.sub("", os.path.basename(path).lower())
    for short, long in _ARCHIVES.items():
        name = name.removesuffix(short) + long if name.endswith(short) else name
    compressed = name.endswith(_COMPRESSED)
    ending = os.path.splitext(_BEHIND.sub("", name.rpartition(".")[0]) if compressed else name)[1]
    return ENDINGS.get(ending), compressed


def _head(path: str, compression: str) -> bytes:
    """The first bytes of a file, decompressed; what can be read of them where it is damaged."""
    with opened(path, compression) as stream:
        return stream.read(_HEAD)


def _is_record(line: bytes) -> bool:
    """Whether a line is a JSON object, whole."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
