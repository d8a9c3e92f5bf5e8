"""Errors in words for the page: what to do first, then why; no folder, no class name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

import folder_paths

from ..host.folders import FOLDER

_NAME = 200  # letters of a name that are compared
_PACK = __name__.removesuffix("nodes.boundary.words")
_REASON_END = re.compile(r"(?<=\))\. (?=[A-Z])|(?<!\d)\. (?=[A-Z])")
_ROOT = r"(?:[A-Za-z]:|\\)?[\\/]"
_FOLDERS = re.compile(
    rf"""(?<=[('"]){_ROOT}[^'"()\n]*[\\/](?=[^\\/'"()])"""  # in brackets or quotes names may have blanks
    rf"""|(?<![\w:/\\.~-]){_ROOT}(?:[^\\/\s'"(),;:]+[\\/])*(?=[^\\/\s'"(),;:])"""
)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the pack's errors again as plain ones, for the page: advice first, no path, no class name.

    The log has the whole chain. Interrupts, out of memory and what other packs raise pass untouched.
    """
    try:
        yield
    except Exception as error:
        ours = type(error).__module__.startswith(_PACK) or str(error).startswith("expected ")
        if not ours and not isinstance(error, OSError):
            raise
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
        raise kind(page_text(str(error))) from error


def page_text(message: str) -> str:
    """`expected X but got Y (where). Advice.` -> `Advice. Expected X but got Y (where).`, without folders."""
    text = without_folders(message)
    end = _REASON_END.search(text)
    if not text.startswith("expected ") or end is None:
        return text
    return f"{text[end.end() :].strip()} E{text[1 : end.end()].strip()}"


def without_folders(text: str) -> str:
    """Paths in the host's folders begin there (`models/memo/x`), all others are names."""
    for root, name in sorted(_roots().items(), key=lambda pair: -len(pair[0])):
        text = re.sub(rf"{re.escape(root)}(?=[\\/])", lambda _match, name=name: name, text)
    return _FOLDERS.sub("", text)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Which of these names was most likely meant, if any: one that holds the given one, or looks like it."""
    plain = {_plain(each): each for each in names}
    wanted = _plain(name)
    close = [each for each in plain if len(wanted) > 2 and wanted in each] or get_close_matches(wanted, plain)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return name[:_NAME].strip().casefold().replace("\\", "/").removesuffix(".safetensors")


def _roots() -> dict[str, str]:
    """The folders that users know by name."""
    models, output = folder_paths.models_dir, folder_paths.get_output_directory()
    roots = {str(path): f"models/{FOLDER}" for path in folder_paths.get_folder_paths(FOLDER)}
    return {models: "models", output: "output", folder_paths.get_input_directory(): "input", **roots}
