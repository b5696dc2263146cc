"""The work folder of a scan: the plan, and the results of finished tasks under names that say what they were made from.

A result is written beside its name and renamed, so whatever stands there is whole, and a task that finds its result
has nothing to do. That is all that resuming needs. The folder holds the suspect's tokens and nothing that was computed
with a key before `score`; it is readable by its owner alone.

It is a folder of its own inside the one that the user names, with a mark in it that says whose it is. Only files in it
that bear names of results, or of results that a killed task left unfinished, are ever removed: whatever else lies there
stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path

import msgspec

from detect.corpus.settings import ScanSettings
from detect.folders.own import SCRATCH, claim, release, remove_plain
from detect.readers import Piece, Source
from watermark.errors import MachineError, refused_write
from watermark.files.writing import write_atomically
from watermark.spec import WatermarkSpec

_LAYOUT = 2  # of these files; changes whenever a result of an older version can't be read any more

WORK = ".dyetrace-scan"
"""Name of the work folder; a hidden one, which no scan of the folder around it reads."""

_MARKED = b"Intermediate results of `dyetrace scan`, which removes those files of this folder that it has made.\n"

_NAME = r"[0-9a-f]{32}"  # of a shard, a corpus, a scoring
_HALF = r"\.[0-9]+\.[0-9a-f]{8}"  # ends the name of a result that is being made
_BLOCK = r"([0-9]+\.(npz|prints|starts|ids16|ids32|names)|done\.json)"
_UNFINISHED = re.compile(
    rf"((reference|null)/)?({SCRATCH}|gathered/\.{_NAME}{_HALF}/{_BLOCK}"
    rf"|(settled|scored|located)/{_NAME}/\.[a-z0-9]+(\.npz|\.json)?{_HALF}(\.npz)?)"
)
_FOLDER = re.compile(
    rf"(reference|null)|((reference|null)/)?(gathered|settled|scored|located)(/{_NAME}|/\.{_NAME}{_HALF})?"
)
_RESULT = re.compile(
    rf"((reference|null)/)?(plan\.json|hashes\.json|natural\.jsonl|gathered/{_NAME}/{_BLOCK}"
    rf"|settled/{_NAME}/([0-9]+|distinct\.json)|scored/{_NAME}/[0-9]+\.npz"
    rf"|located/{_NAME}/([0-9]+\.json|discovered\.npz))"
)


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of an input that one task reads; ``id`` is a hash of its content and of how it is read."""

    id: str
    source: int
    piece: Piece


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """Everything that tasks need to know beside their own number and the keys.

    Attributes
    ----------
    settings, specs
        What was asked for.
    sources, hashes
        The inputs in order and their SHA-256.
    shards
        Their parts, in the order that gives documents their ordinals.
    buckets
        A power of two: parts into which tuples are cut by fingerprint.
    tokenizer
        Path of the spec's tokenizer; None where the inputs hold token ids and none was given.
    key_names
        What the keys are called that are tested, in order.
    """

    settings: ScanSettings
    specs: list[WatermarkSpec]
    sources: list[Source]
    hashes: list[str]
    shards: list[Shard]
    buckets: int
    tokenizer: str | None
    key_names: list[str]

    @cached_property
    def corpus_id(self) -> str:
        """Names what was gathered and de-duplicated."""
        return _digest([shard.id for shard in self.shards])

    @cached_property
    def score_id(self) -> str:
        """Names what was scored: the corpus under these keys."""
        s = self.settings
        return _digest([self.corpus_id, [x.spec_id for x in self.specs], self.key_names, s.decoys, s.decoy_seed])

    @cached_property
    def locate_id(self) -> str:
        """Names the hits: what was scored, at these levels."""
        return _digest([self.score_id, self.settings.alpha, self.settings.rate, "pairs paid"])

    def __hash__(self) -> int:
        return hash(self.locate_id)


def shard_id(
    sha256: str, piece: Piece, source: Source, settings: ScanSettings, spec: WatermarkSpec, buckets: int
) -> str:
    """Name a shard by its content and by everything that changes what is gathered from it."""
    read = [seen.name for seen in source.columns if seen.read]  # a field may be missing where others are read
    how = [source.form, source.compression, source.column, source.kind, source.id_column, read, settings.read]
    return _digest(
        [_LAYOUT, sha256, piece, how, settings.sample, settings.limit, spec.tokenizer, spec.context_width, buckets]
    )


