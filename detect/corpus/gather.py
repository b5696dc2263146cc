"""First step of a scan: documents of a shard to token ids and fingerprints of their tuples, in buckets. Needs no key.

A block holds whole documents of a shard, about two million tokens. A tuple that stands twice in a block is written
once. Contexts never cross from one document, or one turn of a chat, to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detect.corpus.settings import ScanSettings
from detect.corpus.work import Shard, new_folder
from detect.readers import Batch, ReadOptions, Source, read
from detect.records.seen import TurnCount
from detect.text.distinct import I64, U64, Mask, mark_first, tuple_fingerprints
from detect.text.encode import Encoder, EncoderUse, TokenBatch
from watermark.backends.numba_backend import jit
from watermark.errors import DyetraceError
from watermark.prf import U32
from watermark.spec import WatermarkSpec

BLOCK_TOKENS = 1 << 21
_CELLS = 256  # at least; a cell of a block, a part of a bucket, has a hash table that fits the cache


class BlockInfo(msgspec.Struct, frozen=True):
    """Counts of one block: tokens, tuples (positions with a known context), and tuples distinct in the block."""

    documents: int
    tokens: int
    tuples: int
    candidates: int


class Gathered(msgspec.Struct, frozen=True):
    """What a shard gave.

    Attributes
    ----------
    blocks
        Their counts.
    seen
        Records seen.
    skipped
        Broken ones: number in the shard, reason.
    encoder
        How texts were encoded.
    turns
        Of chats: the parts of turns in all records seen.
    """

    blocks: list[BlockInfo]
    seen: int
    skipped: list[tuple[int, str]]
    encoder: EncoderUse | None
    turns: list[TurnCount] = []


@dataclass(frozen=True, eq=False)
class Block:
    """A block as it was gathered.

    Attributes
    ----------
    ids
        Token ids of all documents, one after the other.
    document
        Which document of the block each row (document, or turn of a chat) belongs to, ascending.
    offsets
        Where rows start in ``ids``, and one more.
    records
        Record number of each document within the shard.
    names
        The documents' own ids; empty where none has any.
    local
        Mask over ``ids``: tuples that stand for the first time in this block.
    starts
        How many of these are in earlier cells, and one more; cells cut the buckets further.
    """

    ids: U32
    document: I64
    offsets: I64
    records: I64
    names: list[str | None]
    local: Mask
    starts: I64

    @property
    def documents(self) -> int:
        """How many."""
        return len(self.records)

    @property
    def document_of_token(self) -> npt.NDArray[np.int32]:
        """The document of each token, shape (tokens,)."""
        return np.repeat(self.document.astype(np.int32), np.diff(self.offsets))


def gather_shard(
    source: Source,
    shard: Shard,
    settings: ScanSettings,
    spec: WatermarkSpec,
    buckets: int,
    encoder: Encoder | None,
    folder: Path,
) -> Gathered:
    """Read a shard and write its blocks to ``folder``, whole or not at all.

    Raises
    ------
    DyetraceError
        A broken record (unless such are skipped), a token id outside the vocabulary, or text without a tokenizer.
    """
    blocks = []
    skipped: list[tuple[int, str]] = []
    turns: list[TurnCount] = []
    seen = 0
    with new_folder(folder) as temporary:
        rows = _documents(source, shard, settings, spec, encoder, skipped, turns)
        for number, (block, seen) in enumerate(_blocks(rows)):  # noqa: B007 (the last one counts)
            if block.documents:
                blocks.append(write_block(temporary, number, block, spec.context_width, buckets))
        done = Gathered(blocks, seen, skipped, None if encoder is None else encoder.use, added(turns))
        (temporary / "done.json").write_bytes(msgspec.json.encode(done))
    return done


def read_gathered(folder: Path) -> Gathered:
    """What `gather_shard` returned."""
    return msgspec.json.decode((folder / "done.json").read_bytes(), type=Gathered)


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded documents: ids, document and records as in `Block`, and the documents' own ids."""

    tokens: TokenBatch
    document: I64
    records: I64
    names: list[str | None]

    @property
    def documents(self) -> int:
        """How many."""
        return len(self.records)


def _documents(
    source: Source,
    shard: Shard,
    settings: ScanSettings,
    spec: WatermarkSpec,
    encoder: Encoder | None,
    skipped: list[tuple[int, str]],
    turns: list[TurnCount],
) -> Iterator[tuple[Rows, int]]:
    """Encoded documents of the shard, with the number of records seen; broken records and counts go to the lists."""
    left = settings.limit
    for batch in read(source, shard.piece, settings.read):
        skipped += batch.skipped
        turns[:] = added([*turns, *batch.turns])
        keep = _chosen(batch.records, shard.id, settings.sample)
        if left is not None:
            keep &= np.cumsum(keep) <= left
            left -= int(keep.sum())
        yield _encoded(source, batch, keep, spec, encoder, settings.read, skipped), batch.seen
        if left == 0:
            return


