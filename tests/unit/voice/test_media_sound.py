"""Any recording becomes 16 kHz mono of exactly its own length, or a clear message."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition

from memo_avatar.timing import frame_count
from memo_avatar.voice import sound, sound_files
from memo_avatar.voice.sound import MediaError, is_silent
from memo_avatar.voice.sound_files import load_audio
from tests.helpers.media import tone, write_sound


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_every_rate_and_channel_count(tmp_path: Path, rate: int, channels: int) -> None:
    path = write_sound(tmp_path / "a.wav", tone(1.0, rate, channels), rate)
    waveform = load_audio(path)
    assert waveform.dtype == torch.float32
    assert waveform.shape == (16_000,)
    assert frame_count(waveform.shape[0]) == 30
    expected = tone(1.0, 16_000, channels).mean(axis=0)
    assert np.abs(waveform.numpy() - expected)[100:-100].max() < 1e-4  # 16-bit steps are 3e-5


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp3", "libmp3lame"),
        ("a.flac", "flac"),
        ("a.m4a", "aac"),
        ("a.ogg", "libopus"),
        ("a.mkv", "pcm_f32le"),
    ],
)
def test_every_format(tmp_path: Path, name: str, codec: str) -> None:
    waveform = load_audio(write_sound(tmp_path / name, tone(2.0, 48_000, 2), 48_000, codec))
    assert abs(waveform.shape[0] - 32_000) < 1_600  # lossy codecs pad to whole packets
    assert 0.13 < waveform.std() < 0.25


def test_16_bit_samples_are_exact(tmp_path: Path) -> None:
    steps = np.arange(-8_000, 8_000, dtype=np.float32)[None] / 32_768
    waveform = load_audio(write_sound(tmp_path / "a.wav", steps))
    assert torch.equal(waveform, torch.from_numpy(steps[0]))


def test_max_seconds_stops_early(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", tone(3.0, 44_100, 2), 44_100)
    whole, start = load_audio(path), load_audio(path, max_seconds=1.25)
    assert start.shape == (20_000,)
    assert torch.equal(start, whole[:20_000])
    assert torch.equal(load_audio(path, max_seconds=100), whole)


def test_silence_is_seen() -> None:
    assert is_silent(torch.zeros(100))
    assert is_silent(torch.full((100,), 5e-4))
    assert not is_silent(torch.tensor([0.0, -0.01]))


@pytest.mark.parametrize(("seconds", "got"), [(0.01, "0.01 s"), (0.099, "0.099 s")])
def test_too_little_sound(tmp_path: Path, seconds: float, got: str) -> None:
    path = write_sound(tmp_path / "a.wav", tone(seconds))
    with pytest.raises(MediaError, match=rf"expected at least 0\.1 s of sound but got {got} \(.*a\.wav\)"):
        load_audio(path)


def test_files_that_are_no_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(MediaError, match="expected a sound file but got no such file"):
        load_audio(path)
    path.touch()
    with pytest.raises(MediaError, match="expected a sound file but got an empty file of 0 bytes"):
        load_audio(path)
    with wave.open(str(path), "wb") as empty:
        empty.setparams((1, 2, 16_000, 0, "NONE", ""))
    with pytest.raises(MediaError, match=r"expected at least 0\.1 s of sound but got 0 s"):
        load_audio(path)
    path.write_text("This is text.\n" * 100)
    with pytest.raises(MediaError, match="expected a sound file but got Invalid data"):
        load_audio(path)
    with pytest.raises(MediaError, match="expected a sound file but got a folder"):
        load_audio(tmp_path)


def test_a_picture_has_no_sound(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="expected a file with sound but got one without an audio stream"):
        load_audio(tmp_path / "a.png")


def test_nan_samples_are_refused(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", np.full((1, 16_000), np.nan, np.float32), codec="pcm_f32le")
    with pytest.raises(MediaError, match="expected finite samples but got NaN or infinity"):
        load_audio(path)


def test_a_wav_cut_in_mid_sample_ends_there(tmp_path: Path) -> None:
    """PyAV up to 17 refuses the last packet, of up to 1024 samples."""
    path = write_sound(tmp_path / "a.wav", tone(1.0, channels=2))
    path.write_bytes(path.read_bytes()[:-20_001])
    assert 10_999 - 1_024 <= len(load_audio(path)) <= 10_999


def test_broken_data_in_the_middle_are_not_the_end(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mp3", tone(3.0, 44_100, 2), 44_100, "libmp3lame")
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 2_000)
    data[middle] = np.random.default_rng(0).bytes(2_000)
    path.write_bytes(data)
    with pytest.raises(MediaError, match="expected sound that can be decoded but got"):
        load_audio(path)


@pytest.mark.parametrize("rate", [1, 7, 999])
def test_kilobytes_do_not_become_hours(tmp_path: Path, rate: int) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(20_000))
    with pytest.raises(MediaError, match=f"expected 1000 to 768000 samples a second but got {rate} "):
        load_audio(tmp_path / "a.wav")


def test_hours_are_refused_from_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence compresses to nothing: kilobytes that would fill gigabytes."""
    monkeypatch.setattr(sound, "MAX_SECONDS", 600)
    path = write_sound(tmp_path / "a.flac", np.zeros((1, 8_000 * 660), np.float32), 8_000, "flac")
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(sound_files, "decode_audio", None)  # nothing of it is decoded
    with pytest.raises(MediaError, match=r"at most 0\.16\d* hours of sound but got 0\.183 \(.*a\.flac"):
        load_audio(path)
    monkeypatch.undo()
    assert load_audio(path, max_seconds=0.5).shape == (8_000,)


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.wav", "http:voice.wav", "pipe:0", "data:a.wav"):
        write_sound(Path("a.wav"), tone(0.5)).rename(name)
        assert load_audio(name).shape == (8_000,)


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile other.wav\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.wav\n#EXT-X-ENDLIST\n",
    ],
    ids=["ffconcat", "m3u8"],
)
@pytest.mark.parametrize("name", ["a.wav", "a.m3u8", "a.ffconcat"])
def test_a_playlist_opens_no_file_beside_it(tmp_path: Path, name: str, playlist: str) -> None:
    write_sound(tmp_path / "other.wav", tone(0.5))
    (tmp_path / name).write_text(playlist)
    with pytest.raises(MediaError, match="expected a sound file but got"):
        load_audio(tmp_path / name)


def test_the_track_that_a_player_would_choose(tmp_path: Path) -> None:
    """The first is a comment for the hearing impaired; the second is marked as the default one."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_f32le", rate=16_000, layout="mono") for _ in range(2)]
        streams[0].disposition, streams[1].disposition = Disposition.comment.value, Disposition.default.value
        for stream, level in zip(streams, (0.1, 0.5), strict=True):
            samples = np.full((1, 16_000), level, np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
    assert load_audio(path).mean() == pytest.approx(0.5)
