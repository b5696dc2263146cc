"""Columns of Parquet and Arrow files: only those needed are read, row group by row group, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from detect.readers.batch import (
    BATCH_BYTES,
    Batch,
    Broken,
    Draft,
    Inspected,
    Piece,
    ReadOptions,
    Source,
    one_line,
)
from detect.readers.columns import batches_of, kind_of_type
from detect.readers.fields import CANDIDATES, CONTENT_KEYS, ROLE_KEYS, no_field
from detect.readers.stream import arrow

_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_MIN_ROWS, _MAX_ROWS = 1 << 6, 1 << 13  # of a Parquet file, decoded at a time
_BUFFER = 1 << 18


@dataclass(frozen=True)
class _Lost:
    """Rows that can't be read; ``rows`` is 0 where their number is unknown and nothing follows."""

    rows: int
    reason: str


def inspect(path: str, form: str, options: ReadOptions) -> Inspected:
    """Columns and id column of a file, from its schema.

    Raises
    ------
    Broken
        It is damaged, or no column fits.
    """
    pa = arrow(form.capitalize())
    try:
        schema = _parquet_schema(path) if form == "parquet" else _open_arrow(path).schema
        names = list(schema.names)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Broken(f"is no readable {form.capitalize()} file: {one_line(error)}") from None
    field = options.fields[0] if options.fields else None
    wanted = CANDIDATES if field is None else [(field, None)]
    for column, expected in wanted:
        kind = kind_of_type(_type_at(schema, column))
        if kind is not None and expected in (kind, None):
            break
    else:
        raise no_field(names, field)
    if options.id_field is not None and _type_at(schema, options.id_field) is None:
        raise Broken(f"has no column {options.id_field!r} to take ids from; name another with --id-field")
    id_column = options.id_field or ("id" if _type_at(schema, "id") is not None else None)
    return Inspected(((column, kind),), id_column if id_column != column else None)


def split(source: Source, target_bytes: int) -> list[Piece]:
    """Runs of row groups or record batches of about the wanted size."""
    pa = arrow(source.form.capitalize())
    try:
        sizes = _group_sizes(source) if source.form == "parquet" else _batch_sizes(source)
    except (OSError, ValueError, pa.ArrowException) as error:
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
        except (OSError, ValueError, pa.ArrowException) as error:
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
    if rows.schema.get_field_index(name) >= 0:
        return rows.column(name)
    import pyarrow.compute as pc

    head, *rest = name.split(".")
    return pc.struct_field(rows.column(head), rest)


def _parquet_file(path: str, metadata: Any = None) -> Any:
    arrow("Parquet")
    import pyarrow.parquet as pq

    # A buffer instead of whole column chunks, which may hold gigabytes.
    return pq.ParquetFile(
        path, metadata=metadata, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True
    )


def _parquet_schema(path: str) -> Any:
    file = _parquet_file(path)
    rows = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != file.metadata.num_rows:
        raise Broken("is damaged: its row groups do not have as many rows as it says; get the file again")
    return file.schema_arrow


@lru_cache(maxsize=4)
def _metadata(path: str, _bytes: int, _mtime_ns: int) -> Any:
    """A file's metadata, parsed once for many pieces."""
    return _parquet_file(path).metadata


def _leaves(source: Source, metadata: Any) -> list[str]:
    """Paths of the leaf columns to read: of chats only who speaks and what is said."""
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    found: list[str] = []
    for name in (source.column, source.id_column):
        below = [path for path in paths if name and (path == name or path.startswith(f"{name}."))]
        if name == source.column and source.kind == "messages":
            keys = {*ROLE_KEYS, *CONTENT_KEYS}
            below = [path for path in below if keys & set(path[len(name) :].split("."))] or below
        found += below
    return list(dict.fromkeys(found))


def _group_sizes(source: Source) -> list[int]:
    """Bytes of each row group before compression. A column's own would be better, but pyarrow aborts the process
    when it is asked for those and they are damaged.
    """
    metadata = _metadata(source.path, source.bytes, source.mtime_ns)
    return [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]


def _parquet_rows(source: Source, piece: Piece) -> Iterator[Any]:
    """Record batches of bounded size; a damaged row group costs its own rows only."""
    pa = arrow("Parquet")
    metadata = _metadata(source.path, source.bytes, source.mtime_ns)
    file = _parquet_file(source.path, metadata)
    leaves = _leaves(source, metadata)
    for number in range(piece.start, piece.stop):
        group = metadata.row_group(number)
        rows = BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)
        rows = min(max(_MIN_ROWS, rows), _MAX_ROWS)
        left, problem = group.num_rows, "it has fewer rows than the file says"
        try:
            for batch in file.iter_batches(rows, [number], leaves, use_threads=False):
                left -= batch.num_rows
                yield batch
        except (OSError, ValueError, pa.ArrowException) as error:
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
                if message.type not in ("schema", "dictionary"):  # a batch, or what was one before it was damaged
                    sizes.append(message.body.size if message.body is not None else 0)
                del message
        except StopIteration:
            whole = mapped.tell() == source.bytes  # or a damaged length passes for the end mark
            mapped.seek(max(0, source.bytes - len(_STREAM_END)))
            whole = whole and mapped.read(len(_STREAM_END)) == _STREAM_END
        except (OSError, ValueError, pa.ArrowException):
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
