"""Making, replacing and removing files: the one place that knows the rules of the systems we run on.

A file is written under a short name of its own beside the wanted one, closed, brought to the disk, and only
then given its name: Windows replaces no file that somebody has open. Files are made exclusively, and a link
is never followed, because others may write to the same folder.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from .names import alternatives, name_problem

logger = logging.getLogger(__name__)

_NEW = os.O_CREAT | os.O_EXCL
_PLAIN = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_OUR_ID = os.geteuid() if hasattr(os, "geteuid") else 0  # 0: what Windows says of every file
_PAUSES = (0.05, 0.1, 0.2, 0.4)  # seconds; Windows' scanners hold a new file for a moment
_HELD_BY_OTHERS = (5, 32)  # Windows: access denied, sharing violation


class DiskError(RuntimeError):
    """A file that can't be made where it was wanted. The text is the whole message.

    ``kept`` is where the finished file is instead, if it was finished.
    """

    def __init__(self, message: str, kept: Path | None = None) -> None:
        super().__init__(message)
        self.kept = kept


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` when the block ends well; else it leaves no trace.

    The block writes to the file's path, and has closed it at its end.

    Raises:
        DiskError: the folder takes no file, or is full; or ``path`` can't be replaced, and the finished file
            has another name, which the error tells.
    """
    with _new_part(path) as part:
        yield part
    _replace(part, path)


def write_new(names: Iterable[Path], write: Callable[[Path], object]) -> Path:
    """What ``write`` puts into the file whose path it is given, under the first of ``names``, all in one
    folder, that nobody has then; that name.

    Raises:
        DiskError: the folder takes no file, or is full.
    """
    ordered = iter(names)
    first = next(ordered)
    with _new_part(first) as part:
        write(part)
    return _take_first(part, chain([first], ordered))


def make_part(folder: Path) -> Path:
    """A new empty file with a short name in ``folder``, for what is not finished yet."""
    part = folder / f".{secrets.token_hex(8)}.part"
    _touch(part)
    return part


def place(part: Path, path: Path) -> None:
    """Give a finished, closed file its name, in place of what has it.

    Raises:
        DiskError: ``path`` can't be replaced; the file has another name, which the error tells.
        OSError: the disk is full; the file stays as it is.
    """
    _to_disk(part)
    _replace(part, path)


def place_folder(part: Path, folder: Path) -> None:
    """Give a finished folder of files its name; what had it goes, and stays where the name can't be given."""
    for file in part.iterdir():
        _to_disk(file)
    old = part.with_name(f"{part.name}.old")
    if folder.exists():
        _patiently(lambda: os.replace(folder, old))
    try:
        _patiently(lambda: os.replace(part, folder))
    except OSError:
        if old.exists():
            _patiently(lambda: os.replace(old, folder))
        raise
    _folder_to_disk(folder)
    _folder_to_disk(folder.parent)
    remove(old)


def place_new(part: Path, names: Iterable[Path]) -> Path:
    """Give a finished, closed file the first of these names that nobody has; that name.

    It is taken exclusively: of two processes that ask for one name, one gets the next.

    Raises:
        DiskError: the folder takes no name any more; the error tells where the file is.
        OSError: the disk is full; the file stays as it is.
    """
    _to_disk(part)
    return _take_first(part, names)


def reopen(path: Path) -> BinaryIO:
    """Open what an earlier run left unfinished, to read it and go on with it; or make it.

    A link, a file that has a second name, or another user's is none of ours: a new file gets its name.
    """
    with suppress(FileNotFoundError):
        if not path.is_symlink():
            descriptor = os.open(path, os.O_RDWR | _PLAIN)
            if _is_ours(os.fstat(descriptor)):
                return os.fdopen(descriptor, "r+b")
            os.close(descriptor)
        path.unlink()
    return os.fdopen(os.open(path, os.O_RDWR | _NEW | _PLAIN, 0o666), "r+b")


def is_own(path: Path) -> bool:
    """Whether it is a file as we make them: no link, no second name, no other user's."""
    try:
        return _is_ours(path.lstat())
    except OSError:
        return False


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read it, if it is one: a pipe would never end, a device neither.

    Raises:
        OSError: there is none, or something else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        if path.is_symlink():
            raise FileNotFoundError(errno.ENOENT, "a link to nothing", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "a folder or device instead of a file", str(path))
    return os.fdopen(descriptor, "rb")


def make_folder(path: Path) -> Path:
    """A folder of our own, made unless it is there; a link in its place is removed, not followed."""
    if path.is_symlink():
        path.unlink()
    path.mkdir(parents=True, exist_ok=True)
    return path


