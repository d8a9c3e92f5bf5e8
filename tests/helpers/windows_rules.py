"""Windows' file rules on Linux: what is open or memory-mapped can be neither removed nor replaced nor moved,
and no file or folder is made, opened or moved under a name that Windows does not have.

    with windows_rules() as refused:
        ...
    assert refused == []

What this process has open is read from /proc, so that files opened by C libraries count as well. Names are
seen where Python's own functions, safetensors and PyAV open them. `refused` lists what was tried, and is
empty where the code under test would have had no trouble on Windows.
"""

from __future__ import annotations

import errno
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import safetensors.torch
from safetensors import SafetensorError

ACCESS_DENIED, SHARING_VIOLATION, INVALID_NAME = 5, 32, 123
FORBIDDEN = {*'<>:"/\\|?*', *map(chr, range(32))}
DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
LONGEST = 255  # UTF-16 units
LINUX = (
    "/proc/",
    "/sys/",
    "/dev/",
)  # read by this stand-in and by torch; Windows has other ways to what they tell
NAMED = {"open": 0, "os.mkdir": 0, "os.link": 1, "os.symlink": 1}
"""Python's audit events of what gives or opens a name, and which argument it is."""
_in_force: list[_Rules] = []  # the last one counts


@contextmanager
def windows_rules() -> Iterator[list[str]]:
    """Around os.replace, os.rename, os.unlink (which shutil.rmtree calls) and safetensors' own renaming."""
    rules = _Rules([])
    _add_hook()
    with ExitStack() as patches:
        _in_force.append(rules)
        patches.callback(_in_force.remove, rules)
        # Python 3.10's Path took its functions out of os when it was imported.
        for place in {os, getattr(pathlib, "_normal_accessor", os)}:
            for name in ("replace", "rename"):
                checked = rules.moving(name, getattr(place, name))
                patches.enter_context(mock.patch.object(place, name, checked))
            patches.enter_context(mock.patch.object(place, "unlink", rules.removing(place.unlink)))
        patches.enter_context(mock.patch("os.remove", rules.removing(os.remove)))
        save = rules.saving(safetensors.torch.serialize_file)
        patches.enter_context(mock.patch("safetensors.torch.serialize_file", save))
        if "av" in sys.modules:
            patches.enter_context(mock.patch("av.open", rules.opening(sys.modules["av"].open)))
        yield rules.refused


@cache
def _add_hook() -> None:
    """Once: Python takes no hook back. It does nothing while no rules are in force."""
    sys.addaudithook(_watch)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _in_force and event in NAMED:
        _in_force[-1].check_name(event, arguments[NAMED[event]])


def name_that_windows_has_not(path: Any) -> str | None:
    """The first part of a path, on any system's disk, that is no name on Windows."""
    if not isinstance(path, (str, bytes, os.PathLike)) or os.fsdecode(path).startswith(LINUX):
        return None
    return next((part for part in Path(os.fsdecode(path)).parts if _is_bad(part)), None)


def _is_bad(name: str) -> bool:
    if name in ("/", ".", ".."):
        return False
    is_device = DEVICES.fullmatch(name.split(".")[0].rstrip(" ")) is not None
    units = sum(1 + (ord(letter) > 0xFFFF) for letter in name)  # no codec: importing one opens a file
    return bool(set(name) & FORBIDDEN) or is_device or name[-1] in " ." or units > LONGEST


class _Rules(NamedTuple):
    refused: list[str]

    def refusal(self, what: str, path: Any, code: int) -> OSError:
        self.refused.append(f"{what} {Path(path).name}")
        kind, number = (OSError, errno.EINVAL) if code == INVALID_NAME else (PermissionError, errno.EACCES)
        error = kind(number, "Access is denied", os.fspath(path))
        error.winerror = code  # pyright: ignore[reportAttributeAccessIssue]
        return error

    def check_name(self, what: str, path: Any) -> None:
        if (name := name_that_windows_has_not(path)) is not None:
            raise self.refusal(what, name, INVALID_NAME)

    def moving(self, what: str, move: Callable[..., None]) -> Callable[..., None]:
        def checked(source: Any, target: Any, **rest: Any) -> None:
            if is_in_use(source):
                raise self.refusal(what, source, SHARING_VIOLATION)
            if is_in_use(target) or (what == "rename" and os.path.lexists(target)):
                raise self.refusal(what, target, ACCESS_DENIED)
            self.check_name(what, target)
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
            named_badly = name_that_windows_has_not(filename) is not None
            if named_badly or is_in_use(filename):
                error = self.refusal("save", filename, ACCESS_DENIED)
                raise SafetensorError(f"I/O error: {error.strerror} (os error {ACCESS_DENIED})")
            serialize(tensors, filename, *rest, **named)

        return checked

    def opening(self, open_container: Callable[..., Any]) -> Callable[..., Any]:
        def checked(file: Any, *rest: Any, **named: Any) -> Any:
            self.check_name("open", file)
            return open_container(file, *rest, **named)

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
