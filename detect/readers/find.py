"""Which files a list of paths, folders, globs and saved data sets means, and what each of them is."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from detect.readers import columnar, jsonl
from detect.readers.batch import Broken, Inspected, Piece, ReadOptions, Source, one_line
from detect.readers.stream import lines
from watermark.errors import DyetraceError

ENDINGS = {
    ".jsonl": "jsonl",
    ".jsonlines": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".txt": "text",
    ".text": "text",
}
_COMPRESSED = (".gz", ".gzip", ".zst", ".zstd", ".bz2")
_TABLES = (".csv", ".tsv")  # would pass for plain text, and be read as one document
_ABOUT_DATA = frozenset({"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"})
_HEAD = 1 << 16


@dataclass(frozen=True)
class _Found:
    """A file that is to be read; ``given`` is its path in the user's words."""

    path: str
    name: str
    given: str
    form: str | None = None


def find_sources(paths: Sequence[str], options: ReadOptions) -> tuple[list[Source], list[tuple[str, str]]]:
    """Find and inspect all files that ``paths`` mean, each once, in the order of the paths and sorted within each.

    A path is a file, a folder (all data files below it; hidden and other files are passed over), a glob, or a folder
    made by `datasets.save_to_disk`.

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
        for item in _expand(path, options):
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
            if not options.skip_errors:
                raise DyetraceError(f"{one_line(name)} {one_line(error.reason)}") from None
            skipped.append((one_line(name), error.reason))
    if skipped and not sources:
        raise DyetraceError(f"none of {len(skipped)} files can be read; {skipped[0][0]} {one_line(skipped[0][1])}")
    return sources, skipped


def _expand(path: str, options: ReadOptions) -> Iterator[_Found]:
    if path == "-":
        raise DyetraceError("a scan reads its files more than once, so it cannot read standard input; give a file")
    if os.path.isdir(path):
        files = list(_walk(path, "", options, set()))
        if not files:
            endings = "jsonl, json, parquet, arrow or txt, also with .gz, .zst or .bz2"
            raise DyetraceError(f"folder {one_line(path)} has no data file ({endings}); name files one by one")
        yield from files
    elif os.path.exists(path):
        yield _Found(path, path, path)
    elif glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        matches = [match for match in matches if not ("**" in path and os.path.isdir(match))]
        if not matches:
            raise DyetraceError(f"no file matches {one_line(path)}")
        for match in matches:
            yield from _expand(match, options)
    else:
        raise DyetraceError(f"cannot read {one_line(path)}: No such file or directory")


def _walk(root: str, below: str, options: ReadOptions, above: set[str]) -> Iterator[_Found]:
    """Data files below a folder; ``above`` holds the real paths of the folders on the way, against loops of links."""
    folder = os.path.join(root, below) if below else root
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DyetraceError(f"cannot read folder {one_line(folder)}: {error.strerror}") from None
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
            yield from _walk(root, inner, options, above | {real})
        elif _is_data(path, options):
            yield _Found(path, inner, path)


def _is_data(path: str, options: ReadOptions) -> bool:
    """Whether a file in a folder is meant: its ending says what is wanted, and a .json is not some other JSON."""
    form, ending, compressed = _by_ending(path)
    if os.path.basename(path) in _ABOUT_DATA:
        return False
    if options.form != "auto":
        return form == options.form or (options.form == "text" and form is None)
    if ending == ".json" and not compressed and os.path.getsize(path):
        head = _head(path, "")
        return head.lstrip().startswith(b"[") or _is_record(head)
    return form is not None


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
    try:
        name.encode(), item.path.encode()
    except UnicodeEncodeError:
        raise Broken("has a name that is not UTF-8; rename it") from None
    try:
        found = os.stat(item.path)
        with open(item.path, "rb") as file:
            magic = file.read(16)
    except OSError as error:
        raise Broken(f"cannot be read: {error.strerror}") from None
    by_ending, ending, says_compressed = _by_ending(item.path)
    compression = _compression(magic)
    if says_compressed and not found.st_size:
        raise Broken("is empty, which no compressed file is; get the file again")
    form = item.form or (by_ending or _by_magic(magic) if options.form == "auto" else options.form)
    if form in ("parquet", "arrow"):
        if compression:
            raise Broken(f"is {form.capitalize()} inside {compression}; decompress it first")
        seen = columnar.inspect(item.path, form, options)
    else:
        head = _head(item.path, compression)
        form = form or ("jsonl" if head.lstrip().startswith(b'{"') and _is_record(head) else "text")
        if options.form == "auto":
            _refuse_other_forms(form, ending, head)
        seen = Inspected((("", "text"),), None)
        if form == "jsonl":
            seen = jsonl.inspect(item.path, compression, found.st_size, options)
    size, changed = found.st_size, found.st_mtime_ns
    return [
        Source(item.path, name, form, compression, column, kind, seen.id_column, size, changed, seen.columns)
        for column, kind in seen.chosen
    ]


def _refuse_other_forms(form: str, ending: str, head: bytes) -> None:
    if form == "jsonl" and head.lstrip().startswith(b"["):
        raise Broken("is one JSON array; write a record on each line: jq -c '.[]' FILE > FILE.jsonl")
    if form == "jsonl" and ending == ".json" and head.strip() and not _is_record(head):
        raise Broken("is JSON over several lines, not a record on each line: jq -c . FILE > FILE.jsonl")
    if form == "text" and ending in _TABLES:
        raise Broken("is a table; convert it to JSONL or Parquet, or read it as one text with --format text")
    if form == "text" and b"\0" in head:
        raise Broken("is no text, JSONL, Parquet or Arrow file; convert it first")


def _by_ending(path: str) -> tuple[str | None, str, bool]:
    """Form by a file's ending, that ending, and whether there is one of a compressed file after it."""
    name = os.path.basename(path).lower()
    compressed = name.endswith(_COMPRESSED)
    ending = os.path.splitext(name.rpartition(".")[0] if compressed else name)[1]
    return ENDINGS.get(ending), ending, compressed


def _compression(magic: bytes) -> str:
    if magic.startswith(b"\x1f\x8b"):
        return "gzip"
    if magic.startswith(b"\x28\xb5\x2f\xfd") or (magic[1:4] == b"\x2a\x4d\x18" and magic[:1] in b"PQRSTUVWXYZ[\\]^_"):
        return "zstd"
    # A block, or the end of a stream without any.
    return "bz2" if magic.startswith(b"BZh") and magic[4:10] in (b"1AY&SY", b"\x17rE8P\x90") else ""


def _by_magic(magic: bytes) -> str | None:
    if magic.startswith(b"PAR1"):
        return "parquet"
    return "arrow" if magic.startswith((b"ARROW1", b"\xff\xff\xff\xff")) else None


def _head(path: str, compression: str) -> bytes:
    """The first lines of a file; what can be read of them where it is damaged."""
    try:
        return b"\n".join(next(lines(path, compression, Piece(0, min(_HEAD, os.path.getsize(path))), _HEAD), []))
    except Broken:
        return b""


def _is_record(head: bytes) -> bool:
    """Whether the first line that isn't blank is a JSON object, whole."""
    line = head.lstrip().split(b"\n", 1)[0]
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
