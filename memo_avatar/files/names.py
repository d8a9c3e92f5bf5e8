"""Names of files: what every system takes, and what to do where one is taken already."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from unicodedata import category, normalize

_LONGEST_NAME = 255  # bytes, of every file system in use; Windows counts UTF-16 units
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
    """``name.ext``, ``name (1).ext``, ``name (2).ext``, ..."""
    yield path
    for number in count(1):
        ending = f" ({number}){path.suffix}"
        yield path.with_name(_shortened(path.stem, _LONGEST_NAME - len(os.fsencode(ending))) + ending)


def _shortened(name: str, nbytes: int) -> str:
    return name.encode("utf-8", "ignore")[:nbytes].decode("utf-8", "ignore")
