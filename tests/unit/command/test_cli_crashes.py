"""The disk fails under the command, at any operation: the same command again makes the undisturbed video."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from standalone.command import main
from tests.helpers.crashes import disturbed, fail
from tests.helpers.media import tone, write_sound, write_tiny_wav2vec2

INPUTS = {"p.png", "a.flac", "wav2vec2", "bystander.txt"}


@pytest.fixture
def arguments(tmp_path: Path, goldens: Path) -> list[str]:
    """0.9 s: 27 frames, two clips."""
    from PIL import Image

    Image.new("RGB", (64, 64), (200, 150, 120)).save(tmp_path / "p.png")
    (tmp_path / "bystander.txt").write_text("mine")
    options = {
        "--image": tmp_path / "p.png",
        "--audio": write_sound(tmp_path / "a.flac", tone(0.9, 16_000), 16_000, "flac"),
        "--output": tmp_path / "v.mp4",
        "--checkpoint": goldens / "micro" / "checkpoint",
        "--wav2vec2": write_tiny_wav2vec2(tmp_path / "wav2vec2"),
        "--steps": 1,
        "--size": 32,
        "--device": "cpu",
    }
    return [str(part) for pair in options.items() for part in pair]


def test_whichever_operation_fails_the_same_command_again_makes_the_video(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    video = tmp_path / "v.mp4"
    assert main(arguments) == 0
    whole = video.read_bytes()
    dice = random.Random(int(os.environ.get("CRASH_SEED", random.randrange(10**6))))
    every = os.environ.get("EVERY_OPERATION")
    for number in range(1, int(every)) if every else dice.sample(range(1, 60), 4):
        video.unlink()
        with disturbed(number, fail):
            status = main(arguments)
        said = capsys.readouterr().err
        assert status == 0 or said.splitlines()[-1].startswith("Error: "), (number, said)
        assert main(arguments) == 0, number
        assert video.read_bytes() == whole, number
        for kept in {path.name for path in tmp_path.iterdir()} - INPUTS - {"v.mp4"}:
            content = (tmp_path / kept).read_bytes()
            told = f"{kept} could not be removed" in caplog.text
            assert content == whole or (told and not content), (number, kept, "a whole file, or a told rest")
            (tmp_path / kept).unlink()
    assert (tmp_path / "bystander.txt").read_text() == "mine"
