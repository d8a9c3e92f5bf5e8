"""The video is as long as its frames, sound and all, and playable however the writer was left."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from memo_avatar.files import disk
from memo_avatar.files.disk import DiskError, make_part
from memo_avatar.video import writer as writer_module
from memo_avatar.video.finished import count_pictures
from memo_avatar.video.streams import expected_bytes
from memo_avatar.video.writer import VideoWriter, check_output
from memo_avatar.voice.sound import MediaError
from tests.helpers.media import read_pictures, read_sound, read_video, tone, write_sound

FRAME = 1 / 30
ROOT = Path(__file__).resolve().parents[3]


def noise(frames: int, height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("frames", [1, 17, 72])
def test_sound_and_picture_agree_within_a_frame(tmp_path: Path, frames: int, rate: int) -> None:
    sound = write_sound(tmp_path / "a.wav", tone(1.5, rate, 2), rate)  # longer and shorter than the frames
    with VideoWriter(tmp_path / "v.mp4", width=64, height=48, audio=sound) as writer:
        for start in range(0, frames, 16):
            writer.write(noise(min(16, frames - start)))
    video = read_video(tmp_path / "v.mp4")
    assert video.num_frames == frames
    assert video.size == (64, 48)
    assert video.channels == 2
    assert video.sound_seconds == pytest.approx(video.video_seconds, abs=FRAME)


def test_clip_after_clip_stays_in_step(tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.wav", tone(20.0, 16_000), 16_000)
    black = torch.zeros(100, 3, 16, 16)
    with VideoWriter(tmp_path / "v.mp4", width=16, height=16, audio=sound) as writer:
        for _ in range(5):
            writer.write(black)
    video = read_video(tmp_path / "v.mp4")
    assert video.num_frames == 500
    assert video.sound_seconds == pytest.approx(500 / 30, abs=FRAME)


def test_sound_starts_with_the_picture(tmp_path: Path) -> None:
    click = np.zeros((1, 48_000), np.float32)
    click[0, 24_000:24_480] = 0.8  # a click at 0.5 s
    with VideoWriter(
        tmp_path / "v.mp4", width=64, height=48, audio=write_sound(tmp_path / "a.wav", click, 48_000)
    ) as writer:
        writer.write(noise(30))
    samples, rate = read_sound(tmp_path / "v.mp4")
    assert np.argmax(np.abs(samples[0]) > 0.3) / rate == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("size", [(64, 48), (63, 48), (64, 47), (33, 35)])
def test_odd_sizes_and_colours(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    colour = torch.tensor([0.8, 0.3, 0.2]).view(1, 3, 1, 1)
    with VideoWriter(tmp_path / "v.mp4", width=width, height=height) as writer:
        writer.write(colour.expand(4, 3, height, width))
    pictures = read_pictures(tmp_path / "v.mp4")
    assert pictures.shape == (4, height + height % 2, width + width % 2, 3)
    assert np.abs(pictures.reshape(-1, 3).mean(0) / 255 - [0.8, 0.3, 0.2]).max() < 0.02


def test_without_sound_and_other_containers(tmp_path: Path) -> None:
    for name in ("v.mp4", "v.mov", "v.mkv"):
        with VideoWriter(tmp_path / name, width=64, height=48) as writer:
            writer.write(noise(3))
        assert read_video(tmp_path / name).num_frames == 3


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_keeps_the_finished_clips(tmp_path: Path, stop: type[BaseException]) -> None:
    sound = write_sound(tmp_path / "a.wav", tone(5.0))
    with pytest.raises(stop), VideoWriter(tmp_path / "v.mp4", width=64, height=48, audio=sound) as writer:
        writer.write(noise(16))
        writer.write(noise(16))
        raise stop
    video = read_video(tmp_path / "v.mp4")
    assert video.num_frames == 32
    assert video.sound_seconds == pytest.approx(32 / 30, abs=FRAME)
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "v.mp4"]


def test_an_interrupt_before_the_first_clip_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"yesterday's video")
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "v.mp4", width=64, height=48):
        raise KeyboardInterrupt
    assert (tmp_path / "v.mp4").read_bytes() == b"yesterday's video"
    assert os.listdir(tmp_path) == ["v.mp4"]


def test_the_file_appears_only_when_whole(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", width=64, height=48) as writer:
        writer.write(noise(16))
        assert not (tmp_path / "v.mp4").exists()
    assert os.listdir(tmp_path) == ["v.mp4"]


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(
            ValueError, match=r"expected frames of shape \(F, 3, 48, 64\) but got \(2, 3, 64, 48\)"
        ),
        VideoWriter(tmp_path / "v.mp4", width=64, height=48) as writer,
    ):
        writer.write(noise(2, height=64, width=48))
    assert os.listdir(tmp_path) == []


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    portrait = tmp_path / "a.mp4"
    portrait.touch()
    cases = {
        tmp_path / "v.avi": r"expected an output ending in \.mp4, \.mov, \.mkv but got v\.avi",
        tmp_path / "none" / "v.mp4": "expected an existing folder but got none",
        tmp_path / ("n" * 252 + ".mp4"): "expected a file name but got one of 256",
        portrait: "expected a file apart from the inputs and the other outputs but got one of them",
        Path("/proc/v.mp4"): "expected a file that can be written but got",
    }
    (tmp_path / "folder.mp4").mkdir()
    cases[tmp_path / "folder.mp4"] = "expected a file but got a folder"
    for path, message in cases.items():
        with pytest.raises((MediaError, DiskError), match=message):
            check_output(path, [portrait])
    check_output(tmp_path / "v.mp4", [portrait])
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "folder.mp4"]


def test_too_little_space_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    check_output(tmp_path / "v.mp4", [], nbytes=expected_bytes(100, 512, 512))
    with pytest.raises(DiskError, match="expected 480 MB of free space but got 20 MB"):
        check_output(tmp_path / "v.mp4", [], nbytes=expected_bytes(18_000, 512, 512))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from memo_avatar.voice.sound import MediaError
from memo_avatar.video.writer import VideoWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    with VideoWriter(Path(sys.argv[1]), width=64, height=48, audio=Path(sys.argv[2])) as writer:
        for seed in range(60):
            writer.write(torch.rand(16, 3, 48, 64, generator=torch.Generator().manual_seed(seed)))
except MediaError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit on a file's size here")
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_disk_that_fills_up_keeps_what_reached_it(tmp_path: Path, name: str) -> None:
    sound = write_sound(tmp_path / "a.wav", tone(5.0))
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / name), str(sound)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "expected room for the video but got File too large after" in run.stdout
    assert f"What reached the disk is kept as {name}, and plays." in run.stdout
    assert sorted(os.listdir(tmp_path)) == ["a.wav", name]
    played = 0
    with av.open(str(tmp_path / name)) as container, suppress(av.error.InvalidDataError):  # a cut end
        for _ in container.decode(video=0):
            played += 1
    assert played > 16


def test_what_was_written_plays_at_any_moment(tmp_path: Path) -> None:
    """A power cut leaves the file under its temporary name."""
    with VideoWriter(tmp_path / "v.mp4", width=64, height=48) as writer:
        for _ in range(10):
            writer.write(noise(16))
        (partial,) = tmp_path.iterdir()
        assert count_pictures(partial) > 60
    assert os.listdir(tmp_path) == ["v.mp4"]


def test_a_stop_while_the_file_is_rewritten_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    writer = VideoWriter(tmp_path / "v.mp4", width=64, height=48)
    writer.write(noise(20))
    monkeypatch.setattr(writer_module, "add_copy", stopped)
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    assert os.listdir(tmp_path) == ["v.mp4"]
    assert read_video(tmp_path / "v.mp4").num_frames == 20


def test_the_finished_file_is_an_ordinary_one_with_its_index_first(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", width=64, height=48) as writer:
        writer.write(noise(60))
    data = (tmp_path / "v.mp4").read_bytes()
    assert b"moof" not in data
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_full_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    part = tmp_path / "part"
    part.symlink_to("/dev/full")
    monkeypatch.setattr(writer_module, "make_part", lambda _folder: part)
    writer = VideoWriter(tmp_path / "v.mp4", width=64, height=48)
    with pytest.raises(MediaError, match="expected room for the video but got No space left on device after"):
        for _ in range(40):
            writer.write(noise(16))
        writer.close()
    assert not (tmp_path / "v.mp4").exists()


@pytest.mark.parametrize(
    "name", ["12:30.mp4", "a:b.mov", "说话.mp4", "n" * 251 + ".mp4", "-i.mp4", "%05d.mp4"]
)
def test_a_name_is_a_name_and_no_address_pattern_or_option(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sound = write_sound(tmp_path / "12:31.wav", tone(0.5))
    check_output(Path(name), [sound])
    with VideoWriter(Path(name), width=64, height=48, audio=sound) as writer:
        writer.write(noise(5))
    assert sorted(os.listdir()) == sorted(["12:31.wav", name])
    assert read_video(tmp_path / name).num_frames == 5


@pytest.fixture
def old_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is given the name v.mp4, as where a player has the old one open on Windows."""
    real = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "v.mp4":
            raise PermissionError(13, "Permission denied", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.usefixtures("old_is_held")
@pytest.mark.parametrize("stop", [None, RuntimeError])
def test_a_video_that_cannot_replace_the_old_one_is_kept_beside_it(
    tmp_path: Path, stop: type[Exception] | None
) -> None:
    (tmp_path / "v.mp4").write_bytes(b"yesterday's video")
    sound = write_sound(tmp_path / "a.wav", tone(1.0))
    writer = VideoWriter(tmp_path / "v.mp4", width=64, height=48, audio=sound)
    with pytest.raises(DiskError, match=r"kept as v \(1\)\.mp4"), writer:
        writer.write(noise(9))
        if stop is not None:
            raise stop
    assert (tmp_path / "v.mp4").read_bytes() == b"yesterday's video"
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "v (1).mp4", "v.mp4"]
    video = read_video(tmp_path / "v (1).mp4")
    assert video.num_frames == 9 and video.sound_seconds == pytest.approx(0.3, abs=FRAME)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_whatever_fails_at_the_last_move_the_frames_are_there(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    writer = VideoWriter(tmp_path / "v.mp4", width=64, height=48)
    writer.write(noise(9))
    for name in ("link", "replace") if failing == "replace" else (failing,):
        monkeypatch.setattr(disk.os, name, fail)
    with pytest.raises((MediaError, DiskError), match=r"kept as \.?\w+") as caught:
        writer.close()
    (kept,) = tmp_path.iterdir()
    assert kept.name in str(caught.value)
    assert count_pictures(kept) == 9


def test_a_file_that_does_not_read_back_is_not_called_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PyAV 14.2 copied packets: no picture could be decoded, and nobody looked."""

    def half(self: VideoWriter) -> Path:
        part = make_part(tmp_path)
        whole = self._part.read_bytes()
        part.write_bytes(whole[: len(whole) // 2])
        return part

    monkeypatch.setattr(VideoWriter, "_index_first", half)
    writer = VideoWriter(tmp_path / "v.mp4", width=64, height=48)
    writer.write(noise(9))
    with pytest.raises(MediaError, match=r"expected a video of 9 pictures but got .*, reading it again"):
        writer.close()
    assert read_video(tmp_path / "v.mp4").num_frames == 9, "what was written at first"
