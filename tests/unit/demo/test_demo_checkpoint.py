"""The shipped demo model: the voice moves the mouth, the portrait decides who it is, no file is missing."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from demo.evaluate import CHECKPOINT, DemoModel, held_out_speech
from demo.meters import correlation, identity_error, mouth_opening
from demo.speech import mouth_from_audio
from memo_avatar.portrait.images import open_image
from memo_avatar.portrait.prepare import prepare_portrait
from standalone.command import main

FOLDER = CHECKPOINT.parent
SECONDS = 16 / 30
SPEECHES = (21.7, 34.3)  # where in the held-out speech the mouth does opposite things

pytestmark = pytest.mark.skipif(not CHECKPOINT.exists(), reason="demo/checkpoint is not there")


@pytest.fixture(scope="module")
def demo() -> DemoModel:
    torch.manual_seed(0)
    return DemoModel.load()


def portrait(name: str) -> Tensor:
    """A shipped portrait as the command reads it, (3, 96, 96) in 0..1."""
    seen, _ = prepare_portrait(open_image(FOLDER / name), (96, 96))
    return seen.pixel_values[0] / 2 + 0.5


def speech(second: float) -> Tensor:
    return held_out_speech(int(second * 16_000), SECONDS)


def talk(demo: DemoModel, face: Tensor, second: float) -> Tensor:
    """One clip in 8 steps."""
    return demo.talk(face, speech(second), emotion=4, steps=8)


@pytest.fixture(scope="module")
def videos(demo: DemoModel) -> dict[str, Tensor]:
    """Three clips: a face with a voice, that face with another voice, another face with the first voice."""
    one, two = portrait("portrait.png"), portrait("portrait2.png")
    first, second = SPEECHES
    return {"one": talk(demo, one, first), "voice": talk(demo, one, second), "face": talk(demo, two, first)}


def test_another_voice_changes_the_mouth_and_not_the_person(videos: dict[str, Tensor]) -> None:
    first, second = (mouth_from_audio(speech(start))[:, 0] for start in SPEECHES)
    mouths = mouth_opening(videos["one"]), mouth_opening(videos["voice"])
    assert correlation(mouths[0], first) > 0.6 and correlation(mouths[1], second) > 0.6
    assert correlation(mouths[0], first) > correlation(mouths[0], second) + 0.3
    face, other = portrait("portrait.png"), portrait("portrait2.png")
    for name in ("one", "voice"):
        assert identity_error(videos[name], face) < 0.5 * identity_error(videos[name], other)


def test_another_portrait_changes_the_person_and_not_the_mouth(videos: dict[str, Tensor]) -> None:
    own, other = portrait("portrait2.png"), portrait("portrait.png")
    assert identity_error(videos["face"], own) < 0.5 * identity_error(videos["face"], other)
    assert correlation(mouth_opening(videos["one"]), mouth_opening(videos["face"])) > 0.6


def test_the_checkpoint_is_small_and_the_portraits_are_large() -> None:
    size = sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file())
    assert size <= 40 * 2**20
    for name in ("portrait.png", "portrait2.png"):
        assert min(Image.open(FOLDER / name).size) >= 256
    assert {path.name for path in CHECKPOINT.iterdir()} >= {
        "diffusion_net", "reference_net", "image_proj", "audio_proj", "vae", "wav2vec2",
    }  # fmt: skip
    assert Path(FOLDER / "speech.wav").exists()


@pytest.mark.slow
def test_threshold_zero_is_bit_identical_to_no_cache(tmp_path: Path) -> None:
    """By the command, as a user runs it: the files are the same, and a threshold that skips gives another."""

    def video(name: str, *options: str) -> bytes:
        path = tmp_path / f"{name}.mp4"
        inputs = ["--image", str(FOLDER / "portrait.png"), "--audio", str(FOLDER / "speech.wav")]
        length = ["--max-seconds", "0.5", "--steps", "4", "--output", str(path)]
        assert main([*inputs, *length, *options]) == 0
        return path.read_bytes()

    plain = video("plain")
    assert video("zero", "--rel-l1-thresh", "0") == plain
    assert video("skipping", "--rel-l1-thresh", "0.25") != plain
