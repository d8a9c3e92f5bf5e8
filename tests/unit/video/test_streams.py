"""Whatever writes a video, the file is the same: streams, settings, order, index; and it is read back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from memo_avatar.video import streams
from memo_avatar.video.finished import check_finished, count_pictures
from memo_avatar.video.segments import join_segments, write_segment, write_video
from memo_avatar.video.streams import PictureStream, Sound, new_video, to_pixels
from memo_avatar.video.writer import VideoWriter
from memo_avatar.voice.sound import MediaError
from memo_avatar.voice.sound_files import decode_audio
from tests.helpers.media import read_pictures, read_sound, read_video, tone, write_sound

CLIP, CLIPS = 16, 3


def frames(count: int, height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count))


def written_by_the_command(path: Path, sound: Path) -> Path:
    with VideoWriter(path, width=64, height=48, audio=sound) as writer:
        for _ in range(CLIPS):
            writer.write(frames(CLIP))
    return path


def waveform_of(sound: Path) -> tuple[torch.Tensor, int]:
    """As the host's Load Audio gives it."""
    with av.open(str(sound)) as container:
        rate = container.streams.audio[0].rate
    return torch.from_numpy(np.concatenate(list(decode_audio(sound, rate)), axis=1)), rate


def joined_by_the_node(path: Path, sound: Path) -> Path:
    segments = [path.with_suffix(f".{index}.mp4") for index in range(CLIPS)]
    for segment in segments:
        write_segment(segment, [frames(CLIP)])
    join_segments(segments, path, Sound.of_waveform(*waveform_of(sound)))
    return path


def written_after_a_cancel(path: Path, sound: Path) -> Path:
    write_video(path, torch.cat([frames(CLIP)] * CLIPS), Sound.of_waveform(*waveform_of(sound)))
    return path


WAYS = (written_by_the_command, joined_by_the_node, written_after_a_cancel)