def _digest(parts: object) -> str:
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()


class WorkFolder:
    """Paths in the work folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def plan(self) -> Path:
        """The plan."""
        return self.path / "plan.json"

    @property
    def hashes(self) -> Path:
        """SHA-256 of inputs, by path, size and time of change."""
        return self.path / "hashes.json"

    def gathered(self, shard: Shard) -> Path:
        """Folder with the blocks of a shard."""
        return self.path / "gathered" / shard.id

    def settled(self, plan: Plan, bucket: int) -> Path:
        """Which tuples of a bucket stand first in the corpus."""
        return self.path / "settled" / plan.corpus_id / f"{bucket}"

    def distinct(self, plan: Plan) -> Path:
        """How many tuples are distinct in the corpus."""
        return self.path / "settled" / plan.corpus_id / "distinct.json"

    def scored(self, plan: Plan, index: int) -> Path:
        """The tallies of a shard."""
        return self.path / "scored" / plan.score_id / f"{index}.npz"

    def located(self, plan: Plan, index: int) -> Path:
        """The hits of a shard."""
        return self.path / "located" / plan.locate_id / f"{index}.json"

    def adjusted(self, plan: Plan) -> Path:
        """Which documents were discovered."""
        return self.path / "located" / plan.locate_id / "discovered.npz"


@lru_cache(maxsize=4)
def _read_plan(path: Path, _inode: int, _mtime_ns: int) -> Plan:
    return msgspec.json.decode(path.read_bytes(), type=Plan)


def read_plan(work: WorkFolder) -> Plan:
    """The plan; read once per process."""
    state = work.plan.stat()
    return _read_plan(work.plan, state.st_ino, state.st_mtime_ns)


def write_plan(work: WorkFolder, plan: Plan) -> None:
    """Write the plan, unless it stands there already."""
    data = msgspec.json.encode(plan)
    if not work.plan.exists() or work.plan.read_bytes() != data:
        write_atomically(work.plan, data, 0o600)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name ``path`` when the block ends well and is removed when it doesn't."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # what went wrong before counts
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """The same for a folder; where another task was quicker its result stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
        if not path.exists():
            os.rename(temporary, path)
    except OSError:
        if not path.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(within: Path) -> Iterator[WorkFolder]:
    """Make the work folder and hold it, so that two scans don't share one; leftovers of killed tasks are removed.

    Parameters
    ----------
    within
        The user's folder, in which the work folder lies.

    Raises
    ------
    DyetraceError
        Another scan holds it, it cannot be made, or what has its name is not dyetrace's.
    """
    folder = within / WORK
    try:
        _claim(folder)
        descriptor = _lock(folder)
    except OSError as error:
        raise refused_write(f"cannot make work folder {folder}", error) from None
    try:
        _remove(folder, _UNFINISHED)
        yield WorkFolder(folder)
    finally:
        os.close(descriptor)


def discard(work: WorkFolder) -> None:
    """Remove what the scan has made in its work folder, which must be held, and the folder if nothing else is in it."""
    _remove(work.path, _UNFINISHED)
    _remove(work.path, _RESULT)
    remove_plain(work.path / "lock")
    release(work.path)


def _claim(folder: Path) -> None:
    claim(folder, _MARKED, "rename it, or give another folder with --work")


def _lock(folder: Path) -> int:
    """Hold the folder until the descriptor is closed."""
    import fcntl

    while True:
        descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(folder / "lock")):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise MachineError(
                f"another scan works in {folder}; wait for it, or give this one its own -o or --work"
            ) from None
        except FileNotFoundError:
            pass
        os.close(descriptor)  # of a scan that has just ended and removed it
        _claim(folder)


def _remove(folder: Path, own: re.Pattern[str]) -> None:
    """Remove plain files with names of that kind, and folders that are empty then; nothing is followed out of here."""
    for path, below, files in os.walk(folder, topdown=False):
        inner = Path(path).relative_to(folder)
        for name in files:
            if own.fullmatch((inner / name).as_posix()):
                remove_plain(Path(path, name))
        for name in below:
            with contextlib.suppress(OSError):  # it is not empty, and stays
                if _FOLDER.fullmatch((inner / name).as_posix()):
                    Path(path, name).rmdir()
