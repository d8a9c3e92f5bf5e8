"""Several who speak in one picture, from the command to the file: one clock, one sound, one video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import standalone.face_inputs
import standalone.video.making
from memo_avatar.portrait.faces import Identity
from memo_avatar.voice.sound_files import decode_audio
from standalone.arguments import Speaker, parse_speaker
from standalone.command import main
from tests.helpers.media import read_pictures, read_video, tone, write_sound

LEFT, RIGHT = "20,30,60,70", "140,30,180,70"
RATE = 48_000


@pytest.fixture
def arguments(tmp_path: Path, goldens: Path, wav2vec2: Path) -> list[str]:
    """Two faces on noise, no voice yet."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "p.png")
    write_sound(tmp_path / "a.wav", tone(0.4, RATE), RATE)
    write_sound(tmp_path / "b.wav", tone(0.5, RATE), RATE)
    options = {
        "--image": tmp_path / "p.png",
        "--output": tmp_path / "v.mp4",
        "--checkpoint": goldens / "micro" / "checkpoint",
        "--wav2vec2": wav2vec2,
        "--steps": 1,
        "--size": 64,
        "--face-crop": 0.2,
        "--device": "cpu",
    }
    return [str(part) for pair in options.items() for part in pair]


def speakers(folder: Path, left: str = LEFT, right: str = f"{RIGHT}@0.4") -> list[str]:
    return ["--speaker", f"{left}={folder / 'a.wav'}", "--speaker", f"{right}={folder / 'b.wav'}"]


@pytest.mark.parametrize(
    ("text", "speaker"),
    [
        ("0=a.wav", Speaker(0, Path("a.wav"))),
        ("1@4.5=a=b.wav", Speaker(1, Path("a=b.wav"), 4.5)),
        ("400,300,700,640=x/a@b.wav", Speaker((400, 300, 700, 640), Path("x/a@b.wav"))),
        ("400,300,700,640@2=a.wav", Speaker((400, 300, 700, 640), Path("a.wav"), 2.0)),
    ],
)
def test_a_speaker_is_a_face_and_a_voice_from_a_second_on(text: str, speaker: Speaker) -> None:
    assert parse_speaker(text) == speaker


def test_the_video_ends_with_the_last_voice_and_has_both(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, *speakers(tmp_path)]) == 0
    video = read_video(tmp_path / "v.mp4")
    assert (video.num_frames, video.size) == (27, (200, 100))
    assert video.sound_seconds == pytest.approx(0.9, abs=1 / 30)
    (heard,) = np.concatenate(list(decode_audio(tmp_path / "v.mp4", RATE)), axis=1)
    first, second = heard[: int(0.4 * RATE)], heard[int(0.45 * RATE) : int(0.85 * RATE)]
    assert min(abs(first).max(), abs(second).max()) > 0.1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav", "p.png", "v.mp4"]


def test_who_speaks_at_once_is_heard_at_once(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, *speakers(tmp_path, right=RIGHT)]) == 0
    assert read_video(tmp_path / "v.mp4").num_frames == 15  # of the longer voice


def test_max_seconds_counts_on_the_clock_of_all(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, *speakers(tmp_path), "--max-seconds", "0.6"]) == 0
    assert read_video(tmp_path / "v.mp4").num_frames == 18


def test_a_stopped_video_goes_on_and_is_the_same_file(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stop_after_a_clip: Callable[[list[str]], None],
) -> None:
    arguments = [*arguments, *speakers(tmp_path)]
    assert main(arguments) == 0
    whole = (tmp_path / "v.mp4").read_bytes()
    stop_after_a_clip(arguments)
    assert read_video(tmp_path / "v.mp4").num_frames == 16
    assert main(arguments) == 0
    assert "Going on after frame 16 of 27" in capsys.readouterr().err
    assert (tmp_path / "v.mp4").read_bytes() == whole


def test_the_cache_goes_on_for_each_of_them(
    arguments: list[str], tmp_path: Path, stop_after_a_clip: Callable[[list[str]], None]
) -> None:
    arguments = [*arguments, *speakers(tmp_path), "--steps", "4", "--target-speedup", "2"]
    assert main(arguments) == 0
    whole = (tmp_path / "v.mp4").read_bytes()
    stop_after_a_clip(arguments)
    assert main(arguments) == 0
    assert (tmp_path / "v.mp4").read_bytes() == whole


