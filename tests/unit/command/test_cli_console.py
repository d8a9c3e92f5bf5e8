"""What the command prints reaches every console: one whose code page lacks a name's letters shows escapes."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from PIL import Image

from standalone.command import main
from tests.helpers.media import tone, write_sound


def run_on_console(encoding: str, *arguments: object) -> tuple[int, list[str], list[str]]:
    """The exit status and the lines of stdout and stderr, on a console or a pipe with this code page."""
    # As Python has them: stderr escapes by itself, stdout raises.
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    for stream in (out, err):
        stream.seek(0)
    return status, out.read().splitlines(), err.read().splitlines()


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "ascii"])
def test_a_video_whose_name_the_console_lacks(encoding: str, tmp_path: Path) -> None:
    Image.new("RGB", (96, 96), (200, 150, 120)).save(tmp_path / "얼굴.png")
    sound, output = write_sound(tmp_path / "소리.wav", tone(0.1)), tmp_path / "영상.mp4"
    files = ["--image", tmp_path / "얼굴.png", "--audio", sound, "--output", output]
    fast = ["--steps", 1, "--guidance-scale", 1, "--device", "cpu"]
    status, out, _ = run_on_console(encoding, *files, *fast)
    assert status == 0
    (video,) = [line for line in out if line.startswith("Video: ")]
    assert r"\uc601\uc0c1.mp4 (3 frames of 96x96" in video
    assert output.is_file()


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "ascii"])
def test_an_error_about_a_name_the_console_lacks(encoding: str, tmp_path: Path) -> None:
    status, _, err = run_on_console(encoding, "convert", tmp_path / "모델", tmp_path / "m.safetensors")
    (error,) = [line for line in err if line.startswith("Error: ")]
    assert status == 2 and r"\ubaa8\ub378" in error


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "ascii"])
def test_a_list_of_models_in_a_folder_the_console_lacks(encoding: str, tmp_path: Path) -> None:
    status, out, _ = run_on_console(encoding, "models", "--folder", tmp_path / "모델")
    assert status == 0 and out[0].endswith(r"\ubaa8\ub378")
