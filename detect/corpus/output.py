"""The files beside report.json: a table of all documents, the log of hits and the list of what was skipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from detect.corpus.conclude import Found
from detect.corpus.gather import Gathered
from detect.corpus.tally import Documents
from detect.corpus.tasks import first_records, gathered_shards
from detect.corpus.work import Plan, WorkFolder
from detect.keyed.rings import KeySet
from detect.records.scan import Hit
from detect.text.distinct import I64
from watermark.errors import MachineError


def check_parquet() -> None:
    """Raise DyetraceError where the table of documents can't be written for want of a package."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise MachineError("a scan's report needs pyarrow: pip install 'dyetrace[scan]'") from None


def documents_table(
    work: WorkFolder, plan: Plan, keys: KeySet, documents: Documents, found: Found, *, ids: bool = True
) -> bytes:
    """A row for each document, in the corpus's order, as Parquet; without ``ids`` records' own ids are left out."""
    import pyarrow as pa
    from pyarrow import parquet

    source, first, names = _places(work, plan)
    key_names = pa.array([str(key.name) for key in keys.keys])
    subkeys = np.array([len(key.subkeys) for key in keys.keys])
    lengths = subkeys[documents.key] if len(documents) else np.empty(0, np.int64)
    held = np.arange(documents.totals.shape[1]) < lengths[:, None]
    table = pa.table(
        {
            "input": pa.array(source, pa.int32()),
            "record": pa.array(first + documents.records + 1, pa.int64()),
            "id": pa.array(names if ids else [None] * len(names), pa.string()),
            "tokens": pa.array(documents.tokens, pa.int32()),
            "tuples": pa.array(documents.tuples, pa.int32()),
            "key": pa.DictionaryArray.from_arrays(pa.array(documents.key), key_names),
            "key_tuples": pa.array(documents.key_tuples, pa.int32()),
            "totals": pa.ListArray.from_arrays(
                pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), pa.array(documents.totals[held])
            ),
            "log10_pvalue_segment": pa.array(documents.log10_segment, mask=np.isnan(documents.log10_segment)),
            "log10_pvalue": pa.array(documents.log10_pvalue),
            "log10_pvalue_adjusted": pa.array(found.log10_adjusted, mask=np.isnan(found.log10_adjusted)),
            "log10_evalue": pa.array(documents.log10_evalue),
            "found": pa.array(found.discovered),
        }
    )
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", row_group_size=1 << 17, store_schema=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _places(work: WorkFolder, plan: Plan) -> tuple[list[int], I64, list[str | None]]:
    """Input, records of it in earlier shards, and own id of each document."""
    gathered = gathered_shards(work, plan)
    source: list[int] = []
    first: list[int] = []
    names: list[str | None] = []
    for shard, before, done in zip(plan.shards, first_records(plan, gathered), gathered, strict=True):
        for number, block in enumerate(done.blocks):
            source += [shard.source] * block.documents
            first += [before] * block.documents
            own = work.gathered(shard) / f"{number}.names"
            names += msgspec.json.decode(own.read_bytes()) if own.exists() else [None] * block.documents
    return source, np.array(first, np.int64), names


def hits_lines(hits: Iterable[Hit]) -> bytes:
    """One hit a line."""
    return b"".join(msgspec.json.encode(hit) + b"\n" for hit in hits)


def skipped_lines(plan: Plan, gathered: Sequence[Gathered], unreadable: Sequence[tuple[str, str]]) -> bytes:
    """What could not be read: file, record (from 1; null for a whole file) and reason, one a line.

    Of a file of which several fields are read the field is said as well.
    """
    names = [source.name for source in plan.sources]
    several = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    rows: list[dict[str, str | int | None]] = [
        {"input": name, "record": None, "reason": reason} for name, reason in unreadable
    ]
    for shard, before, done in zip(plan.shards, first_records(plan, gathered), gathered, strict=True):
        source = plan.sources[shard.source]
        place: dict[str, str | int | None] = {"input": source.name}
        place |= {"column": source.column} if source.name in several else {}
        rows += [place | {"record": before + record + 1, "reason": reason} for record, reason in done.skipped]
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
