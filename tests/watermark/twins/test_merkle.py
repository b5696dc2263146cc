from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.twins.merkle import inclusion_paths, is_included, leaf_hash, merkle_root

_LEAVES = st.lists(st.binary(min_size=32, max_size=32), unique=True, min_size=1, max_size=40)


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word: the left subtree has the largest power of two below the number."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + by_definition(leaves[:half]) + by_definition(leaves[half:])).digest()


@given(_LEAVES, st.randoms())
def test_the_root_is_the_rfc_s_over_sorted_hashes_in_whatever_order_they_come(leaves, random) -> None:
    root = by_definition(sorted(leaves))
    assert merkle_root(leaves) == root
    random.shuffle(leaves)
    assert merkle_root(leaves) == root


@given(_LEAVES, st.data())
def test_every_leaf_is_shown_by_its_path_and_by_nothing_else(leaves, data) -> None:
    root, n = merkle_root(leaves), len(leaves)
    paths = inclusion_paths(leaves, leaves)
    assert all(is_included(leaf, at, n, path, root) for leaf, (at, path) in zip(leaves, paths, strict=True))
    which = data.draw(st.integers(0, n - 1))
    leaf, (at, path) = leaves[which], paths[which]
    other = data.draw(st.binary(min_size=32, max_size=32).filter(lambda one: one != leaf))
    assert not is_included(other, at, n, path, root)
    assert not is_included(leaf, at, n, path, other)
    assert not is_included(leaf, at, n, [*path, other], root)
    for wrong in (-1, n, at + n):
        assert not is_included(leaf, wrong, n, path, root)
    if path:
        assert not is_included(leaf, at, n, path[:-1], root)
        assert not is_included(leaf, at ^ 1, n, path, root)
        level = data.draw(st.integers(0, len(path) - 1))
        changed = [other if i == level else step for i, step in enumerate(path)]
        assert changed == path or not is_included(leaf, at, n, changed, root)


def test_a_leaf_is_no_node() -> None:
    # Without the prefixes of the RFC an inner node could be shown as if it were a pair.
    a, b = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(a + b) != merkle_root([a, b])


def test_what_is_not_in_the_tree_has_no_path() -> None:
    with pytest.raises(KeyError):
        inclusion_paths([leaf_hash(b"a")], [leaf_hash(b"b")])
