"""JSON that anybody may have written: ordinary files of bounded size and depth, every number finite."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .disk import open_regular
from .foreign import LONGEST_START, CheckpointError, kind_of, shown
from .limits import MAX_CONFIG_BYTES, MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_JSON_ROOM, MAX_WHOLE

DOWNLOAD_AGAIN = "Download the file again."
_ROOM_OF_VALUE, _ROOM_OF_NAME = 64, 250  # bytes: an empty list in a list; a short name in an object
_LARGEST = {bool: 1, int: MAX_WHOLE, float: sys.float_info.max}
_TOO_LARGE = "a number beyond all use"
_TOO_DEEP = f"more than {MAX_JSON_DEPTH} lists and objects within each other"


class _UnusableError(ValueError):
    """JSON that is not taken. The text says what it is."""


def read_json(path: Path, *, most: int = MAX_JSON_BYTES, advice: str = DOWNLOAD_AGAIN) -> dict[str, Any]:
    """A file that holds one JSON object, of at most ``most`` bytes."""
    try:
        with open_regular(path) as stream:
            data = stream.read(most + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            what = shown(error.strerror or str(error))
        else:
            what = kind_of(error.object) or "bytes that are no text"
        raise CheckpointError(
            f"expected a readable {path.name} but got: {what} ({path}). {advice}"
        ) from error
    if len(data) > most:
        raise CheckpointError(
            f"expected JSON of at most {most / 2**20:g} MiB but got more ({path}). {advice}"
        )
    del data
    return parse_json(text, str(path), advice=advice)


def parse_json(
    text: str, where: str, *, what: str = "a JSON object", advice: str = DOWNLOAD_AGAIN
) -> dict[str, Any]:
    """A JSON object without doubled names, NaN, or numbers that no computation can use."""
    try:
        _check_room(text)
        values = json.loads(text, parse_constant=_refuse, object_pairs_hook=_object)
        problem = _problem(values) if isinstance(values, dict) else shown(values)
    except json.JSONDecodeError as error:
        problem = _syntax_problem(text, error)
    except _UnusableError as error:
        problem = str(error)
    except RecursionError:
        problem = _TOO_DEEP
    except ValueError:  # Python itself reads no whole number of thousands of digits
        problem = _TOO_LARGE
    if problem:
        raise CheckpointError(f"expected {what} but got: {problem} ({where}). {advice}")
    return values


def _syntax_problem(text: str, error: json.JSONDecodeError) -> str:
    """What a text is that can't be parsed, in our words: the parser's are for programmers."""
    known = kind_of(text[:LONGEST_START].encode("utf-8", "replace"))
    if known or not text.strip():
        return known or "nothing"
    ends = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
    return f"{'an end too early' if ends else 'no JSON'}, in line {error.lineno}, column {error.colno}"


def _check_room(text: str) -> None:
    """Refuse what would take many times its own length: small lists, short names, letters beyond ASCII."""
    if len(text) > MAX_CONFIG_BYTES and not text.isascii():
        raise _UnusableError(f"letters beyond ASCII in more than {MAX_CONFIG_BYTES // 2**20} MiB")
    parts = sum(map(text.count, ",[{"))
    if parts * _ROOM_OF_VALUE + text.count(":") * _ROOM_OF_NAME > MAX_JSON_ROOM:
        raise _UnusableError(f"so many values that they take more than {MAX_JSON_ROOM // 2**20} MiB")


def _problem(values: Any) -> str | None:
    """What is wrong with parsed values, level by level."""
    level = [values]
    for _ in range(MAX_JSON_DEPTH):
        nested: list[Any] = []
        for value in level:
            nested += value.values() if isinstance(value, dict) else value
        for value in nested:
            if isinstance(value, (int, float)) and not abs(value) <= _LARGEST[type(value)]:
                return _TOO_LARGE
        level = [value for value in nested if isinstance(value, (dict, list))]
        if not level:
            return None
    return _TOO_DEEP


def _refuse(name: str) -> float:
    raise _UnusableError(f"{name}, which is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _UnusableError("a name twice")
    return found
