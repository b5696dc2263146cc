"""Long outputs: lines go to a locked file beside the target, which becomes the target when it is whole.

``TARGET.partial`` holds the lines, and ``TARGET.partial.json`` says which command they are of. After a crash, a full
disk or a kill the same command goes on where it was; another command leaves both as they are. The second file also
holds random bytes, drawn once, that decide whatever the command draws: a batch that was lost on its way to the disk is
made again as it was, and not drawn anew, which would favour batches that are quick to write.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Literal, Self

import msgspec

from watermark.errors import DyetraceError, MachineError, refused_write
from watermark.files.writing import move_new
from watermark.interruption import held

_RUN_BYTES = 32
_LARGEST_HEADER = 1 << 20


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``TARGET.partial.json`` holds: the settings of the command by name, and its random bytes in hex."""

    format: Literal["dyetrace-partial-output"] = "dyetrace-partial-output"
    version: Literal[1] = 1
    settings: dict[str, str]
    run: str


def partial_paths(target: Path) -> tuple[Path, Path]:
    """Where the lines and the settings of an output that isn't whole yet are kept."""
    lines = target.with_name(f"{target.name}.partial")
    return lines, lines.with_name(f"{lines.name}.json")


class PartialFile:
    """An output that is being written, held by this process alone until it is closed.

    Parameters
    ----------
    target
        Where the lines go in the end.
    settings
        All that decides what the lines are, by name; hashes where the values are long.
    group
        How many lines are written at a time. What follows the last whole group is dropped.
    replace
        Whether an existing ``target`` is replaced when the lines are whole.

    Attributes
    ----------
    run
        Random bytes, the same when the command goes on.
    groups
        How many whole groups there are.

    Raises
    ------
    DyetraceError
        Another process is writing it, its lines are of another command, or a file there is not dyetrace's own.
    """

    def __init__(self, target: Path, settings: dict[str, str], group: int, *, replace: bool = False) -> None:
        self.target, self._replace = target, replace
        self.path, self._side = partial_paths(target)
        self._lock = self._file = -1
        try:
            self._lock, is_new = self._locked()
            header = self._header(settings, is_new)
            self.run = bytes.fromhex(header.run)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            self.groups = self._drop_torn(group)
        except OSError as error:
            self.close()
            raise refused_write(f"cannot write {self.path}", error) from None
        except BaseException:
            self.close()
            raise

    def _locked(self) -> tuple[int, bool]:
        """The settings' file, locked, and whether it is new: it is the first that is made and the last that goes."""
        import fcntl  # not on Windows

        is_new = not os.path.lexists(self._side)
        if is_new and os.path.lexists(self.path):
            raise self._foreign(self.path)
        descriptor = os.open(self._side, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.stat(self._side)):
                raise BlockingIOError  # whoever had it has just finished
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            raise MachineError(
                f"another dyetrace is writing {self.path}; wait for it, or give this one another output"
            ) from None
        return descriptor, is_new

    def _header(self, settings: dict[str, str], is_new: bool) -> _Header:
        data = os.pread(self._lock, _LARGEST_HEADER, 0)
        if not data and (is_new or not os.path.lexists(self.path)):
            return self._new_header(settings)
        try:
            header = msgspec.json.decode(data, type=_Header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._foreign(self._side) from None
        if header.settings == settings:
            return header
        if not os.path.lexists(self.path):  # what is left where the lines became the target and a crash came next
            return self._new_header(settings)
        names = {*settings, *header.settings}
        differing = sorted(name for name in names if settings.get(name) != header.settings.get(name))
        raise DyetraceError(
            f"{self.path} holds the beginning of another command's output ({', '.join(differing)} differ); finish it "
            f"with that command, delete it and {self._side}, or choose another output"
        )

    def _new_header(self, settings: dict[str, str]) -> _Header:
        header = _Header(settings=settings, run=secrets.token_hex(_RUN_BYTES))
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, msgspec.json.encode(header) + b"\n", 0)
        os.fsync(self._lock)
        return header

    def _foreign(self, path: Path) -> DyetraceError:
        return DyetraceError(
            f"{path} is in the way: it is where {self.target} is written first, and it is not a file that dyetrace "
            "made; move it away or choose another output"
        )

    def _drop_torn(self, group: int) -> int:
        """Cut the file behind its last whole group, and return how many there are."""
        lines = end = 0
        with open(self._file, "rb", closefd=False) as file:
            whole = 0
            for line in file:
                whole += len(line)
                lines += line.endswith(b"\n")
                if lines % group == 0 and line.endswith(b"\n"):
                    end = whole
        os.ftruncate(self._file, end)
        os.lseek(self._file, 0, os.SEEK_END)
        self._end = end
        return lines // group

    def append(self, group: bytes) -> None:
        """Add one group of lines, whole or not at all.

        Raises
        ------
        DyetraceError
            It can't be written; all earlier groups stay.
        """
        with held():
            try:
                left = memoryview(group)
                while left:
                    left = left[os.write(self._file, left) :]
                os.fsync(self._file)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._end)
                raise MachineError(
                    f"cannot write {self.path}: {error.strerror}; what was written is kept, and the same command goes "
                    "on where it was"
                ) from None
            self._end += len(group)
            self.groups += 1

    def finish(self) -> None:
        """Let the whole lines become the target.

        Raises
        ------
        DyetraceError
            The target is there by now, or can't be made; the lines stay where they are.
        """
        try:
            if self._replace:
                os.replace(self.path, self.target)
            else:
                move_new(self.path, self.target)
            os.unlink(self._side)
        except (OSError, DyetraceError) as error:
            refused = refused_write(f"cannot write {self.target}", error) if isinstance(error, OSError) else error
            raise type(refused)(f"{refused}; its lines are whole in {self.path}") from None

    def close(self) -> None:
        """Let go of the file; what was written stays."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
