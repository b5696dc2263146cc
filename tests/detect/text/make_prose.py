"""Makes detect/texts/prose.jsonl.xz from the Python that runs it, 3.11.7: ``python -m tests.detect.text.make_prose``.

What is shipped was made once and stays as it is: reports name it by its hash. This is here to show what it is.
"""

from __future__ import annotations

import ast
import json
import lzma
import re
import sys
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from detect.text import natural_text
from detect.text.natural_text import _standard_library

Documents = Iterator[tuple[str, str]]

PYTHON = (3, 11, 7)
DOCUMENTS = 250
_PIECE = 2000  # characters of prose in one document


def made() -> bytes:
    """The documents as JSON, one a line."""
    found = islice(natural_text._distinct(_prose()), DOCUMENTS)
    return b"".join(json.dumps({"name": name, "text": text}).encode() + b"\n" for name, text in found)


def _prose() -> Documents:
    from pydoc_data.topics import topics

    for topic in sorted(topics):
        yield from _pieces(f"topics/{topic}", topics[topic])
    for name, source in _standard_library():
        try:
            with warnings.catch_warnings(action="ignore"):  # about its escapes
                tree = ast.parse(source)
        except (SyntaxError, ValueError):  # samples of broken code are part of some installations
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
        yield from _pieces(f"docstrings/{name}", "\n\n".join(texts))


def _pieces(name: str, text: str) -> Documents:
    """Cut the running prose of a text into documents of whole paragraphs."""
    piece: list[str] = []
    number = 1
    for paragraph in [*_paragraphs(text), None]:
        if piece and (paragraph is None or sum(map(len, piece)) + len(paragraph) > _PIECE):
            document = "\n\n".join(piece)
            if len(document) > _PIECE // 4:
                yield f"{name}/{number}", document
                number += 1
            piece = []
        if paragraph is not None:
            piece.append(paragraph)


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs that read as prose: no code, tables, grammar or lists."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        if block[:1].isspace() or "\n " in block:
            continue
        paragraph = re.sub(r"(?<!\w)[*`]+([^*`\n]+)[*`]+(?!\w)", r"\1", " ".join(block.split()))
        words = paragraph.split()
        plain = sum(word.strip(".,;:()'\"").isalpha() for word in words)
        if len(words) >= 20 and paragraph[0].isupper() and paragraph[-1] == "." and plain > 0.8 * len(words):
            found.append(paragraph)
    return found


if __name__ == "__main__":
    if sys.version_info[:3] != PYTHON:
        sys.exit("the shipped prose is that of Python 3.11.7")
    target = Path(natural_text.__file__).parents[1] / "texts" / "prose.jsonl.xz"
    target.write_bytes(lzma.compress(made(), preset=9 | lzma.PRESET_EXTREME))
