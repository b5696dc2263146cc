"""Columns of Parquet and Arrow files: only those needed are read, row group by row group, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from detect.readers.arrow_values import cut, is_list, is_media, size_of, values_of
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
from detect.readers.choice import inspected, watcher
from detect.readers.columns import batches_of, has_column, head_of, kinds_of, other_columns, watched_columns
from detect.readers.fields import lookup
from detect.readers.stream import arrow
from detect.records.seen import ColumnSeen

_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_MIN_ROWS, _MAX_ROWS = 1 << 6, 1 << 13  # of a Parquet file, decoded at a time
_BUFFER = 1 << 18
_FEW_COLUMNS = 64
_HEAD_ROWS, _HEAD_BYTES = 64, 1 << 22  # of a file's beginning, looked at to choose a field; bytes of each column


@dataclass(frozen=True)
class _Lost:
    """Rows that can't be read; ``rows`` is 0 where their number is unknown and nothing follows."""

    rows: int
    reason: str


def inspect(path: str, form: str, options: ReadOptions) -> Inspected:
    """What a file holds, from its schema and its first rows.

    Raises
    ------
    Broken
        It is damaged, or no column fits.
    """
    pa = arrow(form.capitalize())
    try:
        schema = _schema_of(path, form)
        names = list(schema.names)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Broken(f"has two columns of the name {twice!r}; rename one of them")
        of_types, head = kinds_of(schema), _head_of_file(path, form, schema)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Broken(f"is no readable {form.capitalize()} file: {one_line(error)}") from None
    if options.id_field is not None and not has_column(schema, options.id_field):
        raise Broken(f"has no column {options.id_field!r} to take ids from; name another with --id-field")
    for column in options.fields:
        reason, _ = head.unread.get(head_of(names, column) or "", ("", 0))
        if reason:
            raise Broken(f"cannot be read in column {column!r}: its first row {reason}; name another with --field")
    # Types speak for columns in which nothing was seen, and for names with dots, which may be paths as well.
    kinds = {
        name: kind
        for name, kind in of_types.items()
        if ("." in name and name in names) or not any(_has(record, name) for record in head.records)
    }
    try:
        seen = inspected(head.records, options, kinds)
    except Broken:
        if not head.empty:
            raise
        # Columns without rows may be of any type; nothing will be read.
        column, kind = next(iter(of_types.items()), (names[0] if names else "", "text"))
        return Inspected(((column, kind),), None)
    other = (ColumnSeen(name, "other", count, 0, read=False) for name, (_, count) in head.unread.items())
    known = (column for column in seen.columns if column.name not in head.unread)
    return replace(seen, columns=(*known, *other))


def split(source: Source, target_bytes: int) -> list[Piece]:
    """Runs of row groups or record batches of about the wanted size."""
    pa = arrow(source.form.capitalize())
    try:
        sizes = _group_sizes(source) if source.form == "parquet" else _batch_sizes(source)
        if not source.column and not _schema_of(source.path, source.form).names:
            return []
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
    found = (_parquet_rows if source.form == "parquet" else _arrow_rows)(source, piece, options)
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
        yield from batches_of(rows, seen, source, options)
        seen += rows.num_rows


def items(source: Source) -> Iterator[dict[str, Any] | Broken]:
    """All rows as records, for readers that need several fields of one.

    Nulls are left out, and columns of which nothing can be read.

    Raises
    ------
    Broken
        The file is damaged; ``record`` is the number of the first row that can't be read.
    """
    pa = arrow(source.form.capitalize())
    unread = {seen.name for seen in source.columns if seen.kind == "other"}
    seen = 0
    try:
        for batch in _whole_batches(source):
            for start in range(0, batch.num_rows, _MIN_ROWS):
                part = batch.slice(start, _MIN_ROWS)
                columns = {
                    field.name: values_of(array, field)
                    for field, array in zip(part.schema, part.columns, strict=True)
                    if field.name not in unread
                }
                for row in zip(*columns.values(), strict=True) if columns else [()] * part.num_rows:
                    record = {name: value for name, value in zip(columns, row, strict=True) if value is not None}
                    yield next((value for value in row if isinstance(value, Broken)), record)
                seen += part.num_rows
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Broken(f"and all that follows cannot be read: {one_line(error)}; get the file again", seen) from None


