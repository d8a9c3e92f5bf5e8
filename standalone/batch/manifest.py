"""A manifest -> its rows: CSV or JSON Lines, bounded, every problem found at once.

A row has an ``id``, which names its file, and options of the command by their names. What is wrong with a row
never hides what is wrong with the next.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from memo_avatar.files.disk import open_regular
from memo_avatar.files.foreign import CheckpointError
from memo_avatar.files.json_file import parse_json
from memo_avatar.files.names import name_problem

from ..arguments import CommandError, VideoOptions
from .arguments import OPTIONAL_VALUE, OPTIONS

ENDING = ".mp4"
MESSAGE = "message"
"""A column that says why a row failed, for people; it is no option."""

MOST_BYTES = 64 * 2**20
MOST_ROWS = 100_000
MOST_LETTERS = 10_000  # of one cell
_SHOWN = 100  # letters of a cell in a message
_SEPARATORS = ",;\t"  # spreadsheets write any of them
_NUL = "\udc00"  # no UTF-8 holds it; Python 3.10's csv gives up at a NUL, and with it the rows after it
_YES, _NO = ("true", "yes", "1", "x"), ("false", "no", "0")
_NO_COLUMNS = {
    "output": "rows name their files by id",
    "codec": "a batch writes MP4 files",
    "speaker": "several speakers are made without batch, a video at a time",
    "device": "a batch runs on one device, or on its workers' cards",
}
_HINTS = get_type_hints(VideoOptions)
FLAGS = {name for name, hint in _HINTS.items() if hint is bool}
PATHS = {name for name, hint in _HINTS.items() if hint in (Path, Path | None)}
COLUMNS = tuple(name for name in OPTIONS if name not in _NO_COLUMNS)

Cell = str | bool


@dataclass(frozen=True)
class Row:
    """One video: ``cells`` are its options by field name, as text; paths are absolute."""

    line: int
    id: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Problem:
    """What is wrong with one line of the manifest, or with the whole (line 0)."""

    line: int
    id: str
    message: str

    def __str__(self) -> str:
        name = f" ({self.id!a:.{_SHOWN}})" if self.id else ""
        return f"line {self.line}{name}: {self.message}" if self.line else self.message


def read_manifest(path: Path) -> tuple[list[Row], list[Problem]]:
    """The rows that can be meant, in order, and what is wrong with the others.

    Raises:
        CommandError: the file can't be read as a manifest at all.
    """
    text = _read_text(path)
    lines = _csv_lines(text, path) if path.suffix.lower() in (".csv", ".tsv") else _json_lines(text)
    rows: list[Row] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for count, (line, cells) in enumerate(lines, start=1):
        if count > MOST_ROWS:
            raise CommandError(
                f"expected a manifest of at most {MOST_ROWS} rows but got more ({path}). Split it."
            )
        if isinstance(cells, str):
            problems.append(Problem(line, "", cells))
            continue
        row, wrong = _row(line, cells, path.parent)
        first = seen.setdefault(_folded(row.id), line)
        if row.id and first != line:
            wrong.append(f"expected an id of its own but got that of line {first} (id). Give it another.")
        problems += [Problem(line, row.id, message) for message in wrong]
        if not wrong:
            rows.append(row)
    if not rows and not problems:
        raise CommandError(f"expected a row for every video but got none ({path}). Add some.")
    return rows, problems


def _read_text(path: Path) -> str:
    if path.suffix.lower() not in (".csv", ".tsv", ".jsonl"):
        raise CommandError(
            f"expected a manifest ending in .csv, .tsv or .jsonl but got {path.name} ({path}). Name it so."
        )
    try:
        with open_regular(path) as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise CommandError(
            f"expected a manifest but got: {error.strerror or error} ({path}). Check the path."
        ) from error
    if len(data) > MOST_BYTES:
        raise CommandError(
            f"expected a manifest of at most {MOST_BYTES / 2**20:.0f} MiB but got more ({path}). Split it."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(
            f"expected text in UTF-8 but got byte {data[error.start]:#04x} at {error.start} ({path}). "
            "Save it as UTF-8."
        ) from error


def _csv_lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, cells by column) of every row that is not empty, or what is wrong with it."""
    start = text[: text.find("\n") + 1] or text
    separator = max(_SEPARATORS, key=start.count)
    reader = csv.reader(io.StringIO(text.replace("\0", _NUL), newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    while True:
        try:
            cells = [cell.replace(_NUL, "\0").strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, f"expected CSV but got: {error} (from here on). Mend the quotes."
            return
        if not any(cells):
            continue
        if not header:
            header = cells
            if twice := next((name for name in header if header.count(name) > 1), None):
                raise CommandError(
                    f"expected every column once but got {twice!a:.{_SHOWN}} twice ({path}). Take one out."
                )
        elif len(cells) > len(header):
            yield (
                reader.line_num,
                f"expected {len(header)} cells but got {len(cells)} (CSV). Quote texts with {separator!a}.",
            )
        else:
            yield reader.line_num, {name: cell for name, cell in zip(header, cells, strict=False) if cell}


def _json_lines(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            value = parse_json(content, "JSON", advice="Write a row on one line.")
        except CheckpointError as error:
            yield line, str(error)
        else:
            yield line, {name: cell for name, cell in value.items() if cell is not None}


def _row(line: int, found: Mapping[str, Any], folder: Path) -> tuple[Row, list[str]]:
    """A line's cells under their options' names, and what is wrong with them."""
    cells: dict[str, Cell] = {}
    problems: list[str] = []
    identity = ""
    for column, value in found.items():
        name = column.strip().removeprefix("--").lower().replace("-", "_")
        if name == MESSAGE:
            continue
        try:
            cell = _cell(value)
            if name == "id":
                identity = _checked_id(cell)
            else:
                cells[name] = _option(name, column, cell, folder)
        except ValueError as error:
            problems.append(str(error))
    if not identity and not problems:
        problems.append("expected an id, which names the video, but got none (id). Give it one.")
    return Row(line, identity, cells), problems


def _cell(value: object) -> Cell:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str | int | float):
        raise ValueError(
            f"expected text or a number but got a {type(value).__name__} (cell). Write it as text."
        )
    text = str(value)
    if len(text) > MOST_LETTERS:
        raise ValueError(f"expected at most {MOST_LETTERS} letters but got {len(text)} (cell). Shorten it.")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError(f"expected plain text but got {text!a:.{_SHOWN}} (cell). Take control letters out.")
    return text


def _checked_id(cell: Cell) -> str:
    identity = str(cell)
    problem = name_problem(identity + ENDING, windows=True) or name_problem(identity + ENDING, windows=False)
    if problem:
        raise ValueError(f"expected an id that can name a file but got {problem} (id). Choose another.")
    return identity


def _option(name: str, column: str, cell: Cell, folder: Path) -> Cell:
    if name in _NO_COLUMNS:
        raise ValueError(
            f"expected no column {name} ({column!a:.{_SHOWN}}) but got one: {_NO_COLUMNS[name]}. Take it out."
        )
    if name not in COLUMNS:
        near = get_close_matches(name, COLUMNS, n=1)
        advice = (
            f"Did you mean {near[0].replace('_', '-')}?"
            if near
            else "teacache_memo.py --help lists the options."
        )
        raise ValueError(f"expected id or an option but got {column!a:.{_SHOWN}} (column). {advice}")
    if name in FLAGS and not isinstance(cell, bool):
        if cell.lower() not in _YES + _NO:
            raise ValueError(f"expected yes or no but got {cell!a:.{_SHOWN}} ({column}). Write one of them.")
        return cell.lower() in _YES
    if isinstance(cell, bool) and name not in {*FLAGS, *OPTIONAL_VALUE}:
        raise ValueError(f"expected a value but got {str(cell).lower()} ({column}). Write it as text.")
    return str(folder.absolute() / cell) if name in PATHS and isinstance(cell, str) else cell


def _folded(identity: str) -> str:
    """Equal for ids that Windows or macOS take for the same file."""
    return unicodedata.normalize("NFC", identity).casefold()
