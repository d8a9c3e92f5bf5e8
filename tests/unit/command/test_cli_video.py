"""The command from files to a playable video, whole and interrupted, on the micro checkpoint."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import standalone.video.making
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import Clip
from standalone.command import main
from tests.helpers.media import read_pictures, read_video, tone, write_sound


@pytest.fixture
def arguments(tmp_path: Path, goldens: Path, wav2vec2: Path) -> list[str]:
    """0.9 s of 44.1 kHz stereo: 27 frames, two clips."""
    Image.new("RGBA", (90, 70), (200, 150, 120, 255)).save(tmp_path / "p.png")
    options = {
        "--image": tmp_path / "p.png",
        "--audio": write_sound(tmp_path / "a.flac", tone(0.9, 44_100, 2), 44_100, "flac"),
        "--output": tmp_path / "v.mp4",
        "--checkpoint": goldens / "micro" / "checkpoint",
        "--wav2vec2": wav2vec2,
        "--steps": 2,
        "--size": 64,
        "--device": "cpu",
    }
    return [str(part) for pair in options.items() for part in pair]


def interrupting(after: int, error: BaseException) -> object:
    """A clip loop in which something happens once `after` clips are done."""

    def clips(*args: object, **kwargs: object) -> Iterator[Clip]:
        for clip in generate_clips(*args, **kwargs):
            yield clip
            if clip.index + 1 == after:
                raise error

    def none(*_args: object, **_kwargs: object) -> Iterator[Clip]:
        raise error
        yield

    return clips if after else none


def test_a_whole_video(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    video = read_video(tmp_path / "v.mp4")
    assert (video.num_frames, video.size, video.channels) == (27, (64, 64), 2)
    assert video.sound_seconds == pytest.approx(0.9, abs=1 / 30)
    out, err = capsys.readouterr()
    assert f"Video: {tmp_path / 'v.mp4'} (27 frames of 64x64, 0.90 s)" in out
    assert " s in all, " in out and " s per frame" in out
    assert "Warning: For a closer likeness, put scrfd_10g_bnkps.onnx and glintr100.onnx" in err
    assert "clip 2 of 2" in err and "4/4" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "p.png", "v.mp4"]


def test_other_shapes_and_options(arguments: list[str], tmp_path: Path) -> None:
    save_file({"face": torch.ones(512)}, tmp_path / "face.safetensors")
    extra = [
        "--size",
        "96x64",
        "--fit",
        "letterbox",
        "--max-seconds",
        "0.3",
        "--emotion",
        "happy",
        "--steps",
        "1",
    ]
    extra += ["--guidance-scale", "1", "--face-embedding", str(tmp_path / "face.safetensors")]
    assert main([*arguments, *extra]) == 0
    video = read_video(tmp_path / "v.mp4")
    assert (video.num_frames, video.size) == (9, (96, 64))
    assert video.sound_seconds == pytest.approx(0.3, abs=1 / 30)


def test_silence_is_said_and_rendered(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = write_sound(tmp_path / "quiet.wav", tone(0.3) * 0)
    assert main([*arguments, "--audio", str(quiet), "--steps", "1"]) == 0
    assert (
        "Warning: Check the recording: all of it is silence, and the mouth will hardly move."
        in capsys.readouterr().err
    )
    assert read_video(tmp_path / "v.mp4").num_frames == 9


def test_ctrl_c_keeps_the_finished_clips(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone.video.making, "generate_clips", interrupting(1, KeyboardInterrupt()))
    assert main([*arguments, "--steps", "1"]) == 130
    video = read_video(tmp_path / "v.mp4")
    assert video.num_frames == 16
    assert video.sound_seconds == pytest.approx(16 / 30, abs=1 / 30)
    assert "Stopped after 16 of 27 frames; what was finished is playable." in capsys.readouterr().out


def test_a_stopped_video_goes_on_and_is_the_same_file(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stop_after_a_clip: Callable[[list[str]], None],
) -> None:
    assert main(arguments) == 0
    whole = (tmp_path / "v.mp4").read_bytes()
    stop_after_a_clip(arguments)
    assert "The same command goes on from there." in capsys.readouterr().out
    assert main(arguments) == 0
    assert "Going on after frame 16 of 27" in capsys.readouterr().err
    assert (tmp_path / "v.mp4").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "p.png", "v.mp4"]


def test_guarded_the_first_clip_is_the_same_and_what_follows_is_not(
    arguments: list[str], tmp_path: Path
) -> None:
    frames = []
    for given in ([], ["--guard-drift"]):
        assert main([*arguments, *given]) == 0, "another video: the finished one is not taken for it"
        frames.append(read_pictures(tmp_path / "v.mp4"))
    same = [bool((plain == held).all()) for plain, held in zip(*frames, strict=True)]
    assert same == [True] * 16 + [False] * 11


@pytest.mark.parametrize("change", [["--restart"], ["--seed", "7"], ["--guard-drift"], ["--past", "latents"]])
def test_a_stopped_video_is_begun_anew_when_told_or_with_other_settings(
    change: list[str],
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stop_after_a_clip: Callable[[list[str]], None],
) -> None:
    stop_after_a_clip([*arguments, "--steps", "1"])
    assert main([*arguments, "--steps", "1", *change]) == 0
    assert "Going on" not in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "p.png", "v.mp4"]


def test_ctrl_c_before_the_first_clip(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone.video.making, "generate_clips", interrupting(0, KeyboardInterrupt()))
    assert main([*arguments, "--steps", "1"]) == 130
    assert "no video was written" in capsys.readouterr().out
    assert not (tmp_path / "v.mp4").exists()


def test_running_out_of_memory_keeps_the_finished_clips(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError("tried to allocate 20 GiB")
    monkeypatch.setattr(standalone.video.making, "generate_clips", interrupting(1, error))
    assert main([*arguments, "--steps", "1"]) == 1
    err = capsys.readouterr().err
    assert "What was finished before the error, 16 frames, is kept" in err
    assert "Error: expected enough memory but got: tried to allocate 20 GiB." in err
    assert read_video(tmp_path / "v.mp4").num_frames == 16


def test_the_step_cache_and_its_report(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    steps = ["--steps", "4"]
    calibration = tmp_path / "calibration.json"
    assert main([*arguments, *steps, "--calibrate", str(calibration)]) == 0
    assert calibration.is_file()
    cached = ["--rel_l1_thresh", "0.25", "--calibration", str(calibration), "--cache-report", str(report)]
    assert main([*arguments, *steps, *cached]) == 0
    document = json.loads(report.read_text())
    assert document["totals"]["evaluations"] == 8
    assert document["totals"]["computed"] < 8
    assert [clip["clip_index"] for clip in document["drift"]] == [0, 1]
    said = capsys.readouterr().out
    assert f"Cache report: {report}\nDrift of the face, the last clip against the first: sharpness " in said
    assert read_video(tmp_path / "v.mp4").num_frames == 27


def test_convert_then_render_from_one_file(
    arguments: list[str], tmp_path: Path, goldens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = tmp_path / "memo.safetensors"
    checkpoint = goldens / "micro" / "checkpoint"
    assert main(["convert", str(checkpoint), str(single), "--dtype", "float16"]) == 0
    assert f"Checkpoint: {single} (" in capsys.readouterr().out
    parts = [
        "--checkpoint",
        str(single),
        "--vae",
        str(checkpoint / "vae"),
        "--max-seconds",
        "0.3",
        "--steps",
        "1",
    ]
    assert main([*arguments, *parts]) == 0
    assert read_video(tmp_path / "v.mp4").num_frames == 9
