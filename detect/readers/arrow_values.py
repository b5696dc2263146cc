"""Arrow arrays as the Python values that JSON of the same records gives, whatever the arrays' layout.

Written out by hand because pyarrow's own conversions are slow for nested arrays, lose lists (list views), stop at whole
arrays for one bad byte, or have no way at all (dictionaries of string views). Nothing here trusts more of an array than
`validate` has checked.
"""

from __future__ import annotations

import decimal
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from detect.readers.batch import I64, Broken, one_line
from detect.readers.stream import arrow
from detect.readers.turns import CONTENT_KEYS

_EXTENSION = b"ARROW:extension:name"
# In JSON: pairs of surrogates, surrogates alone (group 1), all other escapes.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(u[dD][89a-fA-F]\w\w)|.)", re.DOTALL)
_BLOCK = 1 << 16  # rows whose lengths are looked at together
_NEAR = 4  # entries of a dictionary for each that is used, up to which they are taken all
_LIST_BYTES, _STRUCT_BYTES = 8, 32  # what a row costs beside its contents


def extension_of(field: Any) -> str:
    """Name of a field's extension type, also of one that pyarrow doesn't know; "" for plain types."""
    if isinstance(field.type, arrow("Arrow").BaseExtensionType):
        return str(field.type.extension_name)
    return str((field.metadata or {}).get(_EXTENSION, b"").decode(errors="replace"))


def is_text(kind: Any) -> bool:
    """Whether a type is of text or of bytes, which may be text of writers that don't say so."""
    t = arrow("Arrow").types
    tests = (t.is_string, t.is_large_string, t.is_string_view, t.is_binary, t.is_large_binary, t.is_binary_view)
    return any(test(kind) for test in tests)


def is_list(kind: Any) -> bool:
    """Whether a type is of lists, in any layout."""
    t = arrow("Arrow").types
    tests = (t.is_list, t.is_large_list, t.is_fixed_size_list, t.is_list_view, t.is_large_list_view)
    return any(test(kind) for test in tests)


def is_media(kind: Any) -> bool:
    """Whether a type is the struct in which `datasets` keeps an image, a sound or a film: bytes and their path."""
    t = arrow("Arrow").types
    if not t.is_struct(kind):
        return False
    types = {field.name: field.type for field in kind}
    return "path" in types and "bytes" in types and is_text(types["bytes"]) and not t.is_string(types["bytes"])


def values_of(array: Any, field: Any) -> list[Any]:
    """Python values of an array.

    Parameters
    ----------
    field
        The array's field in its schema, whose metadata may tell of an extension type.

    Returns
    -------
    list
        As JSON has them: structs and maps as dicts (without the nulls that stand for fields a record doesn't have),
        bytes as text, times as text, `arrow.json` decoded. A `Broken` stands for a row with anything that can't be
        read.
    """
    broken: list[Broken] = []
    found = _values(array, field, broken)
    if not broken:
        return found
    return [_whole(value) for value in found]


def cut(array: Any, limit: int) -> Iterator[tuple[int, Any]]:
    """Slices of an array of at most ``limit`` bytes, or of one row, with where each starts."""
    for first in range(0, len(array), _BLOCK):
        block = array.slice(first, _BLOCK)
        ends = np.cumsum(_lengths(block))
        start = 0
        while start < len(block):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
            yield first + start, block.slice(start, stop - start)
            start = stop


def size_of(array: Any) -> int:
    """Bytes of an array's rows, as far as they become values."""
    return int(_lengths(array).sum())


