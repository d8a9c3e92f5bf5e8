"""Names of files, by the rules of Windows and of other systems."""

import os
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memo_avatar.files.names import alternatives, name_problem, portable_name


@pytest.mark.parametrize(
    "name",
    ["CON", "con.mp4", "Nul.tar.gz", "COM1.txt", "lpt9", "COM².mp4", "conin$", "aux .mp4",
     "a:b.mp4", "a?.mp4", "a\tb", "a\nb", "end.", "end ", "w" * 256, "\0", "", ".."],
)  # fmt: skip
def test_windows_takes_no_such_name(name: str) -> None:
    assert name_problem(name, windows=True) is not None


@pytest.mark.parametrize("name", ["v.mp4", "console.mp4", "com10.mp4", "说话.mp4", "😀" * 127, ".hidden"])
def test_windows_takes_such_a_name(name: str) -> None:
    assert name_problem(name, windows=True) is None


@pytest.mark.parametrize("name", ["CON", "12:30.mp4", "a?.mp4", "end."])
def test_other_systems_take_what_windows_forbids(name: str) -> None:
    assert name_problem(name, windows=False) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my calibration", "my calibration"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("  ..  ", "default"),
        ("a\0b:c", "a_b_c"),
        ("नमस्ते", "नमस्ते"),
        ("e\u0301te\u0301", "été"),
        ("说" * 300, "说" * 66),
    ],
)
def test_what_somebody_typed_becomes_a_name_on_every_system(text: str, name: str) -> None:
    assert portable_name(text, "default") == name
    assert name_problem(name + ".safetensors", windows=True) is None
    assert name_problem(name + ".safetensors", windows=False) is None


NAMES = [
    "v.mp4",
    "v" * 251 + ".mp4",
    "说" * 83 + ".mp4",
    "v." + "e" * 253,
    "." + "e" * 254,
    "v." + "说" * 84,
    "no ending " * 25,
]


@pytest.mark.parametrize("name", [*NAMES, *(name.replace("v", "\udcff") for name in NAMES)], ids=ascii)
def test_what_else_it_may_be_called_always_fits_and_never_twice(name: str) -> None:
    found = [path.name for path in islice(alternatives(Path("folder") / name), 1200)]
    assert found[0] == name
    assert max(len(os.fsencode(each)) for each in found) <= 255
    assert len(set(found)) == len(found) and "(1199)" in found[-1]
    assert all(os.fsencode(each).startswith(os.fsencode(name)[:1]) for each in found)


@pytest.mark.parametrize("name", NAMES[:3])
def test_it_keeps_an_ending_that_programs_know(name: str) -> None:
    assert all(path.suffix == ".mp4" for path in islice(alternatives(Path(name)), 20))


def test_bytes_that_are_no_text_tell_names_apart() -> None:
    """As an archive with names of another alphabet leaves them: two files stay two."""
    first, second = (
        [*islice(alternatives(Path(os.fsdecode(name))), 2)][1] for name in (b"\xff.mp4", b"\xfe.mp4")
    )
    assert os.fsencode(first) == b"\xff (1).mp4" and os.fsencode(second) == b"\xfe (1).mp4"


def test_a_long_name_that_is_no_text_can_be_made(tmp_path: Path) -> None:
    for path in islice(alternatives(tmp_path / os.fsdecode(b"\xff\xc3" * 125 + b".mp4")), 12):
        path.touch(exist_ok=False)


@given(
    st.binary(min_size=1, max_size=255).filter(
        lambda name: not {0, 47} & {*name} and name not in (b".", b"..")
    )
)
def test_any_name_at_all_has_others(name: bytes) -> None:
    found = [os.fsencode(path.name) for path in islice(alternatives(Path(os.fsdecode(name))), 12)]
    assert len(set(found)) == 12 and all(0 < len(each) <= 255 for each in found)
