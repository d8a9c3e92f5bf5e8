"""Videos that were begun and never finished: which there are below a folder, and how they go."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..files.disk import is_own
from ..files.foreign import CheckpointError
from ..files.header import read_header
from .unfinished import FOLDER_NAME, LOCK, NAME, STATE, hold_folder, remove_folder

NODES_ROOT = "memo_unfinished"
"""The folder, in ComfyUI's output folder, of what the nodes have not finished."""

DAY = 86400  # seconds

_ROOT = re.compile(rf"{NODES_ROOT}|\.unfinished-[0-9a-f]{{12}}")


@dataclass(frozen=True)
class Left:
    """A video that was not finished: its folder, what people call it, its clips and bytes, and how many
    seconds ago it was worked at.
    """

    folder: Path
    name: str
    clips: int
    nbytes: int
    seconds: float

    def remove(self) -> bool:
        """Remove it, unless a process works at it now."""
        lock = hold_folder(self.folder)
        if lock is None:
            return False
        remove_folder(self.folder, lock)
        with suppress(OSError):  # other videos are in it
            self.folder.parent.rmdir()
        return not self.folder.exists()


def root_beside(output: Path) -> Path:
    """The folder of what the command has not finished for this output."""
    return output.parent / f".unfinished-{hashlib.sha256(os.fsencode(output.name)).hexdigest()[:12]}"


def left_below(folder: Path) -> list[Left]:
    """All that lie in a folder and the folders in it, the oldest first. Links lead nowhere."""
    roots = [folder] if _ROOT.fullmatch(folder.resolve().name) else []
    for path, inner, _files in os.walk(folder):
        roots += (Path(path, name) for name in inner if _ROOT.fullmatch(name))
        inner[:] = [name for name in inner if not _ROOT.fullmatch(name)]
    found = (left for root in roots if not root.is_symlink() for left in _read_all(root))
    return sorted(found, key=lambda left: -left.seconds)


def left_in(root: Path) -> list[Left]:
    """All that lie in ``root``, a folder of nothing else, the oldest first."""
    return sorted(_read_all(root), key=lambda left: -left.seconds)


def _read_all(root: Path) -> Iterator[Left]:
    for folder in root.glob("*"):
        if FOLDER_NAME.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            with suppress(OSError):  # just finished by its process, or not ours to look into
                yield _read(folder)


def _read(folder: Path) -> Left:
    files = [path.lstat() for path in folder.iterdir() if path.name != LOCK]
    newest = max((file.st_mtime for file in files), default=folder.stat().st_mtime)
    clips = sum(1 for _ in folder.glob("clip_*.mp4"))
    return Left(folder, _name(folder), clips, sum(file.st_size for file in files), time.time() - newest)


def _name(folder: Path) -> str:
    """What the state's header says; nothing where there is none, or another file in its place."""
    path = folder / STATE
    try:
        return read_header(path).metadata.get(NAME, "") if is_own(path) else ""
    except (CheckpointError, OSError):
        return ""