def bounds(array: Any) -> tuple[Any, I64, I64]:
    """All elements of an array of lists of any layout, and where each list starts and stops; a null list is empty.

    Parameters
    ----------
    array
        Lists, also a slice of such an array.
    """
    t = arrow("Arrow").types
    if t.is_fixed_size_list(array.type):
        width = array.type.list_size
        starts = (np.arange(len(array)) + array.offset) * width
        stops = starts + width
    else:
        offsets = array.offsets.to_numpy().astype(np.int64)
        if t.is_list_view(array.type) or t.is_large_list_view(array.type):
            starts, stops = offsets, offsets + array.sizes.to_numpy()
        else:
            starts, stops = offsets[:-1], offsets[1:]
    if array.null_count:
        null = array.is_null().to_numpy(zero_copy_only=False)
        starts, stops = np.where(null, 0, starts), np.where(null, 0, stops)
    return (None if t.is_map(array.type) else array.values), starts, stops


def _values(array: Any, field: Any, broken: list[Broken]) -> list[Any]:
    """As `values_of`, with a `Broken` in the place of each value that can't be read, which ``broken`` lists too."""
    if not len(array):  # its buffers may be missing
        return []
    pa = arrow("Arrow")
    t = pa.types
    kind, extension = array.type, extension_of(field)
    if isinstance(kind, pa.BaseExtensionType):
        if extension == "arrow.uuid":
            return [None if value is None else str(value) for value in array.to_pylist()]
        array, kind = array.storage, array.type.storage_type
    if extension == "arrow.json":
        return [_decoded(text, broken) for text in _values(array, pa.field("json", kind), broken)]
    if extension and not readable(extension, field.type):
        valid = array.is_valid().to_pylist()
        return [_noted(Broken(f"has a value of type {one_line(extension)}"), broken) if x else None for x in valid]
    if t.is_dictionary(kind):
        return _of_dictionary(array, broken)
    if t.is_run_end_encoded(kind):
        runs, first = _runs(array)
        inner = _values(array.values.slice(first, int(runs.max(initial=-1)) + 1), pa.field("", kind.value_type), broken)
        return [inner[run] for run in runs.tolist()]
    if is_text(kind) or t.is_fixed_size_binary(kind):
        return _texts(array, broken)
    if t.is_map(kind):
        return _maps(array, broken)
    if is_list(kind):
        values, starts, stops = bounds(array)
        first, last = _span(starts, stops)
        inner = _values(values.slice(first, last - first), kind.value_field, broken)
        places = zip((starts - first).tolist(), (stops - first).tolist(), strict=True)
        return _with_nulls(array, [inner[start:stop] for start, stop in places])
    if t.is_struct(kind):
        return _structs(array, broken)
    return _scalars(array)


def readable(extension: str, kind: Any) -> bool:
    """Whether values of an extension type are what their storage holds: text, or one list of numbers."""
    pa = arrow("Arrow")
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if extension in ("arrow.json", "arrow.uuid", "arrow.bool8") or pa.types.is_dictionary(storage):
        return True
    if extension == "arrow.fixed_shape_tensor":
        return len(getattr(kind, "shape", ())) == 1
    return bool(pa.types.is_string(storage)) or pa.types.is_large_string(storage) or pa.types.is_string_view(storage)


def _noted(problem: Broken, broken: list[Broken]) -> Broken:
    broken.append(problem)
    return problem


def _decoded(text: Any, broken: list[Broken]) -> Any:
    """The value that a JSON text stands for."""
    if not isinstance(text, str):
        return text
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        return _noted(Broken("is nested too deeply"), broken)
    except msgspec.MsgspecError:
        pass
    try:
        return json.loads(_ESCAPE.sub(lambda m: "\\ufffd" if m[1] else m[0], text))
    except RecursionError:
        return _noted(Broken("is nested too deeply"), broken)
    except ValueError as error:
        return _noted(Broken(f"holds JSON that cannot be read: {one_line(error)}"), broken)