def added(counts: Iterable[TurnCount]) -> list[TurnCount]:
    """Counts of the same parts added up, by role and part."""
    sums: dict[tuple[str, str, bool], tuple[int, int]] = {}
    for one in counts:
        count, characters = sums.get((one.role, one.part, one.read), (0, 0))
        sums[one.role, one.part, one.read] = count + one.count, characters + one.characters
    return [TurnCount(*key, *sums[key]) for key in sorted(sums)]


def _chosen(records: I64, seed: str, share: float) -> Mask:
    """Which documents are in the sample: by their place, so that neither content nor key has a say."""
    if share == 1:
        return np.ones(len(records), dtype=np.bool_)
    words = np.stack([records & 0xFFFFFFFF, records >> 32], axis=1).astype(np.uint32)
    start = np.frombuffer(bytes.fromhex(seed)[:8], dtype="<u4").astype(np.uint32)
    sequence = np.concatenate([np.broadcast_to(start, words.shape), words], axis=1)
    prints = np.array([tuple_fingerprints(row, 3, 3)[0] for row in sequence], dtype=np.uint64)
    return prints < np.uint64(int(share * 2**64))


def _encoded(
    source: Source,
    batch: Batch,
    keep: Mask,
    spec: WatermarkSpec,
    encoder: Encoder | None,
    options: ReadOptions,
    skipped: list[tuple[int, str]],
) -> Rows:
    rows = keep[batch.row_document]
    if batch.tokens is not None:
        tokens = batch.tokens if rows.all() else TokenBatch.of([batch.tokens[i] for i in np.flatnonzero(rows).tolist()])
        wrong = int(tokens.ids.max(initial=0))
        if wrong >= spec.vocabulary_size:
            raise DyetraceError(
                f"{source.name} has token id {wrong}, but the spec's vocabulary has {spec.vocabulary_size} entries: "
                "its ids come from another tokenizer; scan its text with --field"
            )
    else:
        if encoder is None:
            raise DyetraceError(f"{source.name} holds text, which needs the spec's tokenizer: add --tokenizer")
        texts: Sequence[str] = batch.texts or []
        tokens = encoder.encode_batch(texts if rows.all() else [texts[i] for i in np.flatnonzero(rows).tolist()])
    number = np.cumsum(keep) - 1
    names = [name for name, kept in zip(batch.ids, keep.tolist(), strict=True) if kept]
    return Rows(tokens, number[batch.row_document[rows]], batch.records[keep], names)


def _blocks(parts: Iterator[tuple[Rows, int]]) -> Iterator[tuple[Rows, int]]:
    """Join parts into blocks of about `BLOCK_TOKENS`."""
    waiting: list[Rows] = []
    tokens = seen = 0
    for part, seen in parts:
        waiting.append(part)
        tokens += len(part.tokens.ids)
        if tokens >= BLOCK_TOKENS:
            yield _joined(waiting), seen
            waiting, tokens = [], 0
    yield _joined(waiting), seen


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(part.documents for part in parts)])
    ends = np.cumsum([0, *(len(part.tokens.ids) for part in parts)])
    nothing = np.empty(0, dtype=np.int64)
    return Rows(
        TokenBatch(
            np.concatenate([np.empty(0, np.uint32), *(part.tokens.ids for part in parts)]),
            np.concatenate([[0], *(part.tokens.offsets[1:] + end for part, end in zip(parts, ends, strict=False))]),
        ),
        np.concatenate([nothing, *(part.document + first for part, first in zip(parts, before, strict=False))]),
        np.concatenate([nothing, *(part.records for part in parts)]),
        [name for part in parts for name in part.names],
    )


def write_block(folder: Path, number: int, rows: Rows, width: int, buckets: int) -> BlockInfo:
    """Write the block and the fingerprints of its tuples, each once."""
    ids, offsets = rows.tokens.ids, rows.tokens.offsets.astype(np.int64)
    counted = _with_context(offsets, width)
    prints = tuple_fingerprints(ids, width, 0)
    local, starts = np.zeros(len(ids), dtype=np.bool_), np.zeros(max(buckets, _CELLS) + 1, dtype=np.int64)
    cut, places = np.empty(len(ids), dtype=np.uint64), np.empty(len(ids), dtype=np.uint32)
    first = cut[: _cut(prints, counted, _shift(starts), starts, cut, places, local)]
    first.tofile(folder / f"{number}.prints")
    np.savez(
        folder / f"{number}.npz",
        document=rows.document,
        offsets=offsets,
        records=rows.records,
        local=np.packbits(local),
    )
    starts.tofile(folder / f"{number}.starts")
    narrow = ids.astype(np.uint16) if ids.max(initial=0) < 2**16 else ids
    narrow.tofile(folder / f"{number}.ids{8 * narrow.itemsize}")
    if any(name is not None for name in rows.names):
        (folder / f"{number}.names").write_bytes(msgspec.json.encode(rows.names))
    return BlockInfo(rows.documents, len(ids), int(counted.sum()), len(first))