def _whole_batches(source: Source) -> Iterator[Any]:
    """Record batches with all columns, but for the bytes of images."""
    if source.form == "parquet":
        file = _parquet_file(source.path)
        leaves = _leaves(file.schema_arrow, file.metadata, None)
        yield from file.iter_batches(_MIN_ROWS, columns=leaves, use_threads=False)
        return
    reader = _open_arrow(source.path)
    count = getattr(reader, "num_record_batches", None)
    for batch in reader if count is None else map(reader.get_batch, range(count)):
        yield _checked(batch)


def records_before(source: Source, piece: Piece) -> int:
    """Rows before the piece."""
    if source.form == "parquet":
        metadata = _metadata(source.path, source.bytes, source.mtime_ns)
        return sum(int(metadata.row_group(group).num_rows) for group in range(piece.start))
    rows = _arrow_rows(source, Piece(0, piece.start), None)
    return sum(int(batch.num_rows) for batch in rows if not isinstance(batch, _Lost))


def _has(record: dict[str, Any], column: str) -> bool:
    try:
        return lookup(record, column) is not None
    except Broken:
        return False


@dataclass(frozen=True)
class _Head:
    """The beginning of a file.

    Attributes
    ----------
    records
        Its first rows, null where something can't be read. Those after a damaged place are left out: whoever reads them
        will say so.
    unread
        Columns of which no value can be read: why, and how many there are.
    empty
        Whether the file has no rows.
    """

    records: list[dict[str, Any]]
    unread: dict[str, tuple[str, int]]
    empty: bool


