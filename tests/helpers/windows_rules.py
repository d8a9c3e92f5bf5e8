"""Windows' file rules on Linux: what is open or memory-mapped can be neither removed nor replaced nor moved.

    with windows_rules() as refused:
        ...
    assert refused == []

What this process has open is read from /proc, so that files opened by C libraries count as well. `refused`
lists what was tried, and is empty where the code under test would have had no trouble on Windows.
"""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple
from unittest import mock

import safetensors.torch
from safetensors import SafetensorError

ACCESS_DENIED, SHARING_VIOLATION, INVALID_NAME = 5, 32, 123
FORBIDDEN = {*'<>:"/\\|?*', *map(chr, range(32))}


@contextmanager
def windows_rules() -> Iterator[list[str]]:
    """Around os.replace, os.rename, os.unlink (which shutil.rmtree calls) and safetensors' own renaming."""
    rules = _Rules([])
    with ExitStack() as patches:
        # Python 3.10's Path took its functions out of os when it was imported.
        for place in {os, getattr(pathlib, "_normal_accessor", os)}:
            for name in ("replace", "rename"):
                checked = rules.moving(name, getattr(place, name))
                patches.enter_context(mock.patch.object(place, name, checked))
            patches.enter_context(mock.patch.object(place, "unlink", rules.removing(place.unlink)))
        patches.enter_context(mock.patch("os.remove", rules.removing(os.remove)))
        save = rules.saving(safetensors.torch.serialize_file)
        patches.enter_context(mock.patch("safetensors.torch.serialize_file", save))
        yield rules.refused


class _Rules(NamedTuple):
    refused: list[str]

    def refusal(self, what: str, path: Any, code: int) -> OSError:
        self.refused.append(f"{what} {Path(path).name}")
        kind, number = (OSError, errno.EINVAL) if code == INVALID_NAME else (PermissionError, errno.EACCES)
        error = kind(number, "Access is denied", os.fspath(path))
        error.winerror = code  # pyright: ignore[reportAttributeAccessIssue]
        return error

    def moving(self, what: str, move: Callable[..., None]) -> Callable[..., None]:
        def checked(source: Any, target: Any, **rest: Any) -> None:
            if is_in_use(source):
                raise self.refusal(what, source, SHARING_VIOLATION)
            if is_in_use(target) or (what == "rename" and os.path.lexists(target)):
                raise self.refusal(what, target, ACCESS_DENIED)
            if PureWindowsPath(target).is_reserved() or set(Path(target).name) & FORBIDDEN:
                raise self.refusal(what, target, INVALID_NAME)
            move(source, target, **rest)

        return checked

    def removing(self, remove: Callable[..., None]) -> Callable[..., None]:
        def checked(path: Any, *, dir_fd: int | None = None) -> None:
            folder = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
            if is_in_use(os.path.join(folder, path)):
                raise self.refusal("unlink", path, SHARING_VIOLATION)
            remove(path, dir_fd=dir_fd)

        return checked

    def saving(self, serialize: Callable[..., None]) -> Callable[..., None]:
        def checked(tensors: Any, filename: Any, *rest: Any, **named: Any) -> None:
            if is_in_use(filename):
                error = self.refusal("save", filename, ACCESS_DENIED)
                raise SafetensorError(f"I/O error: {error.strerror} (os error {ACCESS_DENIED})")
            serialize(tensors, filename, *rest, **named)

        return checked


def is_in_use(path: Any) -> bool:
    """Whether this process has a file open or mapped."""
    wanted = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(path))
    return not os.path.isdir(wanted) and wanted in {*_open_files(), *_mapped_files()}


def _open_files() -> Iterator[str]:
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:  # the listing's own
            continue


def _mapped_files() -> Iterator[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/"):
                yield fields[5]
