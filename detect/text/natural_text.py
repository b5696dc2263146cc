"""Natural text that nobody marked: null material for calibration, for the demo, and for the control of every scan.

Nothing is downloaded and nothing is random. Prose is shipped with the package (``texts/``, where a notice says whose it
is), so that a control is the same for whoever recomputes it; the other kinds are what the running Python and the
installed packages hold.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import struct
import sysconfig
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path, PurePath

from watermark.errors import DyetraceError, MachineError

__all__ = ["KINDS", "PROSE_BYTES", "PROSE_SHA256", "natural_documents"]

Documents = Iterator[tuple[str, str]]

PROSE_SHA256 = "66d3926e83c1c1dc51aa5993557f89a2f78fc0771792988f1fb6c863bb5dae7e"
"""Of the shipped prose, one JSON object a line: what a report names its control corpus by."""
PROSE_BYTES = 386_338
"""Its size."""

_TEMPLATE = re.compile(r"[%{<]")
_LICENCE_NAME = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)


def natural_documents(kind: str, limit: int | None = None) -> list[tuple[str, str]]:
    """Return distinct documents of one kind as (name, text), in the same order every time.

    Parameters
    ----------
    kind
        * `prose`: English paragraphs from the reference and the docstrings of Python 3.11.7, 250 documents at most;
        * `code`: source files of the standard library;
        * `licences`: licence files of the installed packages;
        * `repetitive`: tables (character encodings, file lists), which repeat themselves more than any prose;
        * `languages`: translated messages of installed packages, one document per language (Django
          alone brings 90).
    limit
        At most this many documents.

    Raises
    ------
    DyetraceError
        For an unknown kind, or where the installation holds no text of it.
    """
    if kind not in _SOURCES:
        raise DyetraceError(f"kind of natural text ({kind!r}) must be one of {', '.join(KINDS)}")
    if limit is not None and limit < 1:
        raise DyetraceError(f"limit ({limit}) must be at least 1 document")
    found = list(islice(_distinct(_SOURCES[kind]()), limit))
    if not found:
        fix = "run `pip install django`" if kind == "languages" else "install a complete Python"
        raise DyetraceError(f"this Python installation holds no natural text of the kind {kind!r}: {fix}")
    return found


def _distinct(documents: Documents) -> Documents:
    seen: set[str] = set()
    for name, text in documents:
        if text not in seen:
            seen.add(text)
            yield name, text


def _prose() -> Documents:
    """Return the documents that are shipped, which are the same for every Python."""
    for line in _shipped().decode("utf-8").splitlines():
        document = json.loads(line)
        yield document["name"], document["text"]


def _shipped() -> bytes:
    path = Path(__file__).parents[1] / "texts" / "prose.jsonl.xz"
    try:
        data = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise MachineError(f"cannot read {path}, which is part of dyetrace ({error}); install it anew") from None
    if hashlib.sha256(data).hexdigest() != PROSE_SHA256:
        raise MachineError(f"{path}, which is part of dyetrace, was changed; install it anew")
    return data


def _code() -> Documents:
    return ((name, source) for name, source in _standard_library() if len(source) > 2000)


def _standard_library() -> Documents:
    """Return the sources that every build installs; tests and bundled packages differ between them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    optional = {
        "test",
        "tests",
        "site-packages",
        "dist-packages",
        "idlelib",
        "lib2to3",
        "ensurepip",
        "encodings",
    }
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not optional.intersection(parts) and not parts[0].startswith(("_sysconfig", "config-", "pydoc_data")):
            text = _read(path)
            if text:
                yield "/".join(parts), text


def _licences() -> Documents:
    kinds = ("", ".txt", ".md", ".rst")
    for name, path in _package_files(lambda file: _LICENCE_NAME.search(file.name) and file.suffix.lower() in kinds):
        text = _read(path)
        if len(text) > 500:
            yield name, text


def _repetitive() -> Documents:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*(root / "encodings").glob("*.py"), root / "html" / "entities.py"]):
        text = _read(path)
        if len(text) > 5000:
            yield f"{path.parent.name}/{path.name}", text
    for name, path in _package_files(lambda file: file.name == "RECORD"):
        text = _read(path)
        if len(text) > 2000:
            yield name, text


def _languages() -> Documents:
    catalogs: dict[tuple[str, str], list[str]] = {}
    for name, path in _package_files(lambda file: file.suffix == ".mo" and file.parent.name == "LC_MESSAGES"):
        language = path.parent.parent.name
        if not language.startswith("en"):
            catalogs.setdefault((language, name.split("/")[0]), []).extend(_messages(path.read_bytes()))
    for (language, package), messages in sorted(catalogs.items()):
        text = "\n".join(dict.fromkeys(messages))
        if len(text) > 2000:
            yield f"{language}/{package}", text


def _messages(data: bytes) -> list[str]:
    """Return the translations in a gettext catalogue (GNU .mo), without templates and single words."""
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    if len(data) < 20 or struct.unpack(f"{order}I", data[:4])[0] != 0x950412DE:
        return []
    _, _, count, _, table = struct.unpack(f"{order}5I", data[:20])
    messages: list[str] = []
    for entry in range(1, count):  # entry 0 is the catalogue's header
        length, start = struct.unpack_from(f"{order}2I", data, table + 8 * entry)
        messages.extend(data[start : start + length].decode("utf-8", "replace").split("\0"))
    return [message for message in messages if len(message) > 20 and not _TEMPLATE.search(message)]


def _package_files(wanted: Callable[[PurePath], object]) -> Iterator[tuple[str, Path]]:
    """Return those files of every installed package, sorted, with a name that is the same on every machine."""
    packages = {package.metadata["Name"]: package for package in metadata.distributions()}
    for name in sorted(filter(None, packages), key=str.lower):
        for file in sorted(filter(wanted, packages[name].files or []), key=str):
            yield f"{name}/{file}", Path(str(file.locate()))


def _read(path: Path) -> str:
    """Return a file's text, or nothing where it can't be read: installations are seldom perfect."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


_SOURCES: dict[str, Callable[[], Documents]] = {
    "prose": _prose,
    "code": _code,
    "licences": _licences,
    "repetitive": _repetitive,
    "languages": _languages,
}
KINDS = tuple(_SOURCES)
