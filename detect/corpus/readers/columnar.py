"""Columns of Parquet and Arrow files: only those needed are read, row group by row group, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from detect.corpus.readers.batch import (
    BATCH_BYTES,
    BATCH_TOKENS,
    Batch,
    Broken,
    Draft,
    Piece,
    ReadOptions,
    Source,
    one_line,
)
from detect.corpus.readers.columns import batches_of, kind_of_type
from detect.corpus.readers.fields import CANDIDATES, CONTENT_KEYS, ROLE_KEYS, no_field
from detect.corpus.readers.stream import arrow

_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_MAX_ROWS = 1 << 16


@dataclass(frozen=True)
class _Lost:
    """Rows that can't be read; ``rows`` is 0 where their number is unknown and nothing follows."""

    rows: int
    reason: str


def inspect(path: str, form: str, options: ReadOptions) -> tuple[str, str, str | None]:
    """Column, kind and id column of a file, from its schema.

    Raises
    ------
    Broken
        It is damaged, or no column fits.
    """
    pa = arrow(form.capitalize())
    try:
        schema = _parquet_file(path).schema_arrow if form == "parquet" else _open_arrow(path).schema
    except (OSError, pa.ArrowException) as error:
        raise Broken(f"is no readable {form.capitalize()} file: {one_line(error)}") from None
    wanted = CANDIDATES if options.field is None else [(options.field, None)]
    for column, expected in wanted:
        kind = kind_of_type(_type_at(schema, column))
        if kind is not None and expected in (kind, None):
            break
    else:
        raise no_field(schema.names, options.field)
    if options.id_field is not None and _type_at(schema, options.id_field) is None:
        raise Broken(f"has no column {options.id_field!r} to take ids from; name another with --id-field")
    id_column = options.id_field or ("id" if _type_at(schema, "id") is not None else None)
    return column, kind, id_column if id_column != column else None


def split(source: Source, target_bytes: int) -> list[Piece]:
    """Runs of row groups or record batches of about the wanted size."""
    pa = arrow(source.form.capitalize())
    try:
        sizes = _group_sizes(source) if source.form == "parquet" else _batch_sizes(source)
    except (OSError, pa.ArrowException) as error:
        raise Broken(f"cannot be read: {one_line(error)}") from None
    pieces, start, filled = [], 0, 0
    for index, size in enumerate(sizes):
        filled += size
        if filled >= target_bytes or index == len(sizes) - 1:
            pieces.append(Piece(start, index + 1))
            start, filled = index + 1, 0
    return pieces


def read(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Batch]:
    """Batches of a piece, of a few MB or half a million tokens each."""
    pa = arrow(source.form.capitalize())
    seen = 0
    found = _parquet_rows(source, piece) if source.form == "parquet" else _arrow_rows(source, piece)
    while True:
        try:
            rows = next(found, None)
        except (OSError, pa.ArrowException) as error:
            rows = _Lost(
                0, f"and the rest of record batches {piece.start + 1} to {piece.stop} cannot be read: {one_line(error)}"
            )
        if rows is None:
            return
        if isinstance(rows, _Lost):
            draft = Draft(source.kind, options.skip_errors)
            draft.skip(seen, rows.reason)
            seen += rows.rows
            yield draft.batch(seen)
            if not rows.rows:
                return
            continue
        ids = _column(rows, source.id_column) if source.id_column else None
        yield from batches_of(_column(rows, source.column), ids, seen, source, options)
        seen += rows.num_rows


def records_before(source: Source, piece: Piece) -> int:
    """Rows before the piece."""
    if source.form == "parquet":
        metadata = _metadata(source.path, source.bytes, source.mtime_ns)
        return sum(int(metadata.row_group(group).num_rows) for group in range(piece.start))
    rows = _arrow_rows(source, Piece(0, piece.start))
    return sum(int(batch.num_rows) for batch in rows if not isinstance(batch, _Lost))


def _type_at(schema: Any, name: str) -> Any:
    """Type of a column, or of a field of a struct column; None where there is none."""
    if schema.get_field_index(name) >= 0:
        return schema.field(name).type
    head, *rest = name.split(".")
    if not rest or schema.get_field_index(head) < 0:
        return None
    found = schema.field(head).type
    for part in rest:
        if not hasattr(found, "get_field_index") or found.get_field_index(part) < 0:
            return None
        found = found.field(part).type
    return found


def _column(rows: Any, name: str) -> Any:
    import pyarrow.compute as pc

    if rows.schema.get_field_index(name) >= 0:
        return rows.column(name)
    head, *rest = name.split(".")
    return pc.struct_field(rows.column(head), rest)


def _parquet_file(path: str, metadata: Any = None) -> Any:
    arrow("Parquet")
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, metadata=metadata, memory_map=False, page_checksum_verification=True)


@lru_cache(maxsize=4)
def _metadata(path: str, _bytes: int, _mtime_ns: int) -> Any:
    """A file's metadata, parsed once for many pieces."""
    return _parquet_file(path).metadata