def remove(path: Path) -> None:
    """Remove a file, or a folder and all in it. What can't be removed stays, with a line in the log: cleaning
    up never fails what has been done."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            _patiently(lambda: path.unlink(missing_ok=True))
    if os.path.lexists(path):
        logger.warning("%s could not be removed; another program may have it open.", path.name)


def try_place(path: Path, *, nbytes: int = 0, apart_from: Iterable[Path] = (), replace: bool = True) -> None:
    """Everything that would make writing ``path`` fail at the end, tried at the start.

    Args:
        replace: whether it will replace what is there; else it will get a name of its own.
        nbytes: the room that the file will take, roughly.
        apart_from: files that it must not replace: the inputs, the other outputs.

    Raises:
        DiskError: the name, the folder, the room or what is there already.
    """
    if problem := name_problem(path.name, windows=os.name == "nt"):
        raise DiskError(f"expected a file name but got {problem} ({path.name!a:.200}). Choose another name.")
    try:
        _try_folder(path, apart_from)
        if replace or not os.path.lexists(path):
            _try_target(path)
        free = shutil.disk_usage(path.parent).free
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise DiskError(
            f"expected a file that can be written but got: {what} ({str(path)!a:.200}). Choose another name "
            "or folder."
        ) from error
    if free < nbytes:
        raise DiskError(
            f"expected {nbytes / 1e6:.0f} MB of free space but got {free / 1e6:.0f} MB ({path.parent}). "
            "Free some, or choose another folder."
        )


def _try_folder(path: Path, apart_from: Iterable[Path]) -> None:
    if not path.parent.is_dir():
        raise DiskError(f"expected an existing folder but got none ({path.parent}). Make it first.")
    if any(_same_file(path, other) for other in apart_from):
        raise DiskError(
            f"expected a file apart from the inputs and the other outputs but got one of them ({path}). "
            "Choose another name."
        )
    remove(make_part(path.parent))


def _try_target(path: Path) -> None:
    if not os.path.lexists(path):
        _touch(path)  # this file system's own opinion of the name
        path.unlink()
        return
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return  # the link will be replaced, not what it leads to
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "something that is no file"
        raise DiskError(f"expected a file but got {what} ({path}). Choose another name.")
    if not found.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise DiskError(
            f"expected a file that may be replaced but got a protected one ({path}). Choose another name, "
            "or take the protection away."
        )
    path.open("r+b").close()  # Windows: where another program has it, this fails now rather than at the end


def _is_ours(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == _OUR_ID


def _same_file(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return os.path.normcase(os.path.realpath(path)) == os.path.normcase(os.path.realpath(other))


@contextmanager
def _new_part(path: Path) -> Iterator[Path]:
    """A new file beside ``path``, for a block to fill; on the disk at its end, gone if it fails."""
    part = path
    try:
        part = make_part(path.parent)
        mode = stat.S_IMODE(part.stat().st_mode)
        yield part
        os.chmod(part, mode)  # the block may have put another file there: safetensors makes its own, 0600
        _to_disk(part)
    except BaseException as error:
        if part != path:
            remove(part)
        if not isinstance(error, OSError):
            raise
        raise DiskError(
            f"expected to write {path.name} but got: {error.strerror or error} ({path.parent}). "
            "Choose a folder with enough room that you may write to."
        ) from error


def _replace(part: Path, path: Path) -> None:
    try:
        _patiently(lambda: os.replace(part, path))
    except OSError as error:
        raise _misplaced(part, path, error) from error
    _folder_to_disk(path.parent)


def _take_first(part: Path, names: Iterable[Path]) -> Path:
    path = part
    try:
        path = next(path for path in names if _take(part, path))
    except OSError as error:
        raise _misplaced(part, path, error) from error
    _folder_to_disk(path.parent)
    return path


def _misplaced(part: Path, path: Path, error: OSError) -> DiskError:
    """The error for a finished file that can't have its name; it gets one beside it, or stays where it is."""
    kept = part if part.is_file() else None
    with suppress(OSError):
        kept = next((name for name in alternatives(path) if _take(part, name)), kept)
    where = f"It is whole, and kept as {kept.name}: " if kept else ""
    return DiskError(
        f"expected to give {path.name} its name but got: {error.strerror or error} ({path}). "
        f"{where}close what has the old file open, or choose another name or folder.",
        kept,
    )


def _take(part: Path, path: Path) -> bool:
    """Give a file this name unless it is taken. In one step, so that a process that is killed leaves no empty
    file of that name; in two where the folder knows no hard links.
    """
    with suppress(OSError):
        os.link(part, path)
        remove(part)
        return True
    try:
        _touch(path)
    except FileExistsError:
        return False
    try:
        _patiently(lambda: os.replace(part, path))
    except OSError:
        remove(path)
        raise
    return True


def _touch(path: Path) -> None:
    """An empty file that was not there before."""
    os.close(os.open(path, os.O_WRONLY | _NEW | _PLAIN, 0o666))


def _patiently(call: Callable[[], None]) -> None:
    """Try again for a second where another program on Windows holds the file."""
    for pause in _PAUSES:
        try:
            return call()
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _HELD_BY_OTHERS:
                raise
        time.sleep(pause)
    return call()


def _to_disk(part: Path) -> None:
    """So that after a power cut a name never stands for an empty file."""
    descriptor = os.open(part, os.O_RDWR | _PLAIN)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network folders know no fsync
            raise
    finally:
        os.close(descriptor)


def _folder_to_disk(folder: Path) -> None:
    if os.name == "nt":  # it opens no folder
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
