"""A calibration file is somebody's: every value is checked for type, range and length first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

from ..feedback import MOST
from ..metric import is_gram


class CalibrationError(ValueError):
    """A calibration that cannot be made, read, or used on this checkpoint."""


def refuse(expected: str, found: str, where: str) -> CalibrationError:
    """One line; the remedy for a damaged file is always the same."""
    return CalibrationError(f"expected {expected} but got {found} ({where}). Calibrate again.")


def read_object(value: object, where: str) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise refuse("an object", _kind(value), where)
    return cast("Mapping[str, Any]", value)


def read_list(value: object, where: str, count: int | None = None) -> list[object]:
    """A JSON list, of `count` entries if given."""
    if not isinstance(value, list):
        raise refuse("a list", _kind(value), where)
    found = cast("list[object]", value)
    if count is not None and len(found) != count:
        raise refuse(f"{count} entries", str(len(found)), where)
    return found


def read_number(value: object, where: str) -> float:
    """A finite number; JSON's true and NaN are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse("a number", _kind(value), where)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise refuse("a finite number", str(number), where)
    return number


def read_strength(value: object, where: str) -> float:
    """How strongly a net answers latents that are off."""
    strength = read_number(value, where)
    if not 0.0 <= strength <= MOST:
        raise refuse(f"a strength of 0 to {MOST:g}", str(strength), where)
    return strength


def read_numbers(value: object, where: str, count: int | None = None) -> tuple[float, ...]:
    """A list of finite numbers, of `count` entries if given."""
    return tuple(read_number(entry, where) for entry in read_list(value, where, count))


def read_changes(value: object, where: str) -> tuple[float, ...]:
    """Relative changes: none of them is negative."""
    changes = read_numbers(value, where)
    if any(change < 0 for change in changes):
        raise refuse("changes of 0 or more", str(min(changes)), where)
    return changes


def read_levels(value: object, where: str) -> tuple[float, ...]:
    """Noise levels of two steps or more: falling, above 0."""
    levels = read_numbers(value, where)
    if len(levels) < 2 or levels[-1] <= 0 or any(a <= b for a, b in pairwise(levels)):
        raise refuse("two or more falling noise levels above 0", f"other ones ({len(levels)})", where)
    return levels


def read_gram(value: object, where: str, count: int) -> tuple[tuple[float, ...], ...]:
    """Inner products of `count` vectors."""
    gram = tuple(read_numbers(row, where, count) for row in read_list(value, where, count))
    if not is_gram(gram):
        raise refuse("inner products", "numbers that cannot be any", where)
    return gram


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
