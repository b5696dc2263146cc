"""Writing files: whole or not at all, and never over anything that is not the command's own to replace."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from watermark.errors import DyetraceError, MachineError, refused_write
from watermark.interruption import held, wrote


def check_output(
    path: Path,
    *,
    inputs: Iterable[Path | None] = (),
    kind: str | None = None,
    is_kind: Callable[[Path], bool] | None = None,
    force: bool = False,
) -> None:
    """Refuse an output, before any work is done for it, that would destroy something or can't be written.

    An existing file stays, unless ``force`` is given and it is an earlier artefact of the same kind. Without ``kind``
    nothing is ever overwritten: that is for keys, openings and ledgers, of which there is no second copy.

    Parameters
    ----------
    path
        Where the output goes.
    inputs
        Files that the same command reads, under whatever names; those that are None or don't exist are passed over.
    kind, is_kind
        "a watermark spec": what may be replaced, and whether the file at a path is one.
    force
        Whether the user asked for that.

    Raises
    ------
    DyetraceError
        The output is one of the inputs, exists already, or lies where nothing can be written.
    """
    for source in inputs:
        if source is not None and _is_same(path, source):
            raise DyetraceError(
                f"{path} is read by this command ({source}) and can't be its output; choose another path"
            )
    if os.path.lexists(path):
        _check_existing(path, kind, is_kind, force)
    folder = path.parent
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DyetraceError(f"cannot write {path}: folder {folder} {state}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MachineError(f"cannot write {path}: Permission denied in folder {folder}")


def _check_existing(path: Path, kind: str | None, is_kind: Callable[[Path], bool] | None, force: bool) -> None:
    if not path.is_symlink() and not stat.S_ISREG(path.lstat().st_mode):
        raise DyetraceError(f"{path} is not a plain file (but a folder, a device or a pipe); choose another path")
    if kind is None or is_kind is None:
        raise DyetraceError(f"{path} exists already and is never overwritten; choose another path")
    if path.is_symlink() or not is_kind(path):
        raise DyetraceError(f"{path} exists already and is not {kind}, so it is never overwritten; choose another path")
    if not force:
        raise DyetraceError(f"{path} exists already; add --force to replace it, or choose another path")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)  # through symbolic and hard links
    except OSError:
        return False


@held()
def write_atomically(path: Path, data: bytes, mode: int | None = None, *, replace: bool = True) -> None:
    """Write ``data`` to ``path``, whole or not at all.

    Parameters
    ----------
    path
        A plain file, or nothing yet.
    data
        All that the file is to hold.
    mode
        That of the new file; by default as the process's mask has it.
    replace
        Whether an existing file is replaced; otherwise it stays and there is an error.

    Raises
    ------
    DyetraceError
        It can't be written, or is there and is not to be replaced.
    """
    try:
        if os.path.lexists(path) and not path.is_symlink() and not path.is_file():
            reason = "Is a directory" if path.is_dir() else "it is a device or a pipe"
            raise DyetraceError(f"cannot write {path}: {reason}")
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".dyetrace-")
    except OSError as error:
        raise refused_write(f"cannot write {path}", error) from None
    try:
        _fill(descriptor, data)
        os.chmod(temporary, _new_file_mode() if mode is None else mode)
        if replace:
            os.replace(temporary, path)
            wrote(path)
        else:
            move_new(Path(temporary), path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise refused_write(f"cannot write {path}", error) from None
        raise


@held()
def move_new(source: Path, target: Path) -> None:
    """Give a file its name, where no other has that name: of two processes that try, one gets an error.

    Raises
    ------
    DyetraceError
        The name is taken.
    OSError
        The file can't be moved.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise DyetraceError(f"{target} exists already and is not overwritten; choose another path") from None
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise DyetraceError(f"{target} exists already and is not overwritten; choose another path") from None
        os.rename(source, target)
    else:
        os.unlink(source)
    wrote(target)


@held()
def write_private(path: Path, data: bytes, mode: int = 0o600, what: str = "") -> None:
    """Write a file that never replaces another, readable by its owner alone unless ``mode`` says otherwise.

    ``what`` names it in messages ("key file").

    Raises
    ------
    DyetraceError
        A file is there already, or it can't be written; then nothing is left of it.
    """
    name = f"{what} {path}" if what else f"{path}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise DyetraceError(f"{name} exists already and is never overwritten; choose another path") from None
    except OSError as error:
        raise refused_write(f"cannot write {name}", error) from None
    try:
        _fill(descriptor, data)
    except OSError as error:
        os.unlink(path)
        raise refused_write(f"cannot write {name}", error) from None
    wrote(path)


def _fill(descriptor: int, data: bytes) -> None:
    """Write all of a file, down to the disk, and close it."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _new_file_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def make_folder(path: Path) -> None:
    """Make a folder for output where there is none yet."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused_write(f"cannot make folder {path}", error) from None
