"""Any recording becomes 16 kHz mono of exactly its own length, or a clear message."""

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from memo_avatar.timing import frame_count
from memo_avatar.voice.sound import MediaError, is_silent, load_audio
from tests.helpers.media import tone, write_sound


@pytest.mark.parametrize("channels", [1, 2, 6])
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
