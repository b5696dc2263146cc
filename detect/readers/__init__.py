"""Suspect corpora as batches of documents: find files, cut them into pieces, read each piece in bounded memory.

JSONL (also compressed), Parquet, Arrow (also folders of `datasets.save_to_disk`) and plain text.
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
