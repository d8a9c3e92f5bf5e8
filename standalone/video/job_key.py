"""A name for all that a video depends on, known before anything is loaded: equal videos get the same one.

It covers every option by construction, and of every file its content. Where a file is larger than some
megabytes, blocks from all over it stand for the rest: another checkpoint, or another cut of a recording,
differs everywhere.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import fields
from pathlib import Path

from ..arguments import VideoOptions
from ..models import ModelFiles

OUTSIDE = ("output", "device", "memory", "cache_report", "restart")
"""Options that change where or how a video is made, but not what is in it."""

_WHOLE = 64 * 2**20  # bytes up to which all of a file counts
_BLOCK, _BLOCKS = 2**16, 64
_MODEL_FILES = (".safetensors", ".json", ".onnx")


class JobKeys:
    """Keys of many videos: a file that many of them use is read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def key(self, options: VideoOptions, files: ModelFiles) -> str:
        """32 hexadecimal digits."""
        digest = hashlib.sha256(repr(files.settings).encode())
        defaults = {name: getattr(files, name) for name in ("vae", "wav2vec2", "calibration")}
        for field in fields(options):
            value = getattr(options, field.name)
            if field.name in OUTSIDE:
                continue
            if field.name == "calibrate":
                value = value is not None  # where to is all the same
            elif value is None:
                value = defaults.get(field.name)
            if isinstance(value, Path):
                content = self._content(value)
            elif field.name == "speakers":
                content = repr([(one.face, one.start, self._content(one.audio)) for one in options.speakers])
            else:
                content = repr(value)
            digest.update(f"{field.name}={content}\n".encode())
        return digest.hexdigest()[:32]

    def _content(self, path: Path) -> str:
        if path.is_dir():
            found = sorted(item for item in path.rglob("*") if item.suffix in _MODEL_FILES and item.is_file())
            return "".join(f"{item.relative_to(path).as_posix()}:{self._of_file(item)};" for item in found)
        return self._of_file(path) if path.is_file() else "none"

    def _of_file(self, path: Path) -> str:
        status = path.stat()
        name = (path, status.st_size, status.st_mtime_ns)
        if name not in self._known:
            self._known[name] = _digest(path, status.st_size)
        return self._known[name]


def _digest(path: Path, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        if size <= _WHOLE:
            while block := stream.read(_BLOCK):
                digest.update(block)
        else:
            for number in range(_BLOCKS):
                stream.seek(number * (size - _BLOCK) // (_BLOCKS - 1), os.SEEK_SET)
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()
