"""What became of every row: `results.jsonl`, written as it happens, and `failed.jsonl`, a manifest."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from memo_avatar.files.disk import open_regular, remove, replacing
from memo_avatar.files.foreign import CheckpointError
from memo_avatar.files.json_file import parse_json
from memo_avatar.files.lock import hold

from ..arguments import CommandError
from .manifest import MESSAGE, Row

RESULTS, FAILED, LOCK = "results.jsonl", "failed.jsonl", ".batch.lock"
State = Literal["done", "skipped", "failed"]

_MOST_BYTES = 256 * 2**20
_LONGEST_LINE = 2**20
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """A try that came to nothing: where, after how many finished frames, and why."""

    machine: str
    frames: int
    message: str


@dataclass(frozen=True)
class Result:
    """A row's line. ``frames`` are the video's; of these ``continued_from`` were there when it was begun."""

    id: str
    state: State
    message: str = ""
    seconds: float = 0.0
    frames: int = 0
    continued_from: int = 0
    evaluations: int = 0
    machine: str = ""
    attempt: int = 1
    earlier: list[Attempt] = field(default_factory=list[Attempt])


class Results:
    """The lines of a folder, by id. A line is appended when it is known; `close` leaves one per row."""

    def __init__(self, folder: Path) -> None:
        self.path, self._folder = folder / RESULTS, folder
        self._lines: dict[str, dict[str, Any]] = dict(_read(self.path))

    def record(self, result: Result) -> None:
        """Write a row's line. A row that is skipped keeps the line of the run that made it."""
        if result.state == "skipped" and self._lines.get(result.id, {}).get("state") == "done":
            return
        self._lines[result.id] = asdict(result)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")

    def close(self, rows: Iterable[Row]) -> None:
        """One line per row, and the manifest of the failed ones among ``rows``; none where none failed."""
        _write(self.path, self._lines.values())
        failed = [row for row in rows if self._lines.get(row.id, {}).get("state") == "failed"]
        if failed:
            _write(self._folder / FAILED, (_as_manifest(row, self._lines[row.id]) for row in failed))
        else:
            remove(self._folder / FAILED)


def _as_manifest(row: Row, line: dict[str, Any]) -> dict[str, Any]:
    cells = {name.replace("_", "-"): cell for name, cell in row.cells.items()}
    return {"id": row.id, **cells, MESSAGE: str(line.get("message", ""))}


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    with replacing(path) as part, part.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of earlier runs that can be read; they only inform, so that none is worth an error."""
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return
    with open_regular(path) as stream:
        for number, text in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b""), start=1):
            if line := _result(text):
                yield line["id"], line
            elif text.strip():
                logger.warning("%s: line %d can't be read and is left out", path.name, number)


def _result(text: bytes) -> dict[str, Any] | None:
    """The line as this module writes it, if it is one, and can be written again."""
    try:
        line: Any = parse_json(text.decode("utf-8"), RESULTS)
        json.dumps(line, ensure_ascii=False).encode("utf-8")  # JSON may hold half a letter, a file may not
    except (CheckpointError, UnicodeError):
        return None
    names = {item.name for item in fields(Result)}
    return line if isinstance(line.get("id"), str) and line.keys() <= names else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this batch alone."""
    lock = hold(folder / LOCK)
    if lock is None:
        raise CommandError(
            f"expected a folder that no other batch writes to but got one that is taken ({folder}). "
            "Wait for the other, or choose another folder."
        )
    try:
        yield
    finally:
        lock.close()