def facts(path: Path) -> dict[str, Any]:
    """What an editor, a player or a web page would ask of a file."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        picture, sound = container.streams  # in this order
        context = picture.codec_context
        next(container.decode(video=0))
        return {
            "picture": (
                context.name,
                context.profile,
                context.pix_fmt,
                picture.average_rate,
                context.has_b_frames,
            ),
            "colours": (context.colorspace, context.color_primaries, context.color_trc, context.color_range),
            "sound": (sound.codec_context.name, sound.rate, sound.layout.name),
            "index first": data.index(b"moov") < data.index(b"mdat"),
            "tracks": (picture.type, sound.type),
            "starts": (picture.start_time, sound.start_time),
        }


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.dts is not None]


@pytest.mark.parametrize(("channels", "rate"), [(1, 16_000), (1, 44_100), (2, 48_000)])
def test_all_ways_to_write_a_video_give_the_same_streams(tmp_path: Path, channels: int, rate: int) -> None:
    sound = write_sound(tmp_path / "a.wav", tone(1.3, rate, channels), rate)
    paths = [way(tmp_path / f"{way.__name__}.mp4", sound) for way in WAYS]
    found = [facts(path) for path in paths]
    assert found[0] == found[1] == found[2]
    assert found[0]["tracks"] == ("video", "audio")
    assert found[0]["index first"]
    assert found[0]["picture"][-1] == 0, "no picture refers to a later one"
    packets = [sound_packets(path) for path in paths]
    assert packets[1] == packets[2]
    if rate in (44_100, 48_000):
        assert packets[0] == packets[1], "one encoder with one bit rate"
    assert [read_video(path).num_frames for path in paths] == [CLIP * CLIPS] * 3


def test_sound_has_the_same_bit_rate_wherever_it_comes_from(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 10 * 48_000)).astype(np.float32)
    sound = write_sound(tmp_path / "a.wav", noise, 48_000)
    for way in (joined_by_the_node, written_by_the_command):
        path = way(tmp_path / f"{way.__name__}.mp4", sound)
        seconds = read_video(path).sound_seconds
        assert seconds is not None
        size = sum(map(len, sound_packets(path)))
        assert 8 * size / seconds == pytest.approx(192_000, rel=0.1)


def test_sound_ends_with_the_pictures_to_the_sample(tmp_path: Path) -> None:
    """A recording that ends early is filled with silence, one that is longer is cut."""
    for seconds in (0.2, 5.0):
        sound = Sound.of_waveform(torch.from_numpy(tone(seconds, 48_000, 2)), 48_000)
        write_video(tmp_path / "v.mp4", frames(30), sound)
        samples, rate = read_sound(tmp_path / "v.mp4")
        assert 0 <= samples.shape[1] - rate < 1024, "AAC comes in blocks"
        tail = np.abs(samples[:, int(0.25 * rate) : rate]).max()
        assert (tail < 1e-3) == (seconds < 0.25)


def test_a_waveform_of_any_rate_keeps_its_length_and_pitch() -> None:
    waveform = torch.from_numpy(tone(2.5, 16_000))
    sound = Sound.of_waveform(waveform, 16_000)
    samples = sound.read(120_000)
    assert sound.rate == 48_000 and samples.shape == (1, 120_000)
    peak = np.argmax(np.abs(np.fft.rfft(samples[0]))) / 2.5
    assert peak == pytest.approx(440, abs=1)
    assert np.abs(sound.read(48_000)).max() < 1e-6, "silence after the end"


@pytest.mark.parametrize("codec", ["h264", "prores", "png"])
def test_a_codec_keeps_the_colours_and_gives_the_same_bytes_again(tmp_path: Path, codec: str) -> None:
    colours = torch.tensor([[200, 40, 60], [40, 200, 60], [240, 230, 20]]) / 255
    flat = colours[:, :, None, None].expand(-1, -1, 50, 66)
    noise = torch.rand(2, 3, 50, 66, generator=torch.Generator().manual_seed(0))
    for name in ("a", "b"):
        write_segment(tmp_path / name, [flat, noise], 30, codec)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    shown = read_pictures(tmp_path / "a")[:3, 25, 33]
    assert abs(shown - 255 * colours.numpy()).max() <= (0 if codec == "png" else 3.5)


@contextmanager
def on_one_core() -> Iterator[None]:
    """As on a machine that has no other, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def test_bytes_depend_on_no_machine(tmp_path: Path) -> None:
    """x264's number of threads would be the machine's, and its macroblock tree gives other numbers by the
    processor and by where its memory lies. It writes its settings into the first packet.
    """
    pictures = [frames(8, 512, 512)]
    write_segment(tmp_path / "all.mp4", pictures, 30)
    with on_one_core():
        write_segment(tmp_path / "one.mp4", pictures, 30)
    found = (tmp_path / "all.mp4").read_bytes()
    assert (tmp_path / "one.mp4").read_bytes() == found
    settings = found.partition(b"options: ")[2].split(b"\0")[0].decode(errors="replace").split()
    assert {"mbtree=0", f"threads={streams.THREADS}"} <= set(settings)


def test_pixels_are_whole_numbers_with_even_sides() -> None:
    pixels = to_pixels(torch.tensor([0.0, 0.5, 2.0]).view(1, 3, 1, 1).expand(2, 3, 5, 7))
    assert pixels.shape == (2, 6, 8, 3) and pixels.is_contiguous()
    assert pixels.unique().tolist() == [0, 128, 255]


class WithoutX264:
    """A container of an FFmpeg that has another H.264 encoder."""

    def __init__(self, container: Any) -> None:
        self._container, self.asked = container, []

    def add_stream(self, name: str, **options: Any) -> Any:
        self.asked.append(name)
        return self._container.add_stream("libx264", **options)

    def mux(self, packets: Any) -> None:
        self._container.mux(packets)


def test_without_x264_another_encoder_gets_a_bit_rate_as_it_knows_no_crf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.av, "codecs_available", {"h264", "aac"})
    with new_video(tmp_path / "v.mp4") as container:
        other = WithoutX264(container)
        pictures = PictureStream(other, 512, 512, 30)
        assert other.asked == ["h264"]
        assert pictures._stream.codec_context.bit_rate == pytest.approx(6.3e6, rel=0.01)
        pictures.write(to_pixels(frames(1, 512, 512))[0])
        pictures.finish()


def test_a_clip_that_shows_nothing_is_an_empty_file_and_joins(tmp_path: Path) -> None:
    segments = [tmp_path / f"{index}.mp4" for index in range(3)]
    for segment, count in zip(segments, (5, 0, 3), strict=True):
        write_segment(segment, [frames(5)[:count]])
    assert segments[1].stat().st_size == 0
    sound = Sound.of_waveform(torch.zeros(1, 16_000), 16_000)
    assert join_segments(segments, tmp_path / "v.mp4", sound) == 8
    assert np.abs(read_pictures(tmp_path / "v.mp4").mean((1, 2, 3)) - 127).max() < 10


