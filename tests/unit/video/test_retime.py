"""24, 25, 50 and 60 frames a second out of 30: exact in time at any length."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from memo_avatar.inputs import Crop
from memo_avatar.timing import FPS, SAMPLE_RATE, clip_spans, frame_count
from memo_avatar.video.delivery import Delivery
from memo_avatar.video.paste import Paster
from memo_avatar.video.retime import RATES, check_rate, delivered_count, delivered_frames, source_frame
from memo_avatar.video.writer import VideoWriter
from tests.helpers.media import read_video, tone, write_sound


@pytest.mark.parametrize("fps", RATES)
def test_every_delivered_frame_shows_what_is_on_at_its_middle(fps: int) -> None:
    for index in range(5 * fps):
        middle = Fraction(2 * index + 1, 2 * fps)
        shown = source_frame(index, fps)
        assert Fraction(shown, FPS) <= middle < Fraction(shown + 1, FPS)


def test_thirty_is_every_frame_once() -> None:
    assert delivered_frames(0, 100, 30) == list(range(100))


def test_patterns_of_the_other_rates() -> None:
    assert delivered_frames(0, 10, 24) == [0, 1, 3, 4, 5, 6, 8, 9]
    assert delivered_frames(0, 6, 25) == [0, 1, 3, 4, 5]
    assert delivered_frames(0, 3, 50) == [0, 0, 1, 2, 2]
    assert delivered_frames(0, 3, 60) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("parts", [1, 7, 16])
def test_clips_one_after_another_are_the_whole(fps: int, parts: int) -> None:
    whole = delivered_frames(0, 131, fps)
    starts = range(0, 131, parts)
    pieces = [index for at in starts for index in delivered_frames(at, min(at + parts, 131), fps)]
    assert pieces == whole
    assert len(whole) == delivered_count(131, fps)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize(
    "samples", [1_600, 16_000, 123_457, 10 * 60 * SAMPLE_RATE, 10 * 60 * SAMPLE_RATE + 1]
)
def test_the_video_is_as_long_as_the_voice_up_to_ten_minutes(fps: int, samples: int) -> None:
    """Within one delivered frame, never shorter, and every frame within half a generated one of its time."""
    generated, total = frame_count(samples), frame_count(samples, fps)
    spans = clip_spans(generated, 16)
    shown: list[int] = []
    for span in spans:
        stop = span.start + span.keep
        shown += delivered_frames(span.start, stop, fps, total if stop == generated else None)
    assert len(shown) == total
    assert 0 <= Fraction(total, fps) - Fraction(samples, SAMPLE_RATE) < Fraction(1, fps)
    assert shown == sorted(shown) and shown[-1] <= generated - 1
    assert all(abs(shown[k] - source_frame(k, fps)) <= 1 for k in range(total))
    assert shown[: total - fps] == [source_frame(k, fps) for k in range(total - fps)]


@pytest.mark.parametrize("fps", RATES)
def test_a_file_keeps_picture_and_sound_together(tmp_path: Path, fps: int) -> None:
    sound = write_sound(tmp_path / "a.wav", tone(0.57, 44_100, 2), 44_100)
    generated, total = frame_count(9_120), frame_count(9_120, fps)  # 0.57 s at 16 kHz
    with VideoWriter(tmp_path / "v.mp4", width=32, height=32, fps=fps, audio=sound) as writer:
        for index in delivered_frames(0, generated, fps, total):
            writer.write(torch.full((1, 3, 32, 32), index / generated))
    video = read_video(tmp_path / "v.mp4")
    assert video.num_frames == total
    assert video.video_seconds == pytest.approx(total / fps)
    assert video.sound_seconds == pytest.approx(video.video_seconds, abs=0.03)  # AAC's blocks of 1,024
    assert abs(video.video_seconds - 0.57) < 1 / fps


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 24, 25, 30, 50, 60 frames per second but got 29"):
        check_rate(29)


@pytest.mark.parametrize("fps", RATES)
def test_clips_are_pasted_and_delivered_as_the_whole_is(fps: int) -> None:
    """40 frames in clips of 16: the same pictures, each pasted once."""
    picture, crop = torch.rand(3, 40, 60), Crop(10, 4, 32, 32, 60, 40)
    frames = torch.rand(40, 3, 16, 16)
    samples = 40 * SAMPLE_RATE // FPS
    delivery = Delivery.of_voice(samples, fps, Paster(picture, crop))
    parts = [part for start in (0, 16, 32) for part in delivery.frames(frames[start : start + 16], start)]
    alone = Paster(picture, crop)
    pasted = [alone.paste(frame) for frame in frames]
    expected = [pasted[index] for index in delivered_frames(0, 40, fps, delivery.total)]
    assert len(parts) == len(expected) == frame_count(samples, fps)
    assert all(torch.equal(part[0], whole) for part, whole in zip(parts, expected, strict=True))
    assert delivery.size(16, 16) == (60, 40)


def test_a_resampled_voice_may_be_a_sample_longer_than_its_frames() -> None:
    """Frames are counted at 16 kHz; the sound's own rate may round the other way, and nothing is lost."""
    for fps in RATES:
        delivery = Delivery.of_voice(44_101, fps, sample_rate=44_100, generated=30)
        assert len(delivery.indices(16, 14)) + len(delivery.indices(0, 16)) == delivery.total
        assert fps <= delivery.total <= fps + 1
