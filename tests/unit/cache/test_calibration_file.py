"""A calibration file is believed only where every value can be what it says; else one line says which."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teacache_core import Calibration, CalibrationError
from tests.unit.cache.test_cache_schedule import made_recording

VALID = Calibration.fit([made_recording(0, steps=6)]).to_json()


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The valid file with one thing wrong."""
    values = copy.deepcopy(VALID)
    change(values)
    return values


def put(place: list[Any], value: object) -> Callable[[dict[str, Any]], object]:
    """A change: the value at a path of keys."""

    def change(values: Any) -> None:
        for key in place[:-1]:
            values = values[key]
        values[place[-1]] = value

    return change


FIRST = ["recordings", 0]
CASES = {
    "no recordings": (put(["recordings"], []), "at least one recording"),
    "recordings of text": (put(["recordings"], ["x"]), "an object but got str"),
    "recordings as an object": (put(["recordings"], {}), "a list but got dict"),
    "no levels": (put([*FIRST, "sigmas"], []), "falling noise levels"),
    "rising levels": (put([*FIRST, "sigmas"], [0.1, 0.2, 0.3]), "falling noise levels"),
    "a level of zero": (put([*FIRST, "sigmas", -1], 0.0), "falling noise levels"),
    "too few changes": (put([*FIRST, "output_change"], [0.1]), "5 or more changes but got 1"),
    "a change below zero": (put([*FIRST, "output_change", 1], -0.1), "changes of 0 or more"),
    "fewer signals": (put([*FIRST, "signal_change"], [0.1]), "changes but got 5 and 1"),
    "a short row": (put([*FIRST, "gram", 2], [1.0]), "6 entries but got 1"),
    "a row too few": (put([*FIRST, "gram"], [[1.0] * 6] * 5), "6 entries but got 5"),
    "NaN": (put([*FIRST, "gram", 2, 2], float("nan")), "a finite number but got nan"),
    "infinity": (put(["coefficients", 0], float("inf")), "a finite number but got inf"),
    "a number too large": (put([*FIRST, "gram", 2, 2], 10**400), "a finite number but got inf"),
    "true": (put(["r_squared"], True), "a number but got bool"),
    "text": (put(["coefficients", 0], "1"), "a number but got str"),
    "no coefficients": (put(["coefficients"], []), "1 to 16 coefficients"),
    "not inner products": (put([*FIRST, "gram", 2, 2], -1.0), "inner products"),
    "not symmetric": (put([*FIRST, "gram", 0, 5], 9.0), "inner products"),
    "half a range": (put(["range"], [0.1]), "2 entries but got 1"),
    "guidance of text": (put(["guidance_scale"], "3.5"), "a number but got str"),
    "a pull of text": (put(["pull"], "1"), "a number but got str"),
    "a pull too strong": (put(["pull"], 1e9), "a strength of 0 to 3 but got"),
    "a fingerprint of numbers": (put(["fingerprint"], {"layout": 3, "sample": []}), "a layout as text"),
    "another format": (put(["format"], "x"), "a calibration file"),
    "a later version": (put(["version"], 4), "version 1 to 3) but got 'teacache-calibration' version 4"),
}


@pytest.mark.parametrize(("change", "message"), CASES.values(), ids=CASES.keys())
def test_a_value_that_cannot_be_is_refused_in_one_line(change, message: str) -> None:
    with pytest.raises(CalibrationError) as error:
        Calibration.from_text(json.dumps(changed(change)), "c.json")
    text = str(error.value)
    assert message in text and "\n" not in text and "c.json" in text


def test_the_valid_file_is_read_as_it_was_written() -> None:
    assert Calibration.from_text(json.dumps(VALID)).to_json() == VALID


@pytest.mark.parametrize("text", ["[" * 100_000, "\x00", "", "1e999999", '{"recordings": ' * 5000])
def test_text_that_is_no_file_of_ours_is_refused(text: str) -> None:
    with pytest.raises(CalibrationError):
        Calibration.from_text(text)


def test_a_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CalibrationError, match=r"in JSON but got bytes that are no text.*c\.json"):
        Calibration.load(path)
