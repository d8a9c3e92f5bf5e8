"""Reading JSON that anybody may have written."""

import json
import os
import re
from pathlib import Path

import pytest

from memo_avatar.files.foreign import CheckpointError, number, numbers, shown
from memo_avatar.files.json_file import parse_json, read_json
from memo_avatar.files.limits import MAX_JSON_DEPTH


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    path.write_bytes(b'\xef\xbb\xbf{"size": 96}\r\n')
    assert read_json(path) == {"size": 96}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "got: nothing ("),
        (b" \n", "got: nothing ("),
        (b"[]", "got: a list"),
        (b"null", "got: nothing ("),
        (b"{", "got: an end too early, in line 1, column 2 ("),
        (b'{"a', "got: an end too early, in line 1, column 2 ("),
        (b'{"size": 96,\n "photographs"}', "got: no JSON, in line 2, column 15 ("),
        (b"{size: 96}", "got: no JSON, in line 1, column 2 ("),
        (b"{'size': 96}", "got: no JSON, in line 1, column 2 ("),
        (b"{} {}", "got: no JSON, in line 1, column 4 ("),
        (b'{"a": "\\x"}', "got: no JSON, in line 1, column 8 ("),
        (
            b"<!DOCTYPE html><html>",
            "got: a web page: the download was answered with an error or a login page (",
        ),
        (b"version https://git-lfs.github.com/spec/v1\noid", "got: a Git LFS pointer: the file itself was"),
        (b'{"a": 1, "a": 2}', "a name twice"),
        (b'{"a": NaN}', "NaN, which is no number"),
        (b'{"a": -Infinity}', "-Infinity, which is no number"),
        (b'{"a": [1e999]}', "a number beyond all use"),
        (b'{"a": %s}' % (b"9" * 30), "a number beyond all use"),
        (b'{"a": %s}' % (b"9" * 5000), "a number beyond all use"),
        (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", f"more than {MAX_JSON_DEPTH} lists"),
        (b'{"a": ' + b"[" * 100_000, f"more than {MAX_JSON_DEPTH} lists"),
        (b'{"a":' * 100_000, f"more than {MAX_JSON_DEPTH} lists"),
        (b'{"a": "\xff"}', "expected a readable demo.json but got: bytes that are no text ("),
        (
            b"PK\x03\x04\xff",
            "expected a readable demo.json but got: a PyTorch pickle or another zip archive (",
        ),
        (b'{"a": 1}' + b" " * 2000, "at most 0.000953674 MiB"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "demo.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_json(path, most=max(1000, len(content.rstrip())), advice="Repair the file.")
    assert expected in str(caught.value)
    assert str(caught.value).endswith(f"({path}). Repair the file.")
    assert not re.search(r"Expecting|Unterminated|Invalid|Extra|char \d|codec|Exceeds", str(caught.value))
    assert len(str(caught.value)) < 200 + len(str(path)) and str(caught.value).isprintable()


def test_a_device_a_pipe_and_a_folder_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(CheckpointError, match="a folder or device instead of a file"):
            read_json(path)


def test_a_link_to_a_file_is_followed_as_a_hub_cache_has_them(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "config.json").symlink_to(tmp_path / "blob")
    assert read_json(tmp_path / "config.json") == {}


@pytest.mark.parametrize("value", [0, 40000, 1.5, "big", None, True, [512], 2**70])
def test_a_whole_number_is_whole_and_in_range(value: object) -> None:
    with pytest.raises(CheckpointError, match="expected size to be a whole number from 8 to 4096 but got"):
        number({"size": value}, "size", None, 8, 4096, "demo.json")


def test_numbers_that_fit_are_taken_and_defaults_fill_in() -> None:
    assert number({"size": 512}, "size", None, 8, 4096, "") == 512
    assert number({}, "size", 96, 8, 4096, "") == 96
    assert number({"guidance_scale": 2}, "guidance_scale", None, 0.0, 100.0, "") == 2.0
    assert numbers({"a": [1, 2]}, "a", 1, 5, "", most=2) == (1, 2)


@pytest.mark.parametrize("value", [[], [1, 2, 3], [9], "12", None, {}])
def test_a_list_has_as_many_numbers_as_it_may(value: object) -> None:
    with pytest.raises(CheckpointError, match="expected a to be"):
        numbers({"a": value}, "a", 1, 5, "config.json", most=2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("a\x1b[2Jb\nc", r"a\x1b[2Jb\nc"),
        ("\ud800", r"\ud800"),
        ("x" * 5000, "x" * 100 + "..."),
        ([1] * 9, "a list of 9"),
        ({"a": 1}, "an object of 1"),
        (None, "nothing"),
    ],
)
def test_a_foreign_value_is_shown_short_and_printable(value: object, text: str) -> None:
    assert shown(value) == text


def test_parsing_leaves_honest_values_as_they_are() -> None:
    values = {"a": [1, -2.5, True, None, "text"], "b": {"c": [[[]]]}, "d": 2**62}
    assert parse_json(json.dumps(values), "here") == values