def _with_context(offsets: I64, width: int) -> Mask:
    """Mask of the positions that have ``width`` tokens of their own row before them."""
    mask = np.ones(int(offsets[-1]), dtype=np.bool_)
    for j in range(width):
        places = offsets[:-1] + j
        mask[places[places < offsets[1:]]] = False
    return mask


def _shift(starts: I64) -> np.uint64:
    """From a fingerprint to its cell, by its high bits."""
    return np.uint64(64 - ((len(starts) - 1).bit_length() - 1))


@jit()
def _cut(prints: U64, counted: Mask, shift: np.uint64, starts: I64, cut: U64, places: U32, local: Mask) -> int:
    """Bring the counted fingerprints into their cells, in order, and keep the first of each; returns their number.

    ``starts`` (cells + 1), ``cut`` (n) and ``local`` (n), which tells the places of first ones, are
    filled; ``places`` (n) is working memory.
    """
    cells = len(starts) - 1
    ends = np.zeros(cells, dtype=np.int64)
    for i in range(len(prints)):
        if counted[i]:
            ends[np.int64(prints[i] >> shift)] += 1
    low = 0
    for cell in range(cells):
        count = int(ends[cell])
        ends[cell] = low
        low += count
    for i in range(len(prints)):
        if counted[i]:
            home = np.int64(prints[i] >> shift)
            cut[ends[home]] = prints[i]
            places[ends[home]] = i
            ends[home] += 1
    kept = low = 0
    for cell in range(cells):
        high = int(ends[cell])
        mark_first(cut[low:high], places[low:high], local)
        for i in range(low, high):
            if local[places[i]]:
                cut[kept] = cut[i]
                kept += 1
        starts[cell + 1] = kept
        low = high
    return kept


def read_block(folder: Path, number: int) -> Block:
    """A block that `gather_shard` wrote."""
    with np.load(folder / f"{number}.npz") as arrays:
        found: dict[str, Any] = {name: arrays[name] for name in arrays.files}
    names, narrow = folder / f"{number}.names", folder / f"{number}.ids16"
    ids = np.fromfile(narrow, np.uint16) if narrow.exists() else np.fromfile(folder / f"{number}.ids32", np.uint32)
    return Block(
        ids=ids.astype(np.uint32, copy=False),
        document=found["document"],
        offsets=found["offsets"],
        records=found["records"],
        names=msgspec.json.decode(names.read_bytes()) if names.exists() else [],
        local=np.unpackbits(found["local"], count=len(ids)).view(np.bool_),
        starts=_starts(folder, number),
    )


@lru_cache(maxsize=1 << 10)
def _starts(folder: Path, number: int) -> I64:
    return np.fromfile(folder / f"{number}.starts", np.int64)


def bucket_starts(starts: I64, buckets: int) -> I64:
    """Of the starts of cells, those of buckets, and one more."""
    return starts[:: (len(starts) - 1) // buckets]


def read_bucket(folder: Path, number: int, bucket: int, buckets: int) -> U64:
    """Fingerprints of one bucket of a block."""
    start, stop = bucket_starts(_starts(folder, number), buckets)[bucket : bucket + 2].tolist()
    return np.fromfile(folder / f"{number}.prints", np.uint64, count=stop - start, offset=8 * start)


@jit()
def _pick(prints: U64, local: Mask, shift: np.uint64, starts: I64, kept: npt.NDArray[np.uint8], out: Mask) -> None:
    place = starts.copy()
    for i in range(len(prints)):
        if local[i]:
            cell = np.int64(prints[i] >> shift)
            out[i] = kept[place[cell]] != 0
            place[cell] += 1


def in_reading_order(block: Block, width: int, kept: npt.NDArray[np.uint8]) -> tuple[Mask, U64]:
    """Turn a mask over the block's fingerprints in bucket order into one over its tokens; the fingerprints as well."""
    prints = tuple_fingerprints(block.ids, width, 0)
    out = np.zeros(len(block.ids), dtype=np.bool_)
    _pick(prints, block.local, _shift(block.starts), block.starts, kept, out)
    return out, prints
