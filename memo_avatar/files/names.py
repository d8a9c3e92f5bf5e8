"""Names of files: what every system takes, and what to do where one is taken already."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from unicodedata import category, normalize

_LONGEST_NAME = 255  # bytes, of every file system in use; Windows counts UTF-16 units
_LONGEST_ENDING = 32  # bytes; what is longer is a dot in a name, and no program knows it
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')  # on Windows
_RESERVED = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9¹²³])", re.IGNORECASE)


def name_problem(name: str, *, windows: bool) -> str | None:
    """What is wrong with a file's name on every system, or on Windows; None: nothing."""
    if name in ("", ".", ".."):
        return "none"
    if "\0" in name:
        return "one with a NUL in it"
    try:
        length = len(name.encode("utf-16-le")) // 2 if windows else len(os.fsencode(name))
    except UnicodeEncodeError:
        return "one that is no text"
    if length > _LONGEST_NAME:
        return f"one of {length} {'letters' if windows else 'bytes'} where {_LONGEST_NAME} is the most"
    if not windows:
        return None
    if forbidden := _FORBIDDEN.search(name):
        return f"one with {forbidden[0]!a} in it, which Windows forbids"
    if _RESERVED.fullmatch(name.split(".")[0].rstrip(" ")):
        return "one that Windows keeps for a device"
    return "one that ends in a space or a dot, which Windows drops" if name[-1] in " ." else None


def portable_name(text: str, default: str) -> str:
    """A file name, without ending, that every system takes, from what somebody typed; else ``default``."""
    name = "".join(letter if _is_portable(letter) else "_" for letter in normalize("NFC", text)).strip(" .")
    name = _shortened(name, _LONGEST_NAME - 55).strip(" .")  # room for an ending and a number
    return f"_{name}" if name and name_problem(name, windows=True) else name or default


def _is_portable(letter: str) -> bool:
    """Letters and digits of every alphabet, with the marks that some are written with."""
    return letter.isalnum() or letter in "_ .-" or category(letter).startswith("M")


def alternatives(path: Path) -> Iterator[Path]:
    """``name.ext``, ``name (1).ext``, ``name (2).ext``, ..., none longer than a name may be."""
    yield path
    ending = path.suffix if _num_bytes(path.suffix) <= _LONGEST_ENDING else ""
    for number in count(1):
        added = f" ({number}){ending}"
        stem = _shortened(path.name.removesuffix(ending), _LONGEST_NAME - _num_bytes(added))
        yield path.with_name(stem + added)


def _shortened(name: str, nbytes: int) -> str:
    """As many of its letters as fit."""
    name = name[:nbytes]
    while _num_bytes(name) > nbytes:
        name = name[:-1]
    return name


def _num_bytes(name: str) -> int:
    """Of a name on a disk: on Linux a byte that is no text counts as one."""
    return len(name.encode("utf-8", sys.getfilesystemencodeerrors()))
