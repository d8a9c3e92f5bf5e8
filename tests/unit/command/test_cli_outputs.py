"""More than MP4 from the command: animations, frames and ProRes, each read back, with MP4's promises."""

from __future__ import annotations

import sys
import wave
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import standalone.video.making
import standalone.video.pictures
import standalone.video.targets
from memo_avatar.timing import FPS
from memo_avatar.video.segments import write_segment
from standalone.command import main
from standalone.video.pictures import shown_for, write_animation
from tests.helpers.media import read_video, tone, write_sound

FRAMES = 27  # two clips
FORMATS = {".gif": "GIF", ".webp": "WEBP", ".apng": "PNG"}


@pytest.fixture
def arguments(tmp_path: Path, goldens: Path, wav2vec2: Path) -> list[str]:
    """0.9 s of stereo for a face in a picture of odd sides; no output yet."""
    noise = np.random.default_rng(0).integers(0, 256, (99, 131, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "p.png")
    options = {
        "--image": tmp_path / "p.png",
        "--audio": write_sound(tmp_path / "a.flac", tone(0.9, 44_100, 2), 44_100, "flac"),
        "--checkpoint": goldens / "micro" / "checkpoint",
        "--wav2vec2": wav2vec2,
        "--face-box": "40,30,80,70",
        "--face-crop": 0.2,
        "--steps": 1,
        "--size": 64,
        "--device": "cpu",
    }
    return [*[str(part) for pair in options.items() for part in pair], "--paste-back"]


def read_frames(folder: Path) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def read_animation(path: Path) -> tuple[NDArray[np.uint8], float, str | None]:
    """Pictures, milliseconds and format."""
    pictures, shown = [], 0.0
    with Image.open(path) as animation:
        for index in range(animation.n_frames):
            animation.seek(index)
            pictures.append(np.asarray(animation.convert("RGB")))
            shown += animation.info["duration"]
        return np.stack(pictures), shown, animation.format


def seconds_of(path: Path) -> float:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
        return file.getnframes() / file.getframerate()


@pytest.mark.parametrize("ending", FORMATS)
def test_an_animation_and_its_sound(ending: str, arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "--output", str(tmp_path / f"v{ending}")]) == 0
    pictures, shown, kind = read_animation(tmp_path / f"v{ending}")
    assert (pictures.shape[1:], shown, kind) == ((99, 131, 3), 900, FORMATS[ending])
    assert seconds_of(tmp_path / "v.wav") == 0.9
    names = ["a.flac", "p.png", f"v{ending}", "v.wav"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("ending", FORMATS)
def test_an_animation_in_which_nothing_moves_is_one_picture(ending: str, count: int, tmp_path: Path) -> None:
    clip, picture = tmp_path / "clip.mov", torch.rand(1, 3, 32, 48)
    write_segment(clip, [picture.expand(count, -1, -1, -1)], FPS, "png")
    assert write_animation([clip], tmp_path / "still", ending, FPS, count) == count
    with Image.open(tmp_path / "still") as still:
        assert (getattr(still, "n_frames", 1), still.size, still.format) == (1, (48, 32), FORMATS[ending])


def test_frames_are_exact_and_outside_the_face_they_are_the_picture(
    arguments: list[str], tmp_path: Path
) -> None:
    assert main([*arguments, "--output", str(tmp_path / "frames" / "%04d.png")]) == 0
    assert [path.name for path in sorted((tmp_path / "frames").iterdir())][::26] == ["0000.png", "0026.png"]
    frames, picture = read_frames(tmp_path / "frames"), np.asarray(Image.open(tmp_path / "p.png"))
    assert len(frames) == FRAMES and seconds_of(tmp_path / "frames.wav") == 0.9
    outside = np.ones(picture.shape[:2], dtype=bool)
    outside[20:80, 30:90] = False
    assert (frames[:, outside] == picture[outside]).all() and (frames[:, ~outside] != picture[~outside]).any()
    assert main([*arguments, "--output", str(tmp_path / "v.apng")]) == 0
    assert np.array_equal(read_animation(tmp_path / "v.apng")[0], frames), "both are lossless"


@pytest.mark.parametrize("name", ["frames/%03d.png", "v.gif", "v.mov"])
def test_a_stopped_one_is_whole_as_far_as_it_goes_and_goes_on_to_the_same(
    name: str,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stop_after_a_clip: Callable[[list[str]], None],
) -> None:
    if name.endswith(".mov"):
        arguments = [*arguments, "--codec", "prores"]
    arguments, made = [*arguments, "--output", str(tmp_path / name)], tmp_path / name.split("/")[0]

    def content() -> object:
        return [path.read_bytes() for path in (sorted(made.iterdir()) if made.is_dir() else [made])]

    assert main(arguments) == 0
    whole, heard = content(), sorted(path.name for path in tmp_path.iterdir())
    stop_after_a_clip(arguments)
    assert "what was finished is playable" in capsys.readouterr().out
    so_far = len(list(made.iterdir())) if made.is_dir() else 16
    assert so_far == 16 and content() != whole
    assert main(arguments) == 0
    assert "Going on after frame 16 of 27" in capsys.readouterr().err
    assert content() == whole and sorted(path.name for path in tmp_path.iterdir()) == heard


def test_prores_is_ten_bits_with_the_sound_as_it_is(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "--output", str(tmp_path / "v.mov"), "--codec", "prores"]) == 0
    found = read_video(tmp_path / "v.mov")
    assert (found.num_frames, found.size) == (FRAMES, (132, 100))
    with av.open(str(tmp_path / "v.mov")) as container:
        video, sound = container.streams.video[0].codec_context, container.streams.audio[0].codec_context
        assert (video.name, video.pix_fmt, sound.name) == ("prores", "yuv422p10le", "pcm_s16le")
        assert (sound.channels, container.streams.audio[0].duration) == (2, round(0.9 * 44_100))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            ["v.avi"],
            "expected an output ending in .mp4, .mov, .mkv, .gif, .webp, .apng, or frames/%05d.png",
        ),
        (["no/f/%05d.png"], "expected an existing folder but got none"),
        (["v.png"], "expected a folder and a numbered name but got"),
        (["%05d.png"], ""),
        (["f/%5d.png"], "expected a folder and a numbered name but got"),
        (["f/%05d-%d.png"], "expected a folder and a numbered name but got"),
        (["v.mp4", "--codec", "prores"], "expected a .mov for ProRes but got v.mp4"),
        (["v.gif", "--codec", "prores"], "expected no --codec with v.gif but got prores."),
        (["v.gif", "--fps", "60"], "expected at most 50 frames a second of a GIF but got 60. Use --fps 50."),
        (["a.gif"], "expected no such file yet but got one"),
        (
            ["a.gif", "--audio", "{folder}/a.wav"],
            "expected a file apart from the inputs and the other",
        ),
    ],
)
def test_what_cannot_be_written_is_told_first(
    extra: list[str], message: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sound(tmp_path / "a.wav", tone(0.2))
    before = sorted(tmp_path.iterdir())
    name, *options = [part.format(folder=tmp_path) for part in extra]
    if name == "%05d.png":  # into the folder of the inputs
        message = "expected a new folder, or one of nothing but such frames, but got another"
    assert main([*arguments, "--output", str(tmp_path / name), *options]) == 2
    err = capsys.readouterr().err
    assert message in err.splitlines()[-1] and err.count("Error: ") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_an_empty_file_in_the_sounds_place_is_nobodys(arguments: list[str], tmp_path: Path) -> None:
    """A disk that failed while the place was tried leaves one."""
    (tmp_path / "v.wav").touch()
    assert main([*arguments, "--output", str(tmp_path / "v.gif")]) == 0
    assert seconds_of(tmp_path / "v.wav") == 0.9


def test_a_folder_of_anything_else_stays_as_it_is_and_one_of_frames_is_replaced(
    arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "000123.png").write_bytes(b"an earlier and longer run's")
    (tmp_path / "frames.wav").write_bytes(b"its sound")
    arguments = [*arguments, "--output", str(tmp_path / "frames" / "%05d.png")]
    (tmp_path / "frames" / "holiday.png").write_bytes(b"mine")
    assert main(arguments) == 2
    (tmp_path / "frames" / "holiday.png").unlink()
    assert main(arguments) == 0
    assert len(read_frames(tmp_path / "frames")) == FRAMES and seconds_of(tmp_path / "frames.wav") == 0.9


def test_an_animation_that_would_not_fit_into_memory_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone.video.targets, "MOST_BYTES", 20 * 3 * 99 * 131)
    assert main([*arguments, "--output", str(tmp_path / "v.webp")]) == 2
    assert "of 131x99, all in memory at once, in a webp but got 1 s. Use --max-sec" in capsys.readouterr().err