def test_tags_travel_in_the_file(tmp_path: Path) -> None:
    tags = {"workflow": '{"nodes": []}', "prompt": '{"1": "说话"}'}
    write_video(tmp_path / "v.mp4", frames(3), Sound.of_waveform(torch.zeros(1, 16_000), 16_000), tags=tags)
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert {name: container.metadata[name] for name in tags} == tags


# A finished file is read back


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.mp4"
    write_video(path, frames(40), Sound.of_waveform(torch.from_numpy(tone(2.0, 16_000)), 16_000))
    return path


def test_a_whole_file_is_finished(whole: Path) -> None:
    check_finished(whole, 40, 30, sound=True)
    assert count_pictures(whole) == 40


def damages(whole: Path) -> Iterator[tuple[str, bytes]]:
    data = whole.read_bytes()
    media = data.index(b"mdat") + 8
    yield "cut off", data[: len(data) // 2]
    yield "empty", b""
    yield "something else", b"<html>no</html>" * 100
    yield "index alone", data[:media]
    yield "pictures and sound of zeros", data[:media] + bytes(len(data) - media)


def test_a_damaged_file_is_not_finished(whole: Path, tmp_path: Path) -> None:
    for name, data in damages(whole):
        damaged = tmp_path / "damaged.mp4"
        damaged.write_bytes(data)
        with pytest.raises(
            MediaError, match=r"expected a video of 40 pictures and their sound but got"
        ) as caught:
            check_finished(damaged, 40, 30, sound=True)
        assert "\n" not in str(caught.value), name


def test_a_file_with_other_pictures_or_sound_than_were_written_is_not_finished(
    whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(MediaError, match="of 41 pictures and their sound but got 40 pictures"):
        check_finished(whole, 41, 30, sound=True)
    with pytest.raises(MediaError, match=r"but got 1\.\d\d s of sound for 0\.67 s"):
        check_finished(whole, 40, 60, sound=True)
    with VideoWriter(tmp_path / "silent.mp4", width=64, height=48) as writer:
        writer.write(frames(5))
    with pytest.raises(MediaError, match="but got none of the sound"):
        check_finished(tmp_path / "silent.mp4", 5, 30, sound=True)
    check_finished(tmp_path / "silent.mp4", 5, 30, sound=False)


@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60])
def test_every_length_and_rate_reads_back(tmp_path: Path, fps: int) -> None:
    for count in (1, 2, 7):
        for rate in (8_000, 22_050, 44_100, 96_000):
            sound = Sound.of_waveform(torch.from_numpy(tone(count / fps, rate)), rate)
            write_video(tmp_path / "v.mp4", frames(count, 16, 16), sound, fps)
            assert read_video(tmp_path / "v.mp4").num_frames == count


def test_recordings_are_mixed_each_from_its_second_on(tmp_path: Path) -> None:
    first = write_sound(tmp_path / "a.wav", tone(0.5, 48_000), 48_000)
    second = write_sound(tmp_path / "b.wav", tone(1.0, 48_000, channels=2), 48_000)
    mixed = Sound.of_files([(first, 0.0), (second, 1.25)])
    assert (mixed.rate, mixed.layout) == (48_000, "stereo")
    heard = mixed.read(3 * 48_000)
    alone, later = Sound.of_file(first).read(24_000), Sound.of_file(second).read(48_000)
    mixed.close()
    assert np.array_equal(heard[:, :24_000], np.repeat(alone, 2, axis=0))
    assert not heard[:, 24_000:60_000].any() and not heard[:, 108_000:].any()
    assert np.array_equal(heard[:, 60_000:108_000], later)


def test_recordings_of_other_rates_meet_at_48_khz_and_stay_in_scale(tmp_path: Path) -> None:
    loud = [write_sound(tmp_path / f"{rate}.wav", 3 * tone(0.2, rate), rate) for rate in (44_100, 48_000)]
    mixed = Sound.of_files([(path, 0.0) for path in loud])
    heard = mixed.read(9_600)
    assert mixed.rate == 48_000 and abs(heard).max() == 1.0
