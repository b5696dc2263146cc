"""Second step of a scan: of each tuple, the first place in the corpus that has it. Needs no key.

Fingerprints of one bucket are brought together from all blocks in the corpus's order; a tuple belongs to the first
document that holds it. So no tuple is counted twice, documents share none, and neither the number of workers nor the
order in which they end can change what is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detect.corpus.gather import bucket_starts, read_bucket
from detect.corpus.work import new_file
from detect.text.distinct import first_occurrences

Bytes = npt.NDArray[np.uint8]


def settle_bucket(blocks: Sequence[tuple[Path, int]], bucket: int, buckets: int, result: Path) -> int:
    """Find the tuples of a bucket that stand for the first time, write them to ``result``, and return their number.

    Parameters
    ----------
    blocks
        Folder and number of every block, in the order of the corpus.
    bucket, buckets
        Which bucket, and of how many.
    result
        File to write: the number of first tuples and one offset per block (int64), then a bit per tuple and block.
    """
    parts = [read_bucket(folder, number, bucket, buckets) for folder, number in blocks]
    counts = [len(part) for part in parts]
    first = first_occurrences(np.concatenate([np.empty(0, np.uint64), *parts]))
    del parts
    packed = [np.packbits(part) for part in np.split(first, np.cumsum(counts)[:-1])] if counts else []
    header = np.cumsum([0, *map(len, packed)], dtype=np.int64)
    distinct = int(first.sum())
    with new_file(result) as path, path.open("wb") as file:
        file.write(np.int64(distinct).tobytes())
        file.write(header.tobytes())
        for part in packed:
            file.write(part.tobytes())
    return distinct


def read_count(result: Path) -> int:
    """How many tuples of a bucket are distinct."""
    return int(np.fromfile(result, np.int64, count=1)[0])


def read_kept(results: Sequence[Path], block: int, blocks: int, starts: npt.NDArray[np.int64]) -> Bytes:
    """Which tuples of one block stand first in the corpus, in bucket order: uint8 of 0 and 1.

    Parameters
    ----------
    results
        Of all buckets, in order.
    block, blocks
        Number of the block in the corpus, and how many there are.
    starts
        The block's own.
    """
    kept = np.empty(int(starts[-1]), dtype=np.uint8)
    edges = bucket_starts(starts, len(results)).tolist()
    for result, low, high in zip(results, edges, edges[1:], strict=False):
        with result.open("rb") as file:
            file.seek(8 * (1 + block))
            start, stop = np.frombuffer(file.read(16), np.int64).tolist()
            file.seek(8 * (2 + blocks) + start)
            bits = np.frombuffer(file.read(stop - start), np.uint8)
        kept[low:high] = np.unpackbits(bits, count=high - low)
    return kept
