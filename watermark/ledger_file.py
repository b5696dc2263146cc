"""The ledger's file: a header that never changes, two totals and a table of counters, mapped into memory.

Counters only grow and are written in place, so the file needs no journal. What a process has written survives its death
at any moment, SIGKILL included, since the kernel holds it. A power cut loses at most what was written after the last
`LedgerFile.sync`: each page on disk is then some earlier state of itself, never a later one, so nothing counts twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import secrets
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from watermark.errors import DyetraceError, EvidenceError, MachineError, refused_write
from watermark.interruption import held, unwinding, wrote

U16 = npt.NDArray[np.uint16]
U64 = npt.NDArray[np.uint64]

ROWS = 4
LARGEST_COUNT = 0xFFFF
LARGEST_MEGABYTES = 8192
_MAGIC, _LAYOUT = b"dyledger", 1
_FIXED = struct.Struct("<8sII")  # magic, layout, bytes of JSON; then come the two totals
_TOTALS_AT, _JSON_AT, _CHECKSUM_BYTES = 16, 32, 16
_PAGE = 4096
_CHUNK = 1 << 20  # cells at a time where whole tables are read
_PROBES = 1 << 16


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a ledger is of; none of it is secret.

    Attributes
    ----------
    spec_id, key_fingerprint
        The watermark's, its epoch included.
    rows, width
        Rows of the table and counters in each.
    identity
        32 hex digits drawn when the file was made.
    parts
        Of a merged ledger, the identities of those that were added up.
    """

    spec_id: str
    key_fingerprint: str
    rows: int
    width: int
    identity: str
    parts: tuple[str, ...] = ()

    @property
    def counted(self) -> tuple[str, ...]:
        """Identities of all ledgers whose counts are in here."""
        return self.parts or (self.identity,)


class LedgerFile:
    """An open ledger file.

    Attributes
    ----------
    path, header
        The file and what it says of itself.
    cells
        The counters, (rows, width) uint16: the file itself, read-only unless opened for writing.
    totals
        Answers, and distinct contexts summed over answers, (2,) uint64: the file itself.
    """

    def __init__(self, path: Path, header: Header, descriptor: int, *, write: bool) -> None:
        self.path, self.header = path, header
        self._descriptor, self._process = descriptor, os.getpid()
        self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
        table = np.frombuffer(self._map, dtype="<u2", offset=_table_at(header))
        self.cells: U16 = table.reshape(header.rows, header.width)
        self.totals: U64 = np.frombuffer(self._map, dtype="<u8", count=2, offset=_TOTALS_AT)

    def sync(self) -> None:
        """Return when all counts are on the disk."""
        self._map.flush()

    def close(self) -> None:
        """Unmap the file and let others write to it; the arrays are gone."""
        del self.cells, self.totals
        if os.getpid() == self._process:  # a forked child has its parent's lock
            _unlock(self._descriptor)
        os.close(self._descriptor)
        with contextlib.suppress(BufferError):  # somebody still holds an array: it lives as long as that
            self._map.close()


class LedgerInfo(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag="dyetrace-ledger-info-1"):
    """What anybody can read in a ledger without a key.

    Attributes
    ----------
    path, header, megabytes
        The file.
    answers
        Answers counted.
    contexts
        Their distinct contexts, summed over answers.
    used
        Share of counters that are not 0.
    noise_mean, noise_median, noise_95
        What a context that was never served would read, measured on random cells: mean, median and 95% quantile.
        Counts of served contexts are too high by about as much, and never too low.
    """

    path: str
    header: Header
    megabytes: float
    answers: int
    contexts: int
    used: float
    noise_mean: float
    noise_median: float
    noise_95: float


def new_header(spec_id: str, key_fingerprint: str, megabytes: int) -> Header:
    """The header of an empty ledger of a given size."""
    if not 1 <= megabytes <= LARGEST_MEGABYTES:
        raise DyetraceError(f"a ledger must have 1 to {LARGEST_MEGABYTES} megabytes (got {megabytes})")
    width = megabytes * 2**20 // (2 * ROWS)
    return Header(
        spec_id=spec_id, key_fingerprint=key_fingerprint, rows=ROWS, width=width, identity=secrets.token_hex(16)
    )