def _of_dictionary(array: Any, broken: list[Broken]) -> list[Any]:
    """Values by way of those of the dictionary that come up; string views are taken one by one, as pyarrow can't."""
    pa = arrow("Arrow")
    kind = array.type.value_type
    null = array.indices.is_null().to_numpy(zero_copy_only=False)
    places = array.indices.fill_null(0).to_numpy()
    used, which = np.unique(places[~null], return_inverse=True)
    words_of = array.dictionary
    if len(used) and used[-1] - used[0] < _NEAR * len(used):
        words = _values(words_of.slice(int(used[0]), int(used[-1] - used[0]) + 1), pa.field("", kind), broken)
        words = [words[place] for place in (used - used[0]).tolist()]
    elif pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        words = [_text(words_of[place], broken) for place in used.tolist()]
    else:
        words = _values(words_of.take(pa.array(used)), pa.field("", kind), broken)
    found: list[Any] = [None] * len(array)
    for row, word in zip(np.flatnonzero(~null).tolist(), which.tolist(), strict=True):
        found[row] = words[word]
    return found


def _runs(array: Any) -> tuple[I64, int]:
    """For each row of a run-end encoded array its run, counted from the first that is meant, and which that is."""
    ends = array.run_ends.to_numpy()
    runs = np.searchsorted(ends, np.arange(array.offset, array.offset + len(array)), side="right")
    first = int(runs[0]) if len(runs) else 0
    return runs - first, first


def _texts(array: Any, broken: list[Broken]) -> list[Any]:
    pa = arrow("Arrow")
    t = pa.types
    if t.is_string(array.type) or t.is_large_string(array.type) or t.is_string_view(array.type):
        try:
            values: list[Any] = array.to_numpy(zero_copy_only=False).tolist()  # ten times faster than to_pylist
            return values
        except (UnicodeDecodeError, pa.ArrowException):
            pass
    return [_text(value, broken) for value in array]


def _text(scalar: Any, broken: list[Broken]) -> Any:
    """A scalar of text or bytes as text."""
    try:
        value = scalar.as_py()
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        return _noted(Broken(f"is not UTF-8 (byte {error.start + 1})"), broken)


def _span(starts: I64, stops: I64) -> tuple[int, int]:
    """Where the first list of any element starts and the last one stops."""
    full = stops > starts
    return (int(starts[full].min()), int(stops[full].max())) if full.any() else (0, 0)


def _with_nulls(array: Any, values: list[Any]) -> list[Any]:
    if not array.null_count:
        return values
    valid = array.is_valid().to_numpy(zero_copy_only=False).tolist()
    return [value if one else None for value, one in zip(values, valid, strict=True)]


def _maps(array: Any, broken: list[Broken]) -> list[Any]:
    pa = arrow("Arrow")
    _, starts, stops = bounds(array)
    first, last = _span(starts, stops)
    keys = _values(array.keys.slice(first, last - first), array.type.key_field, broken)
    items = _values(array.items.slice(first, last - first), array.type.item_field, broken)
    if not is_text(array.type.key_type) and not pa.types.is_dictionary(array.type.key_type):
        keys = [key if isinstance(key, str) else json.dumps(key, default=str) for key in keys]
    found = []
    for start, stop in zip((starts - first).tolist(), (stops - first).tolist(), strict=True):
        bad = next((key for key in keys[start:stop] if isinstance(key, Broken)), None)
        pairs = {} if bad else dict(zip(keys[start:stop], items[start:stop], strict=True))
        if len(pairs) < stop - start:
            bad = bad or _noted(Broken("has a map with one key twice"), broken)
        found.append(bad or pairs)
    return _with_nulls(array, found)


def _structs(array: Any, broken: list[Broken]) -> list[Any]:
    """Dicts without null fields, which stand for those that a record doesn't have; a turn's content is kept."""
    kind = array.type
    fields = [(number, field) for number, field in enumerate(kind)]
    if is_media(kind):
        fields = [(number, field) for number, field in fields if field.name != "bytes"]
    names = [field.name for _, field in fields]
    if len(set(names)) < len(names):
        return [_noted(Broken("has an object with one field twice"), broken) for _ in range(len(array))]
    columns = [_values(array.field(number), field, broken) for number, field in fields]
    rows = zip(*columns, strict=True) if columns else iter([()] * len(array))
    sparse = any(name not in CONTENT_KEYS and None in column for name, column in zip(names, columns, strict=True))
    found = [dict(zip(names, row, strict=True)) for row in rows]
    if sparse:
        found = [
            {name: value for name, value in row.items() if value is not None or name in CONTENT_KEYS} for row in found
        ]
    return _with_nulls(array, found)


