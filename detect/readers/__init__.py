"""Suspect corpora as batches of documents: find files, cut them into pieces, read each piece in bounded memory.

JSONL, JSON, CSV, web archives, tar and plain text (all of these also compressed), Parquet and Arrow (also folders of
`datasets.save_to_disk`).
"""

from __future__ import annotations

from detect.readers.batch import Batch, BrokenRecord, Form, Piece, ReadOptions, Source
from detect.readers.find import find_sources
from detect.readers.sources import place, read, sha256_of, split

__all__ = [
    "Batch",
    "BrokenRecord",
    "Form",
    "Piece",
    "ReadOptions",
    "Source",
    "find_sources",
    "place",
    "read",
    "sha256_of",
    "split",
]
