"""A lock between processes: the system lets go of it when a process ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import BinaryIO

from .disk import reopen

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_TRIES = 10  # to get hold of a file that others remove in the meantime


def hold(path: Path) -> BinaryIO | None:
    """Keep other processes out of what a file stands for, until it is closed; None: another one is in. In a
    folder that knows no locks everybody gets in.

    Raises:
        OSError: the file can't be made.
    """
    for _ in range(_TRIES):
        stream = reopen(path)
        if not _lock(stream):
            stream.close()
            return None
        if _is_still_there(stream, path):
            return stream
        stream.close()
    return None


def _is_still_there(stream: BinaryIO, path: Path) -> bool:
    """Whether it was not removed before it was ours."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(stream: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