def _scalars(array: Any) -> list[Any]:
    """Numbers, truth values, times, and what else there is."""
    pa = arrow("Arrow")
    t = pa.types
    if t.is_null(array.type):
        return [None] * len(array)
    if (t.is_integer(array.type) or t.is_floating(array.type)) and not array.null_count:
        values: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
        return values
    if t.is_temporal(array.type):
        try:
            array = array.cast(pa.string())
        except pa.ArrowException:
            pass
    return [_simple(value) for value in array.to_pylist()]


def _simple(value: Any) -> Any:
    """A value of a rare type as JSON may have it."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {str(key): _simple(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_simple(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _whole(value: Any) -> Any:
    """The value, or what in it can't be read."""
    try:
        return _broken_in(value) or value
    except RecursionError:
        return Broken("is nested too deeply")


def _broken_in(value: Any) -> Broken | None:
    """The first part of a value that can't be read."""
    if isinstance(value, Broken):
        return value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := _broken_in(part))), None)


def _lengths(array: Any) -> I64:
    """Bytes of each row, (rows,)."""
    if not len(array):
        return np.zeros(0, np.int64)
    pa = arrow("Arrow")
    t = pa.types
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        array, kind = array.storage, array.type.storage_type
    if t.is_string_view(kind) or t.is_binary_view(kind):
        views = array.buffers()[1]  # 16 bytes for each value; the first four of them are its length
        lengths = np.frombuffer(views, np.int32)[4 * array.offset :: 4][: len(array)].astype(np.int64)
        if array.null_count:
            lengths[array.is_null().to_numpy(zero_copy_only=False)] = 0
        return np.asarray(lengths + _LIST_BYTES)
    if is_text(kind):
        import pyarrow.compute as pc

        lengths = pc.binary_length(array).fill_null(0)
        return np.asarray(lengths.to_numpy().astype(np.int64) + _LIST_BYTES)
    if t.is_dictionary(kind):
        places = array.indices.cast(pa.int64()).fill_null(-1).to_numpy()
        return np.asarray(np.append(_lengths(array.dictionary), _LIST_BYTES)[places])
    if t.is_run_end_encoded(kind):
        runs, first = _runs(array)
        return np.asarray(_lengths(array.values.slice(first, int(runs.max(initial=-1)) + 1))[runs])
    if is_list(kind) or t.is_map(kind):
        values, starts, stops = bounds(array)
        if values is not None and (width := _width(values.type)):
            return np.asarray((stops - starts) * width + _LIST_BYTES)
        first, last = _span(starts, stops)
        parts = [array.keys, array.items] if values is None else [values]
        inner = sum((_lengths(part.slice(first, last - first)) for part in parts), np.zeros(last - first, np.int64))
        ends = np.concatenate([[0], np.cumsum(inner)])
        full = stops > starts
        starts, stops = np.where(full, starts - first, 0), np.where(full, stops - first, 0)
        return np.asarray(ends[stops] - ends[starts] + _LIST_BYTES)
    if t.is_struct(kind):
        kept = [
            number for number in range(kind.num_fields) if not (is_media(kind) and kind.field(number).name == "bytes")
        ]
        of_fields = (_lengths(array.field(number)) for number in kept)
        return sum(of_fields, np.full(len(array), _STRUCT_BYTES, np.int64))
    return np.full(len(array), _width(kind) or _LIST_BYTES, np.int64)


def _width(kind: Any) -> int:
    """Bytes of each value of a type, where all have as many; 0 where they don't."""
    t = arrow("Arrow").types
    return (kind.bit_width + 7) // 8 if t.is_primitive(kind) or t.is_fixed_size_binary(kind) else 0
