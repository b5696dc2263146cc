"""Arrays beside a report, as one file of numpy's: the same arrays give the same bytes, a damaged file a clear line."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detect.records.scan import FileHash
from watermark.errors import DyetraceError, EvidenceError


def encode_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The bytes of the file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.save(data, array, allow_pickle=False)
            # A fixed date: zip files hold one, and equal arrays should be equal files.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), data.getvalue())
    return out.getvalue()


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the file, by the arrays' names.

    Raises
    ------
    DyetraceError
        It can't be read.
    EvidenceError
        It is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DyetraceError(f"cannot read {path}: {error.strerror}") from None
    try:
        # From memory: of a damaged file numpy would leave the handle open.
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and numpy each raise their own kinds
        raise EvidenceError(f"{path} is damaged ({type(error).__name__}); restore it from a copy") from None


def strings_array(strings: Iterable[str]) -> npt.NDArray[np.bytes_]:
    r"""Strings as UTF-8, shape (n,), with a full stop at the end, since numpy drops a trailing ``\0``."""
    return np.array([f"{one}.".encode("utf-8", "backslashreplace") for one in strings], dtype=np.bytes_)


def strings_of(array: npt.NDArray[np.bytes_]) -> tuple[str, ...]:
    """What `strings_array` made an array of."""
    return tuple(bytes(one).decode().removesuffix(".") for one in array.tolist())


def evidence_of(files: Iterable[FileHash], name: str, folder: Path) -> Path:
    """Where a report's evidence is: the file of this name in its folder, which is the one that the report names.

    Raises
    ------
    DyetraceError
        The report names none, it isn't there, or it is another one.
    """
    named = next((file for file in files if file.name == name), None)
    if named is None:
        raise EvidenceError(f"the report names no {name}: there is nothing to recompute it from")
    path = folder / name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DyetraceError(f"cannot read {path}: {error.strerror}; it belongs beside the report") from None
    if found != named.sha256:
        raise EvidenceError(f"{path} is not the evidence of the report: SHA-256 {found}, not {named.sha256}")
    return path