@contextlib.contextmanager
def new_file(path: Path, header: Header) -> Iterator[LedgerFile]:
    """Make a file that appears at ``path``, readable by its owner alone, when the block ends without an error.

    Raises
    ------
    DyetraceError
        There is a file already, or it cannot be written; its whole size is taken from the disk at once, because a
        disk that is full later would end the process that writes to the mapped file.
    """
    if path.exists():
        raise _exists(path)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise refused_write(f"cannot write ledger {path}", error) from None
    try:
        try:
            _take_room(descriptor, _table_at(header) + 2 * header.rows * header.width)
            os.pwrite(descriptor, _encoded(header), 0)
        except BaseException:
            os.close(descriptor)
            raise
        file = LedgerFile(path, header, descriptor, write=True)
        try:
            yield file
            file.sync()
        finally:
            file.close()
        with held():
            os.link(temporary, path)  # unlike a rename, it never replaces a file
            wrote(path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise refused_write(f"cannot write ledger {path}", error) from None
    finally:
        os.unlink(temporary)


def open_file(path: Path, *, write: bool) -> LedgerFile:
    """Open a ledger to read it, which is possible while a server writes to it, or to write to it.

    Raises
    ------
    DyetraceError
        There is none, it is not whole, another release wrote it, or another process is writing to it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR if write else os.O_RDONLY)
    except OSError as error:
        raise DyetraceError(f"cannot open ledger {path}: {error.strerror}") from None
    try:
        if write:
            _hold(descriptor, path)
        return LedgerFile(path, _read_header(descriptor, path), descriptor, write=write)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise DyetraceError(f"cannot read ledger {path}: {error.strerror}") from None
        raise


def is_ledger(path: Path) -> bool:
    """Whether there is a file that begins as every ledger does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def is_written(path: Path) -> bool:
    """Whether a process has the ledger open for writing."""
    import fcntl  # not on Windows

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment: no server is to be kept from its ledger
        except BlockingIOError:
            return True
    return False


def merge_files(paths: Sequence[Path], output: Path) -> tuple[Header, int, int]:
    """Add up the ledgers of several servers into a new file; counters stop at `LARGEST_COUNT`.

    Returns its header, and how many answers and contexts were counted.

    Servers may go on writing meanwhile: an answer that comes in then is counted, or not, or in part of its contexts.

    Raises
    ------
    DyetraceError
        They are of different specs, keys or sizes; the counts of one are in another already; the output exists.
    """
    if len(paths) < 2:
        raise DyetraceError("give two or more ledgers to merge")
    with contextlib.ExitStack() as stack:
        files = []
        for path in paths:
            files.append(open_file(path, write=False))
            stack.callback(files[-1].close)
        first = files[0].header
        parts: dict[str, Path] = {}
        for file in files:
            _check_alike(file, files[0])
            for part in file.header.counted:
                if part in parts:
                    raise DyetraceError(
                        f"{parts[part]} and {file.path} hold the same server's counts, which would count twice; "
                        "merge each server's own ledger once"
                    )
                parts[part] = file.path
        header = msgspec.structs.replace(first, identity=secrets.token_hex(16), parts=tuple(parts))
        with unwinding(), new_file(output, header) as out:
            tables = [file.cells.reshape(-1) for file in files]
            into = out.cells.reshape(-1)
            for start in range(0, into.size, _CHUNK):
                chunk = slice(start, start + _CHUNK)
                total = np.zeros(into[chunk].size, dtype=np.uint64)
                for table in tables:
                    total += table[chunk]
                into[chunk] = np.minimum(total, LARGEST_COUNT)
            for file in files:
                out.totals[:] += file.totals
            answers, contexts = out.totals.tolist()
            del tables, into
    return header, answers, contexts


def describe(path: Path) -> LedgerInfo:
    """What a ledger holds, and how noisy its counts are by now."""
    file = open_file(path, write=False)
    try:
        header, flat = file.header, file.cells.reshape(-1)
        used = sum(int(np.count_nonzero(flat[i : i + _CHUNK])) for i in range(0, flat.size, _CHUNK))
        # Cells that a context never served would be given: any, in each row.
        at = np.random.default_rng(0).integers(0, header.width, (header.rows, _PROBES))
        noise = np.take_along_axis(file.cells, at, 1).min(0)
        answers, contexts = file.totals.tolist()
        return LedgerInfo(
            path=str(path),
            header=header,
            megabytes=2 * flat.size / 2**20,
            answers=answers,
            contexts=contexts,
            used=used / flat.size,
            noise_mean=float(noise.mean()),
            noise_median=float(np.median(noise)),
            noise_95=float(np.quantile(noise, 0.95)),
        )
    finally:
        del flat
        file.close()


def _check_alike(file: LedgerFile, first: LedgerFile) -> None:
    one, other = file.header, first.header
    for what, mine, theirs in (
        ("spec", one.spec_id, other.spec_id),
        ("key", one.key_fingerprint, other.key_fingerprint),
        ("size", f"{one.rows} x {one.width}", f"{other.rows} x {other.width}"),
    ):
        if mine != theirs:
            raise DyetraceError(
                f"ledgers {first.path} and {file.path} do not add up: their {what} is {theirs} and {mine}; "
                "merge only ledgers of one spec, one key and one size"
            )


def _table_at(header: Header) -> int:
    end = _JSON_AT + len(msgspec.json.encode(header)) + _CHECKSUM_BYTES
    return -(-end // _PAGE) * _PAGE


def _checksum(fixed: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(fixed + body, digest_size=_CHECKSUM_BYTES, person=b"dyt:ledger").digest()


def _encoded(header: Header) -> bytes:
    body = msgspec.json.encode(header)
    fixed = _FIXED.pack(_MAGIC, _LAYOUT, len(body))
    return fixed + bytes(_JSON_AT - _TOTALS_AT) + body + _checksum(fixed, body)


def _read_header(descriptor: int, path: Path) -> Header:
    fixed = os.pread(descriptor, _FIXED.size, 0)
    if len(fixed) < _FIXED.size or not fixed.startswith(_MAGIC):
        raise DyetraceError(f"{path} is not a ledger of served contexts; give a file that a server wrote as its ledger")
    _, layout, length = _FIXED.unpack(fixed)
    if layout != _LAYOUT:
        raise DyetraceError(
            f"ledger {path} has layout {layout}, but this dyetrace reads {_LAYOUT}; use the release that wrote it"
        )
    size = os.fstat(descriptor).st_size
    body = os.pread(descriptor, min(length, size), _JSON_AT)
    if os.pread(descriptor, _CHECKSUM_BYTES, _JSON_AT + length) != _checksum(fixed, body):
        raise EvidenceError(f"ledger {path} is damaged (its header's checksum differs); restore it from a backup")
    header = msgspec.json.decode(body, type=Header)
    expected = _table_at(header) + 2 * header.rows * header.width
    if size != expected:
        raise DyetraceError(f"ledger {path} has {size} bytes in place of {expected}; restore it from a backup")
    return header


def _take_room(descriptor: int, size: int) -> None:
    os.ftruncate(descriptor, size)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size)


def _hold(descriptor: int, path: Path) -> None:
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MachineError(
            f"ledger {path} is being written to by another process; give each server a ledger of its own "
            "and merge them with `dyetrace ledger merge`"
        ) from None


def _unlock(descriptor: int) -> None:
    import fcntl

    # The mapping has a descriptor of its own, which keeps the lock as long as an array lives.
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _exists(path: Path) -> DyetraceError:
    return DyetraceError(f"{path} exists already and is never overwritten; choose another path")