def _leaves(source: Source, metadata: Any) -> dict[str, list[int]]:
    """Paths of the leaf columns to read, with their numbers: of chats only who speaks and what is said."""
    found: dict[str, list[int]] = {}
    for name in (source.column, source.id_column):
        paths = [(i, metadata.schema.column(i).path) for i in range(metadata.num_columns)]
        paths = [(i, path) for i, path in paths if name and (path == name or path.startswith(f"{name}."))]
        if name == source.column and source.kind == "messages":
            keys = {*ROLE_KEYS, *CONTENT_KEYS}
            paths = [(i, path) for i, path in paths if keys & set(path[len(name) :].split("."))] or paths
        for i, path in paths:
            found.setdefault(path, []).append(i)
    return found


def _size(source: Source, group: Any, leaves: list[int]) -> int:
    """Bytes of a row group's columns once decoded, as far as can be told beforehand."""
    columns = [group.column(i) for i in leaves]
    if source.kind == "tokens":  # dictionaries make them look small
        return sum(max(c.total_uncompressed_size, 4 * c.num_values) for c in columns)
    return sum(c.total_uncompressed_size for c in columns)


def _group_sizes(source: Source) -> list[int]:
    metadata = _metadata(source.path, source.bytes, source.mtime_ns)
    leaves = [i for numbers in _leaves(source, metadata).values() for i in numbers]
    return [_size(source, metadata.row_group(group), leaves) for group in range(metadata.num_row_groups)]


def _parquet_rows(source: Source, piece: Piece) -> Iterator[Any]:
    """Record batches of bounded size; a damaged row group costs its own rows only."""
    pa = arrow("Parquet")
    metadata = _metadata(source.path, source.bytes, source.mtime_ns)
    file = _parquet_file(source.path, metadata)
    leaves = _leaves(source, metadata)
    numbers = [i for found in leaves.values() for i in found]
    limit = 4 * BATCH_TOKENS if source.kind == "tokens" else BATCH_BYTES
    for number in range(piece.start, piece.stop):
        group = metadata.row_group(number)
        size = max(1, _size(source, group, numbers))
        rows = min(max(1, limit * group.num_rows // size), _MAX_ROWS)
        left, problem = group.num_rows, "it has fewer rows than the file says"
        try:
            for batch in file.iter_batches(rows, [number], list(leaves), use_threads=False):
                left -= batch.num_rows
                yield batch
        except (OSError, pa.ArrowException) as error:
            problem = one_line(error)
        if left > 0:
            yield _Lost(left, f"and the {left - 1} rows after it in row group {number + 1} cannot be read: {problem}")
    file.close()


def _open_arrow(path: str, columns: list[int] | None = None) -> Any:
    pa = arrow("Arrow")
    import pyarrow.ipc as ipc

    options = ipc.IpcReadOptions(included_fields=columns, use_threads=False)
    mapped = pa.memory_map(path, "r")
    if mapped.read(6) == b"ARROW1":
        return ipc.open_file(mapped, options=options)
    mapped.seek(0)
    return ipc.open_stream(mapped, options=options)


def _batch_sizes(source: Source) -> list[int]:
    """Bytes of each record batch; one more at the end stands for what is cut off, so that reading meets it."""
    pa = arrow("Arrow")
    reader = _open_arrow(source.path)
    if hasattr(reader, "num_record_batches"):
        count = reader.num_record_batches
        return [source.bytes // count] * count if count else []
    sizes = []
    with pa.memory_map(source.path, "r") as mapped:
        messages = pa.ipc.MessageReader.open_stream(mapped)
        try:
            while True:
                message = messages.read_next_message()
                if message.type == "record batch":
                    sizes.append(message.body.size if message.body is not None else 0)
                del message
        except StopIteration:
            mapped.seek(max(0, source.bytes - len(_STREAM_END)))
            whole = mapped.read(len(_STREAM_END)) == _STREAM_END
        except (OSError, pa.ArrowException):
            whole = False
        return sizes if whole else [*sizes, 0]


def _arrow_rows(source: Source, piece: Piece) -> Iterator[Any]:
    """Record batches as they lie in the file, checked: offsets in it are trusted by everything after."""
    names = [name for name in (source.column, source.id_column) if name]
    schema = _open_arrow(source.path).schema
    heads = [name if schema.get_field_index(name) >= 0 else name.split(".")[0] for name in names]
    reader = _open_arrow(source.path, sorted({schema.get_field_index(head) for head in heads}))
    if hasattr(reader, "get_batch"):
        for number in range(piece.start, piece.stop):
            yield _checked(reader.get_batch(number))
        return
    for number in range(piece.stop):
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            yield _Lost(0, "is missing: the file ends without an end mark, as if cut short; get the file again")
            return
        if number >= piece.start:
            yield _checked(batch)


def _checked(batch: Any) -> Any:
    pa = arrow("Arrow")
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowException:
            # Perhaps only some text is not UTF-8, which breaks its own row alone.
            column.view(_without_text(column.type)).validate(full=True)
    return batch


def _without_text(kind: Any) -> Any:
    """The same type with bytes in place of text."""
    pa = arrow("Arrow")
    t = pa.types
    if t.is_string(kind):
        return pa.binary()
    if t.is_large_string(kind):
        return pa.large_binary()
    if t.is_list(kind) or t.is_large_list(kind):
        return (pa.list_ if t.is_list(kind) else pa.large_list)(_without_text(kind.value_type))
    if t.is_struct(kind):
        return pa.struct([(field.name, _without_text(field.type)) for field in kind])
    return kind
