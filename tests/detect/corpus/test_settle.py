"""A tuple belongs to the first document of the corpus that has it, however blocks and buckets are cut."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detect.corpus import gather
from detect.corpus.gather import in_reading_order, read_block
from detect.corpus.settle import read_count, read_kept, settle_bucket
from detect.text.encode import TokenBatch

WIDTH = 2


def naive(documents: list[list[int]]) -> list[list[bool]]:
    """Mask of the tuples that no earlier position of the corpus has."""
    seen: set[tuple[int, ...]] = set()
    masks = []
    for ids in documents:
        mask = [False] * len(ids)
        for i in range(WIDTH, len(ids)):
            one = tuple(ids[i - WIDTH : i + 1])
            mask[i] = one not in seen
            seen.add(one)
        masks.append(mask)
    return masks


def settled(documents: list[list[int]], cuts: list[int], buckets: int, folder: Path) -> tuple[list[list[bool]], int]:
    """The same by way of files: documents cut into blocks, tuples into buckets."""
    edges = [0, *cuts, len(documents)]
    blocks = []
    for number, (start, stop) in enumerate(pairwise(edges)):
        rows = [np.array(ids, np.uint32) for ids in documents[start:stop]]
        n = len(rows)
        part = gather.Rows(TokenBatch.of(rows), np.arange(n), np.arange(n), [None] * n)
        gather.write_block(folder, number, part, WIDTH, buckets)
        blocks.append((folder, number))
    results = [folder / f"bucket{bucket}" for bucket in range(buckets)]
    counts = [settle_bucket(blocks, bucket, buckets, result) for bucket, result in enumerate(results)]
    assert counts == [read_count(result) for result in results]
    masks: list[list[bool]] = []
    for number in range(len(blocks)):
        block = read_block(folder, number)
        kept = read_kept(results, number, len(blocks), block.starts)
        first, _ = in_reading_order(block, WIDTH, kept)
        masks += [first[a:b].tolist() for a, b in zip(block.offsets, block.offsets[1:], strict=False)]
    return masks, sum(counts)


@settings(max_examples=60)
@given(st.data())
def test_first_places_are_those_of_reading_the_corpus_in_order(tmp_path_factory, data: st.DataObject) -> None:
    documents = data.draw(st.lists(st.lists(st.integers(0, 3), max_size=30), min_size=1, max_size=8))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(documents)), max_size=3)))
    buckets = data.draw(st.sampled_from([2, 16, 64]))
    masks, distinct = settled(documents, cuts, buckets, tmp_path_factory.mktemp("work"))
    assert masks == naive(documents)
    assert distinct == sum(map(sum, masks))


def test_a_copy_of_a_document_owns_no_tuple(tmp_path: Path) -> None:
    ids = list(range(40))
    masks, distinct = settled([ids, ids, [*ids[:20], 7, 7, 7]], [1], 16, tmp_path)
    assert distinct == 38 + 3
    assert not any(masks[1])
    assert sum(masks[2]) == 3


def test_contexts_do_not_reach_into_the_document_before(tmp_path: Path) -> None:
    masks, _ = settled([[1, 2, 3], [4, 5], [6, 7, 8]], [], 16, tmp_path)
    assert masks == [[False, False, True], [False, False], [False, False, True]]


def test_turns_of_one_chat_are_one_document_and_share_no_context(tmp_path: Path) -> None:
    turns = [np.array([1, 2, 3, 4], np.uint32), np.array([5, 6, 7], np.uint32)]
    rows = gather.Rows(TokenBatch.of(turns), np.array([0, 0]), np.array([0]), [None])
    info = gather.write_block(tmp_path, 0, rows, WIDTH, 16)
    assert (info.documents, info.tokens, info.tuples) == (1, 7, 3)
