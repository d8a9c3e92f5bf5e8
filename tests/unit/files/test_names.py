"""Names of files, by the rules of Windows and of other systems."""

import pytest

from memo_avatar.files.names import name_problem, portable_name


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
