#!/usr/bin/env bash
# pyarrow 26.0.1: a cast of list views to lists loses the last list of every array, and shifts those of slices.
#
# `pa.array([[1], [2], [3]], pa.list_view(pa.int64())).cast(pa.list_(pa.int64()))` gives [[1], [2], []], without an error.
# A slice from its second list on gives one null and an empty list. The array that comes out has one offset too few, so
# that `validate` refuses it and what is read past the end is whatever lies there. `to_pylist` is right.
# Whoever brings columns of list views to plain lists before reading them loses the last document of each chunk of a file.
#
# Seen with pyarrow 26.0.1, Python 3.11, for list_view and large_list_view alike. Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PY'
import pyarrow as pa

rows = [[1], [2], [3]]
kinds = {
    "list_view": (pa.list_view(pa.int64()), pa.list_(pa.int64())),
    "large_list_view": (pa.large_list_view(pa.int64()), pa.large_list(pa.int64())),
}
for name, (view, plain) in kinds.items():
    array = pa.array(rows, view)
    array.validate(full=True)
    assert array.to_pylist() == rows
    cast = array.cast(plain)
    print(f"{name}: {rows} become {cast.to_pylist()}, all but the first of them {array.slice(1).cast(plain).to_pylist()}")
    assert cast.to_pylist() == [[1], [2], []], cast
    try:
        cast.validate(full=True)
    except pa.ArrowInvalid as error:
        print(f"{name}: what came out is no valid array: {error}")
    else:
        raise SystemExit("what came out is a valid array")
chunks = pa.chunked_array([pa.array(rows, kinds["list_view"][0])] * 2)
assert chunks.cast(kinds["list_view"][1]).to_pylist() == [[1], [2], [], [1], [2], []]
PY