@pytest.mark.parametrize("change", [{"right": f"{RIGHT}@0.3"}, {"left": "22,30,60,70"}])
def test_another_place_or_start_is_another_video(
    change: dict[str, str],
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stop_after_a_clip: Callable[[list[str]], None],
) -> None:
    stop_after_a_clip([*arguments, *speakers(tmp_path)])
    assert main([*arguments, *speakers(tmp_path, **change)]) == 0
    assert "Going on" not in capsys.readouterr().err


def test_other_words_under_the_same_name_are_another_video(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stop_after_a_clip: Callable[[list[str]], None],
) -> None:
    stop_after_a_clip([*arguments, *speakers(tmp_path)])
    write_sound(tmp_path / "b.wav", tone(0.5, RATE) * 0.5, RATE)
    assert main([*arguments, *speakers(tmp_path)]) == 0
    assert "Going on" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "one of the arguments --audio --speaker is required"),
        (
            ["--speaker", "0=a.wav", "--audio", "a.wav"],
            "argument --audio: not allowed with argument --speaker",
        ),
        (
            ["--speaker", "a.wav"],
            "expected FACE=AUDIO but got a.wav. Write 0=speech.wav, or 400,300,700,640=",
        ),
        (["--speaker", "0="], "expected FACE=AUDIO but got 0=."),
        (
            ["--speaker", "me=a.wav"],
            "expected a whole number from 0 to 999 but got me. 0 is the largest face.",
        ),
        (["--speaker", "1,2,3=a.wav"], "expected four whole numbers but got '1,2,3' (face box)."),
        (["--speaker", "0@soon=a.wav"], "expected a start of 0 or more seconds but got soon."),
        (
            ["--speaker", "0=a.wav", "--face-index", "1"],
            "expected no --face-index with --speaker but got one",
        ),
        (["--speaker", "0=a.wav", "--vocals", "v.wav"], "expected no --vocals with --speaker but got one"),
        (["--speaker", "0=a.wav", "--face", "none"], "expected no --face none with --speaker but got one"),
        (["--speaker", f"{LEFT}=no.wav"], "expected a sound file but got no such file (no.wav)"),
        (["--speaker", "0=a.wav"], "expected boxes of the faces but got number 0 (--speaker) and nothing to"),
        (["--speaker", "300,300,400,400=a.wav"], "inside the 200x100 picture but got 300,300,400,400"),
        (
            ["--speaker", f"{LEFT}={{a}}", "--speaker", "30,30,70,70={a}"],
            "expected faces apart but got number 1 inside what is cut out around number 2 (--speaker). "
            "Give each a face of its own.",
        ),
        (
            ["--speaker", f"{LEFT}={{a}}", "--speaker", "70,30,110,70={a}", "--face-crop", "1"],
            "inside what is cut out around number 2 (--speaker). Use a smaller --face-crop, such as 0.2.",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    extra: list[str], message: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = [part.format(a=tmp_path / "a.wav") for part in extra]
    assert main([*arguments, *extra]) == 2
    err = capsys.readouterr().err
    error = err[err.index("Error: ") :]
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "v.mp4").exists()


def test_one_who_speaks_through_speaker_is_the_same_as_pasted_back(
    arguments: list[str], tmp_path: Path
) -> None:
    assert main([*arguments, "--speaker", f"{LEFT}={tmp_path / 'a.wav'}"]) == 0
    by_speaker = read_pictures(tmp_path / "v.mp4")
    alone = ["--audio", str(tmp_path / "a.wav"), "--face-box", LEFT, "--paste-back"]
    assert main([*arguments, *alone]) == 0
    assert np.array_equal(read_pictures(tmp_path / "v.mp4"), by_speaker)


def test_a_number_is_the_face_that_was_found_there(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = {0: (140.0, 30.0, 180.0, 70.0), 1: (20.0, 30.0, 60.0, 70.0)}

    def found(*_: object, index: int, mode: str, width: int) -> Identity:
        assert mode == "require", "another place in the picture is not who was meant"
        return Identity(torch.zeros(1, width), boxes[index])

    assert main([*arguments, *speakers(tmp_path)]) == 0
    by_box = read_pictures(tmp_path / "v.mp4")
    monkeypatch.setattr(standalone.face_inputs, "identify", found)
    assert main([*arguments, *speakers(tmp_path, left="1", right="0@0.4")]) == 0
    assert np.array_equal(read_pictures(tmp_path / "v.mp4"), by_box)
