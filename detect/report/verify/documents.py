"""The files beside report.json, read for checking; what does not have their form is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from detect.records.scan import Hit, ScanRecord
from detect.report.verify.checks import Floats, NotDone
from watermark.errors import DyetraceError

I64 = npt.NDArray[np.int64]
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, eq=False)
class Rows:
    """The columns of documents.parquet.

    Attributes
    ----------
    key
        Index into the record's hypotheses, (n,).
    totals
        Under each sub-key of that key, (n, S) for the largest number of sub-keys S; 0 beyond a key's own.
    log10_adjusted, log10_segment
        NaN where there is none.
    ids
        The column itself, read row by row where it is needed.
    """

    input: I64
    record: I64
    tokens: I64
    tuples: I64
    key: I64
    key_tuples: I64
    totals: I64
    log10_pvalue: Floats
    log10_adjusted: Floats
    log10_segment: Floats
    log10_evalue: Floats
    found: npt.NDArray[np.bool_]
    ids: Any

    def __len__(self) -> int:
        return len(self.input)

    @property
    def tested(self) -> npt.NDArray[np.bool_]:
        """Which documents own tuples."""
        return self.tuples > 0


def read_rows(path: Path, record: ScanRecord) -> Rows:
    """Read documents.parquet.

    Raises
    ------
    NotDone
        pyarrow isn't installed.
    DyetraceError
        The file is not such a table.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise NotDone("this needs pyarrow: pip install 'dyetrace[scan]'") from None
    try:
        table = parquet.read_table(path).combine_chunks()
        adjusted = table.column("log10_pvalue_adjusted").to_numpy(zero_copy_only=False).astype(np.float64)
        found = table.column("found").to_numpy(zero_copy_only=False)
        keys = table.column("key").cast(pa.string()).combine_chunks().dictionary_encode()
        key = _key_numbers(keys, record)
        totals = _totals(table.column("totals"), key, record)
        if found.dtype != np.bool_ or table.column("found").null_count:
            raise DyetraceError("its column found must hold true or false")
        return Rows(
            input=_whole(table, "input"),
            record=_whole(table, "record"),
            tokens=_whole(table, "tokens"),
            tuples=_whole(table, "tuples"),
            key_tuples=_whole(table, "key_tuples"),
            log10_pvalue=_real(table, "log10_pvalue"),
            log10_segment=table.column("log10_pvalue_segment").to_numpy(zero_copy_only=False).astype(np.float64),
            log10_evalue=_real(table, "log10_evalue"),
            key=key,
            totals=totals,
            log10_adjusted=adjusted,
            found=found,
            ids=table.column("id"),
        )
    except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise DyetraceError(
            f"{path.name} can't be read as a table of documents: {' '.join(str(error).split())}"
        ) from None
    except DyetraceError as error:
        raise DyetraceError(f"{path.name} is not a scan's table of documents: {error}") from None


class SkippedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of skipped.jsonl: ``record`` counts from 1; null when the whole file was left out.

    ``column`` is said where several fields of the file are read.
    """

    input: str
    column: str | None = None
    record: int | None
    reason: str


def read_hits(path: Path) -> list[Hit]:
    """Read hits.jsonl."""
    return _read_lines(path, Hit)


def read_skipped(path: Path) -> list[SkippedRow]:
    """Read skipped.jsonl."""
    return _read_lines(path, SkippedRow)


def _read_lines(path: Path, kind: type[_Kind]) -> list[_Kind]:
    try:
        return [msgspec.json.decode(line, type=kind) for line in path.read_bytes().split(b"\n") if line]
    except OSError as error:
        raise DyetraceError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DyetraceError(f"{path.name} can't be read: {error}") from None


def _whole(table: Any, name: str) -> I64:
    column = table.column(name)
    if column.null_count:
        raise DyetraceError(f"its column {name} has gaps")
    values: I64 = column.to_numpy().astype(np.int64)
    if values.size and values.min() < 0:
        raise DyetraceError(f"its column {name} has numbers below 0")
    return values


def _real(table: Any, name: str) -> Floats:
    column = table.column(name)
    values: Floats = column.to_numpy(zero_copy_only=False).astype(np.float64)
    if column.null_count or np.isnan(values).any():
        raise DyetraceError(f"its column {name} has gaps")
    return values


def _key_numbers(keys: Any, record: ScanRecord) -> I64:
    """Index of each row's key among the record's hypotheses."""
    if keys.null_count:
        raise DyetraceError("its column key has gaps")
    place = {h.key: number for number, h in enumerate(record.hypotheses)}
    names = keys.dictionary.to_pylist()
    unknown = [name for name in names if name not in place]
    if unknown:
        raise DyetraceError(f"it names a key that the record lacks: {unknown[0]!r}")
    numbers = np.array([place[name] for name in names], dtype=np.int64)
    return numbers[keys.indices.to_numpy()] if len(keys) else np.empty(0, np.int64)


def _totals(column: Any, key: I64, record: ScanRecord) -> I64:
    """Lists of one total for each sub-key as a rectangle, filled up with 0."""
    lists = column.combine_chunks()
    if lists.null_count or lists.flatten().null_count:
        raise DyetraceError("its column totals has gaps")
    wanted = np.array([len(h.subkeys) for h in record.hypotheses], dtype=np.int64)
    lengths = lists.value_lengths().to_numpy().astype(np.int64)
    if len(key) and not np.array_equal(lengths, wanted[key]):
        raise DyetraceError("its column totals must have one total for each sub-key")
    rectangle = np.zeros((len(key), int(wanted.max(initial=0))), dtype=np.int64)
    rectangle[np.arange(rectangle.shape[1]) < lengths[:, None]] = lists.flatten().to_numpy()
    return rectangle