def test_without_imageio_one_line_says_how_to_get_it(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio.v3", None)
    assert main([*arguments, "--output", str(tmp_path / "v.gif")]) == 2
    err = capsys.readouterr().err
    assert "expected the package imageio for v.gif but" in err and err.count("\n") == 1
    assert "Run: python -m pip install 'imageio>=2.31'" in err


def test_a_file_that_does_not_hold_what_was_written_is_not_put_in_place(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone.video.pictures, "_shown", lambda path: 60)
    assert main([*arguments, "--output", str(tmp_path / "v.gif")]) != 0
    assert "expected 900 ms of pictures but got 60, reading them again" in capsys.readouterr().err
    assert not (tmp_path / "v.gif").exists() and not (tmp_path / "v.wav").exists()
    monkeypatch.undo()
    assert main([*arguments, "--output", str(tmp_path / "v.gif")]) == 0
    assert "Going on after frame 27 of 27" in capsys.readouterr().err, "no clip was lost"


@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60])
def test_frames_are_shown_for_whole_units_that_add_up(fps: int) -> None:
    for unit in (1, 10):
        for count in (1, 7, 299, 300):
            times = shown_for(count, fps, unit)
            assert len(times) == count and all(time % unit == 0 and time > 0 for time in times)
            assert abs(sum(times) - 1000 * count / fps) <= unit / 2
