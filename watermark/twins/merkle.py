"""A Merkle tree over the leaf hashes of pairs, sorted so that their order says nothing (RFC 6962, section 2.1).

Its root is short enough to publish, and shows later of any one pair that it was among them, without showing others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a leaf: SHA-256 over a zero byte and the entry."""
    return hashlib.sha256(_LEAF + entry).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes in any order; they are sorted first.

    Parameters
    ----------
    leaves
        Leaf hashes, 32 bytes each.

    Examples
    --------
    >>> merkle_root([]).hex()[:16]  # SHA-256 of nothing, as the RFC has it
    'e3b0c44298fc1c14'
    >>> a, b = leaf_hash(b"a"), leaf_hash(b"b")
    >>> merkle_root([a, b]) == merkle_root([b, a])
    True
    """
    if not leaves:
        return hashlib.sha256().digest()
    return _levels(leaves)[-1][0]


def inclusion_paths(leaves: Sequence[bytes], wanted: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
    """For each wanted leaf hash its place among the sorted leaves, and its audit path (RFC 6962, section 2.1.1).

    Raises
    ------
    KeyError
        A wanted hash is not among the leaves.
    """
    levels = _levels(leaves)
    at = {leaf: place for place, leaf in enumerate(levels[0])}
    return [(at[leaf], _path(levels, at[leaf])) for leaf in wanted]


def is_included(leaf: bytes, index: int, count: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether an audit path leads from a leaf hash in its place to the root (RFC 9162, section 2.1.3.2).

    Examples
    --------
    >>> leaves = [leaf_hash(bytes([i])) for i in range(5)]
    >>> ((place, path),) = inclusion_paths(leaves, leaves[3:4])
    >>> is_included(leaves[3], place, 5, path, merkle_root(leaves))
    True
    >>> is_included(leaves[2], place, 5, path, merkle_root(leaves))
    False
    """
    if not 0 <= index < count:
        return False
    here, last, found = index, count - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if here & 1 or here == last:
            found = _node(sibling, found)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            found = _node(found, sibling)
        here, last = here >> 1, last >> 1
    return last == 0 and found == root


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All levels, the leaves first. A node without a sibling moves up as it is, which gives the RFC's tree."""
    levels = [sorted(leaves)]
    while len(below := levels[-1]) > 1:
        above = [_node(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)]
        levels.append(above + below[2 * len(above) :])
    return levels


def _path(levels: list[list[bytes]], index: int) -> list[bytes]:
    path = []
    for level in levels[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index >>= 1
    return path


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
