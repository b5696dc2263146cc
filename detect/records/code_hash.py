"""A hash of dyetrace's own code, by which two parties can tell whether they run the same.

The rule: take the files whose names end in ``.py`` in the folders ``detect`` and ``watermark`` of the installed
package, links left out; for each write its SHA-256, two spaces, its path from the folder that holds both, with ``/``
between its parts, and a line feed; order these lines by the bytes of the paths; the hash is the SHA-256 of all of them.
That is what `SHELL` prints in that folder. Pages' templates and what other packages bring are no part of it: their
versions stand in every report.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

PACKAGES = ("detect", "watermark")

SHELL = "find detect watermark -name '*.py' -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
"""Prints the hash first, in the folder that holds both packages."""


@cache
def code_sha256() -> str:
    """The hash of the code that is running, in hexadecimal digits."""
    return hash_of(Path(__file__).parents[2])


def hash_of(folder: Path) -> str:
    """The hash of the code in a folder that holds both packages."""
    found = []
    for package in PACKAGES:
        for above, _, names in os.walk(folder / package):
            paths = (Path(above, name) for name in names if name.endswith(".py"))
            found += [path for path in paths if path.is_file() and not path.is_symlink()]
    lines = {
        os.fsencode(path.relative_to(folder).as_posix()): hashlib.sha256(path.read_bytes()).hexdigest().encode()
        for path in found
    }
    whole = b"".join(lines[name] + b"  " + name + b"\n" for name in sorted(lines))
    return hashlib.sha256(whole).hexdigest()
