"""Arrow arrays of every layout give the values that were put in, whole and in slices; nothing unreadable passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from detect.readers.arrow_values import cut, size_of, values_of
from detect.readers.batch import Broken

Made = tuple[list[Any], Any]  # values as they must come out, and an array of them
WORDS = ["", "a", "Grüße\u2028", "x" * 40, "\U0001f600 and more", 'a "quoted" \\ word\n', "a", "a"]


def field_of(array: Any) -> Any:
    return pa.field("x", array.type)


def some_words(chance: Random, count: int) -> list[str | None]:
    return [chance.choice([None, *WORDS]) for _ in range(count)]


def leaf(make: Callable[[list[Any]], Any]) -> Callable[[Random, int], Made]:
    def drawn(chance: Random, count: int) -> Made:
        values = some_words(chance, count)
        return values, make(values)

    return drawn


def as_bytes(values: list[Any], kind: Any) -> Any:
    return pa.array([None if value is None else value.encode() for value in values], kind)


def polars_categories(values: list[Any]) -> Any:
    found = sorted({value for value in values if value is not None}, reverse=True)
    places = pa.array([None if value is None else found.index(value) for value in values], pa.uint32())
    return pa.DictionaryArray.from_arrays(places, pa.array(found, pa.string_view()))


def run_ends(values: list[Any]) -> Any:
    ends = [row + 1 for row in range(len(values)) if values[row : row + 1] != values[row + 1 : row + 2]]
    firsts = pa.array([values[end - 1] for end in ends], pa.string())
    return pa.RunEndEncodedArray.from_arrays(pa.array(ends, pa.int32()), firsts)


def in_json(values: list[Any], kind: Any) -> Any:
    texts = pa.array([None if value is None else json.dumps(value) for value in values], kind)
    return pa.ExtensionArray.from_storage(pa.json_(kind), texts)


def numbers(chance: Random, count: int) -> Made:
    values = [chance.choice([None, -5, 0, 2**40]) for _ in range(count)]
    return values, pa.array(values, pa.int64())


LEAVES: dict[str, Callable[[Random, int], Made]] = {
    "string": leaf(lambda values: pa.array(values, pa.string())),
    "large string": leaf(lambda values: pa.array(values, pa.large_string())),
    "string view": leaf(lambda values: pa.array(values, pa.string_view())),
    "binary": leaf(lambda values: as_bytes(values, pa.binary())),
    "large binary": leaf(lambda values: as_bytes(values, pa.large_binary())),
    "binary view": leaf(lambda values: as_bytes(values, pa.binary_view())),
    "dictionary": leaf(lambda values: pa.array(values, pa.string()).dictionary_encode()),
    "large dictionary": leaf(lambda values: pa.array(values, pa.large_string()).dictionary_encode()),
    "polars": leaf(polars_categories),
    "run ends": leaf(run_ends),
    "JSON": leaf(lambda values: in_json(values, pa.string())),
    "large JSON": leaf(lambda values: in_json(values, pa.large_string())),
    "numbers": numbers,
    "nulls": lambda _, count: ([None] * count, pa.nulls(count)),
}


def anything(chance: Random, count: int) -> Made:
    if chance.random() < 0.3:
        return chance.choice(list(NESTED.values()))(chance, count)
    return chance.choice(list(LEAVES.values()))(chance, count)


def lists(chance: Random, count: int, *, large: bool = False, view: bool = False) -> Made:
    sizes = [chance.choice([None, 0, 1, 2, 3]) for _ in range(count)]
    lengths = [size or 0 for size in sizes]
    inner, array = anything(chance, sum(lengths))
    ends = [sum(lengths[:row]) for row in range(count + 1)]
    values = [None if size is None else inner[a:b] for size, (a, b) in zip(sizes, pairwise(ends), strict=True)]
    mask = pa.array([size is None for size in sizes], pa.bool_())
    offset = pa.int64() if large else pa.int32()
    if view:
        kind = pa.LargeListViewArray if large else pa.ListViewArray
        return values, kind.from_arrays(pa.array(ends[:-1], offset), pa.array(lengths, offset), array, mask=mask)
    kind = pa.LargeListArray if large else pa.ListArray
    return values, kind.from_arrays(pa.array(ends, offset), array, mask=mask)


def shuffled_views(chance: Random, count: int) -> Made:
    """List views in any order, over each other, with elements between them that no list has."""
    inner, array = anything(chance, 6)
    places = [sorted(chance.choices(range(7), k=2)) for _ in range(count)]
    starts, sizes = [a for a, _ in places], [b - a for a, b in places]
    made = pa.ListViewArray.from_arrays(pa.array(starts, pa.int32()), pa.array(sizes, pa.int32()), array)
    return [inner[a:b] for a, b in places], made


def fixed_lists(chance: Random, count: int) -> Made:
    width = chance.randint(1, 3)
    inner, array = anything(chance, count * width)
    null = [chance.random() < 0.3 for _ in range(count)]
    values = [None if gone else inner[row * width : (row + 1) * width] for row, gone in enumerate(null)]
    return values, pa.FixedSizeListArray.from_arrays(array, width, mask=pa.array(null, pa.bool_()))


def structs(chance: Random, count: int) -> Made:
    columns = {name: anything(chance, count) for name in chance.sample(["role", "tool", "a.b", ""], 2)}
    null = [chance.random() < 0.3 for _ in range(count)]
    values = [
        None if gone else {name: rows[row] for name, (rows, _) in columns.items() if rows[row] is not None}
        for row, gone in enumerate(null)
    ]
    fields = [pa.field(name, array.type) for name, (_, array) in columns.items()]
    arrays = [array for _, array in columns.values()]
    return values, pa.StructArray.from_arrays(arrays, fields=fields, mask=pa.array(null, pa.bool_()))


def maps(chance: Random, count: int) -> Made:
    keys = [chance.sample(["", "a", "b", "c"], chance.randint(0, 3)) for _ in range(count)]
    flat = [key for some in keys for key in some]
    inner, array = anything(chance, len(flat))
    ends = [sum(map(len, keys[:row])) for row in range(count + 1)]
    values = [dict(zip(some, inner[start:], strict=False)) for some, start in zip(keys, ends, strict=False)]
    return values, pa.MapArray.from_arrays(pa.array(ends, pa.int32()), pa.array(flat, pa.string()), array)


def runs(chance: Random, count: int) -> Made:
    inner, array = anything(chance, count)
    made = pa.RunEndEncodedArray.from_arrays(pa.array(range(2, 2 * count + 1, 2), pa.int32()), array)
    return [inner[row // 2] for row in range(count)], made.slice(0, count)


NESTED: dict[str, Callable[[Random, int], Made]] = {
    "list": lists,
    "large list": lambda chance, count: lists(chance, count, large=True),
    "list view": lambda chance, count: lists(chance, count, view=True),
    "large list view": lambda chance, count: lists(chance, count, large=True, view=True),
    "shuffled views": shuffled_views,
    "fixed list": fixed_lists,
    "struct": structs,
    "map": maps,
    "runs": runs,
}


@pytest.mark.parametrize("layout", [*LEAVES, *NESTED])
def test_every_layout_gives_what_was_put_in_whole_and_in_slices(layout: str) -> None:
    chance = Random(layout)
    for _ in range(25):
        values, array = (LEAVES | NESTED)[layout](chance, chance.randint(0, 7))
        array.validate(full=True)
        start, stop = sorted(chance.choices(range(len(values) + 1), k=2))
        for part, expected in ((array, values), (array.slice(start, stop - start), values[start:stop])):
            assert values_of(part, field_of(array)) == expected
            limit = chance.randint(1, 300)
            pieces = list(cut(part, limit))
            assert [value for _, some in pieces for value in values_of(some, field_of(array))] == expected
            assert [first for first, _ in pieces] == [sum(len(s) for _, s in pieces[:n]) for n in range(len(pieces))]
            assert all(len(some) == 1 or size_of(some) <= limit for _, some in pieces)


def test_what_is_not_text_says_so_in_its_own_row_whatever_is_around_it() -> None:
    bad = pa.array([b"a", b"b\xff", b"c", None], pa.binary())
    for kind in (pa.string(), pa.binary()):
        for array in (bad.view(kind), bad.cast(pa.binary_view()) if kind == pa.binary() else bad.view(kind)):
            turns = pa.StructArray.from_arrays([array, pa.array(["u"] * 4)], ["content", "role"])
            nested = pa.ListArray.from_arrays(pa.array([0, 1, 3, 3, 4], pa.int32()), turns)
            for made, rows in ((array, 4), (turns, 4), (nested, 4), (array.dictionary_encode(), 4)):
                values = values_of(made, field_of(made))
                broken = [value.reason for value in values if isinstance(value, Broken)]
                assert (broken, len(values)) == (["is not UTF-8 (byte 2)"], rows)
                assert isinstance(values[1], Broken)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a\\ud83d\\ude00\\u00e9"', "a\U0001f600é"),
        ('"a\\ud83d b"', "a\ufffd b"),
        ('"\\\\ud83d"', "\\ud83d"),
        ('{"a": [1, null, NaN]}', None),
        ("3", 3),
        ("null", None),
        ("18446744073709551616", 2**64),
        ('"a', Broken),
        ("", Broken),
        ("[" * 100_000, Broken),
    ],
)
def test_json_columns_are_decoded_and_what_is_no_json_is_broken(text: str, value: Any) -> None:
    array = pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array([text, '"next"']))
    one, following = values_of(array, field_of(array))
    assert following == "next"
    if value is Broken:
        assert isinstance(one, Broken)
    elif "NaN" in text:
        assert one["a"][:2] == [1, None]
    else:
        assert one == value


def test_extension_types_that_nobody_registered_are_read_where_they_are_text_and_broken_otherwise() -> None:
    def marked(array: Any, name: str) -> Any:
        return pa.field("x", array.type, metadata={"ARROW:extension:name": name})

    words, blobs = pa.array(["a", None]), pa.array([b"a", None])
    numbers = pa.array([[1, 2], None])
    assert values_of(words, marked(words, "my.text")) == ["a", None]
    assert values_of(pa.array(['["a"]']), marked(words, "arrow.json")) == [["a"]]
    for array in (blobs, numbers):
        one, none = values_of(array, marked(array, "my.zipped"))
        assert (one.reason, none) == ("has a value of type my.zipped", None)
    inner = pa.StructArray.from_arrays([blobs], fields=[marked(blobs, "my.zipped")])
    one, other = values_of(inner, field_of(inner))
    assert (one.reason, other) == ("has a value of type my.zipped", {})
    row = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[1, 2], [3, 4]]))
    square = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8).reshape(2, 2, 2))
    assert values_of(row, field_of(row)) == [[1, 2], [3, 4]]
    assert all(isinstance(value, Broken) for value in values_of(square, field_of(square)))
    name = UUID(int=5)
    array = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([name.bytes, None], pa.binary(16)))
    assert values_of(array, field_of(array)) == [str(name), None]


def test_other_values_are_as_json_has_them() -> None:
    when = datetime(2026, 11, 30, 7, 9, 1, tzinfo=UTC)
    arrays: list[tuple[Any, list[Any] | None]] = [
        (pa.array([Decimal("1.50"), Decimal(7), None]), [1.5, 7, None]),
        (pa.array([True, None]), [True, None]),
        (pa.array([1.5, None], pa.float16()), [1.5, None]),
        (pa.array([date(2026, 11, 30), None]), ["2026-11-30", None]),
        (pa.array([when, None], pa.timestamp("ns", "UTC")), ["2026-11-30 07:09:01.000000000Z", None]),
        (pa.array([timedelta(seconds=2), None], pa.duration("us")), ["2000000", None]),
        (pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), None),
        (pa.array([[(1, "a"), (2, None)]], pa.map_(pa.int64(), pa.string())), [{"1": "a", "2": None}]),
    ]
    for array, expected in arrays:
        values = values_of(array, field_of(array))
        json.dumps(values)
        assert expected is None or values == expected


def test_a_map_or_an_object_with_one_key_twice_is_broken() -> None:
    twice = pa.array([[("a", "x"), ("a", "y")], [("a", "z")]], pa.map_(pa.string(), pa.string()))
    bad, good = values_of(twice, field_of(twice))
    assert (bad.reason, good) == ("has a map with one key twice", {"a": "z"})
    words = pa.array(["a"])
    fields = pa.StructArray.from_arrays([words, words], ["x", "x"])
    [bad] = values_of(fields, field_of(fields))
    assert bad.reason == "has an object with one field twice"


def test_the_bytes_of_images_are_left_alone() -> None:
    image = pa.array([{"bytes": b"\xff\xd8", "path": "a.jpg"}, {"bytes": b"\xff", "path": None}])
    assert values_of(image, field_of(image)) == [{"path": "a.jpg"}, {}]
    assert size_of(image) < 200


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()], ids=str)
def test_words_far_apart_in_a_dictionary_are_found(kind: pa.DataType) -> None:
    words = [f"word {number}" for number in range(100)]
    dictionary = pa.array([word.encode() for word in words], kind) if kind == pa.binary() else pa.array(words, kind)
    places = pa.array([99, None, 3, 99, 50], pa.uint8())
    array = pa.DictionaryArray.from_arrays(places, dictionary)
    assert values_of(array, field_of(array)) == ["word 99", None, "word 3", "word 99", "word 50"]
    assert values_of(array.slice(1, 2), field_of(array)) == [None, "word 3"]