def _head_of_file(path: str, form: str, schema: Any) -> _Head:
    pa = arrow(form.capitalize())
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    left = dict.fromkeys(schema.names, _HEAD_BYTES)
    parts = _parquet_head(path) if form == "parquet" else _arrow_head(path, len(schema))
    whole = True
    while True:
        try:
            part = next(parts, None)
        except (OSError, ValueError, pa.ArrowException):
            part, whole = None, False
        if part is None:
            break
        for field, array in zip(part.schema, part.columns, strict=True):
            for _, some in cut(array, _HEAD_BYTES // 4):
                if left[field.name] > 0:
                    columns[field.name] += values_of(some, field)
                    left[field.name] -= size_of(some)
    rows = min((len(values) for values in columns.values()), default=0)
    unread = {}
    for name, values in columns.items():
        present = [value for value in values[:rows] if value is not None]
        if present and all(isinstance(value, Broken) for value in present):
            unread[name] = (present[0].reason, len(present))
        values = [None if isinstance(value, Broken) else value for value in values[:rows]]
        # JSON has no times: what is written as text there is text for a reason.
        temporal = pa.types.is_temporal(schema.field(name).type)
        columns[name] = [value and 0 for value in values] if temporal else values
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return _Head(records, unread, whole and not any(columns.values()))


def _parquet_head(path: str) -> Iterator[Any]:
    """The first rows, few at a time."""
    file = _parquet_file(path)
    size = sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
    at_once = min(max(1, _BUFFER * file.metadata.num_rows // max(1, size)), _HEAD_ROWS)
    leaves = _leaves(file.schema_arrow, file.metadata, None)
    count = 0
    for batch in file.iter_batches(at_once, columns=leaves, use_threads=False):
        yield batch.slice(0, _HEAD_ROWS - count)
        count += batch.num_rows
        if count >= _HEAD_ROWS:
            return


def _arrow_head(path: str, columns: int) -> Iterator[Any]:
    """The first rows, column by column, as a record batch may be of any size; all at once where there are very many."""
    for some in [[column] for column in range(columns)] if columns <= _FEW_COLUMNS else [None]:
        reader = _open_arrow(path, some)
        count, number = 0, 0
        while count < _HEAD_ROWS:
            if hasattr(reader, "get_batch") and number == reader.num_record_batches:
                break
            try:
                batch = reader.get_batch(number) if hasattr(reader, "get_batch") else reader.read_next_batch()
            except StopIteration:
                break
            yield _checked(batch.slice(0, _HEAD_ROWS - count))
            count, number = count + batch.num_rows, number + 1


def _parquet_file(path: str, metadata: Any = None) -> Any:
    arrow("Parquet")
    import pyarrow.parquet as pq

    # A buffer instead of whole column chunks, which may hold gigabytes.
    return pq.ParquetFile(
        path, metadata=metadata, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True
    )


def _schema_of(path: str, form: str) -> Any:
    if form == "arrow":
        return _open_arrow(path).schema
    file = _parquet_file(path)
    rows = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != file.metadata.num_rows:
        raise Broken("is damaged: its row groups do not have as many rows as it says; get the file again")
    return file.schema_arrow


@lru_cache(maxsize=4)
def _metadata(path: str, _bytes: int, _mtime_ns: int) -> Any:
    """A file's metadata, parsed once for many pieces."""
    return _parquet_file(path).metadata


def _columns(schema: Any, source: Source, options: ReadOptions | None) -> list[str]:
    """What is read of each row; without options its documents alone."""
    if options is None:
        return [source.column]
    watched = watched_columns(schema, source) if watcher(source, options) else []
    return [source.column, *([source.id_column] if source.id_column else []), *other_columns(source), *watched]


def _leaves(schema: Any, metadata: Any, columns: list[str] | None) -> list[str]:
    """Paths of the leaf columns to read: those that ``columns`` need, or all; never the bytes of images."""
    names = list(schema.names)
    heads = {column: head_of(names, column) for column in (names if columns is None else columns)}
    wanted: list[bool] = []
    for field in schema:
        paths = [column[len(field.name) + 1 :].split(".") for column, head in heads.items() if head == field.name]
        marks = [_wanted_leaves(field.type, path) for path in paths] or [[False] * len(_wanted_leaves(field.type, []))]
        wanted += [any(some) for some in zip(*marks, strict=True)]
    leaves = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    return [path for path, one in zip(leaves, wanted, strict=True) if one]


def _wanted_leaves(kind: Any, path: list[str]) -> list[bool]:
    """For each leaf of a type, in order, whether it lies on a path: names of fields, places of lists, in any depth."""
    pa = arrow("Parquet")
    t = pa.types
    path = [name for name in path if name]
    if isinstance(kind, pa.BaseExtensionType):
        return _wanted_leaves(kind.storage_type, [])
    if is_list(kind):
        return _wanted_leaves(
            kind.value_type, path[1:] if path and (path[0] == "*" or path[0].lstrip("-").isdecimal()) else path
        )
    if t.is_map(kind):
        return _wanted_leaves(kind.key_type, []) + _wanted_leaves(kind.item_type, [])
    if not t.is_struct(kind):
        return [True]
    found: list[bool] = []
    named = bool(path) and kind.get_field_index(path[0]) >= 0
    for field in kind:
        below = _wanted_leaves(field.type, path[1:] if named else [])
        if (named and field.name != path[0]) or (is_media(kind) and field.name == "bytes"):
            below = [False] * len(below)
        found += below
    return found


def _group_sizes(source: Source) -> list[int]:
    """Bytes of each row group before compression. A column's own would be better, but pyarrow aborts the process
    when it is asked for those and they are damaged.
    """
    metadata = _metadata(source.path, source.bytes, source.mtime_ns)
    return [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]


def _parquet_rows(source: Source, piece: Piece, options: ReadOptions) -> Iterator[Any]:
    """Record batches of bounded size; a damaged row group costs its own rows only."""
    pa = arrow("Parquet")
    metadata = _metadata(source.path, source.bytes, source.mtime_ns)
    file = _parquet_file(source.path, metadata)
    leaves = _leaves(file.schema_arrow, metadata, _columns(file.schema_arrow, source, options))
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


def _arrow_rows(source: Source, piece: Piece, options: ReadOptions | None) -> Iterator[Any]:
    """Record batches as they lie in the file, checked: offsets in it are trusted by everything after."""
    schema = _open_arrow(source.path).schema
    heads = [head_of(list(schema.names), name) for name in _columns(schema, source, options)]
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
    if isinstance(kind, pa.BaseExtensionType):
        return _without_text(kind.storage_type)
    bytes_of = [
        (t.is_string, pa.binary()),
        (t.is_large_string, pa.large_binary()),
        (t.is_string_view, pa.binary_view()),
    ]
    for test, plain in bytes_of:
        if test(kind):
            return plain
    if t.is_fixed_size_list(kind):
        return pa.list_(_without_text(kind.value_type), kind.list_size)
    lists = [
        (t.is_list, pa.list_),
        (t.is_large_list, pa.large_list),
        (t.is_list_view, pa.list_view),
        (t.is_large_list_view, pa.large_list_view),
    ]
    for test, of in lists:
        if test(kind):
            return of(_without_text(kind.value_type))
    if t.is_map(kind):
        return pa.map_(_without_text(kind.key_type), _without_text(kind.item_type))
    if t.is_struct(kind):
        return pa.struct([(field.name, _without_text(field.type)) for field in kind])
    return kind
