"""Sound of any number of channels becomes what a stereo player would play, from a file and from a tensor."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from memo_avatar.voice.sound import MediaError, mix_down, to_speech, to_stereo
from memo_avatar.voice.sound_files import decode_audio, load_audio
from tests.helpers.media import LAYOUTS, tone, write_sound

SURROUND = {name: count for count, name in LAYOUTS.items() if count > 2}
CENTRE = 0.5**0.5  # of the centre, in either side


def unlabelled_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    """(channels, n): a WAV of the old kind, which doesn't say what its channels are."""
    with wave.open(str(path), "wb") as file:
        file.setparams((len(samples), 2, rate, 0, "NONE", ""))
        file.writeframes((samples.T * 32_767).astype("<i2").tobytes())
    return path


def played_by_ffmpeg(samples: np.ndarray, layout: str) -> np.ndarray:
    """(channels, n) -> (2, n) by FFmpeg alone."""
    frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).copy(), format="flt", layout=layout)
    frame.sample_rate = 16_000
    resampler = av.AudioResampler(format="flt", layout="stereo", rate=16_000)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([one.to_ndarray() for one in frames], axis=1).reshape(-1, 2).T


@pytest.mark.parametrize("channels", range(1, 17))
def test_up_to_sixteen_channels_in_a_file_without_labels(tmp_path: Path, channels: int) -> None:
    samples = tone(1.0, 16_000, channels)
    path = unlabelled_wav(tmp_path / "a.wav", samples)
    heard, given = load_audio(path), to_speech(torch.from_numpy(samples), 16_000)
    assert heard.shape == (16_000,) and heard.std() > 0.02
    torch.testing.assert_close(heard, given, atol=2e-4, rtol=0)  # several 16-bit steps of 3e-5


@pytest.mark.parametrize("name", SURROUND)
@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_s16le"])
def test_surround_is_mixed_as_ffmpeg_mixes_it(tmp_path: Path, name: str, codec: str) -> None:
    samples = tone(0.5, 16_000, SURROUND[name]) * 0.5
    expected = played_by_ffmpeg(samples, name)
    path = write_sound(tmp_path / "a.wav", samples, 16_000, codec, name)
    read = np.concatenate(list(decode_audio(path, 16_000)), axis=1)
    for found in (read, mix_down(torch.from_numpy(samples))):
        assert np.abs(np.asarray(found) - expected).max() < (1e-6 if codec == "pcm_f32le" else 2e-4)


@pytest.mark.parametrize("name", ["3.0", "5.0", "5.1", "6.1", "7.1"])
def test_a_voice_in_the_centre_alone_is_heard(name: str) -> None:
    samples = torch.zeros(SURROUND[name], 16_000)
    samples[2] = torch.from_numpy(tone(1.0)[0])
    stereo = to_stereo(samples)
    torch.testing.assert_close(stereo, samples[2].expand(2, -1) * CENTRE)
    torch.testing.assert_close(to_speech(samples, 16_000), samples[2] * CENTRE)


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.ogg", "libopus"), ("a.flac", "flac")])
def test_eight_channels_of_every_codec(tmp_path: Path, name: str, codec: str) -> None:
    """Decoders that give a plane per channel, which PyAV reads past the eighth of, too."""
    heard = load_audio(write_sound(tmp_path / name, tone(1.0, 48_000, 8) * 0.5, 48_000, codec))
    assert abs(len(heard) - 16_000) < 1_600 and heard.std() > 0.05


def test_a_labelled_layout_counts_more_than_the_number_of_channels(tmp_path: Path) -> None:
    samples = tone(0.2, 16_000, 3) * np.array([[0], [0], [1]], np.float32)
    low, centre = (write_sound(tmp_path / f"{name}.wav", samples, layout=name) for name in ("2.1", "3.0"))
    assert load_audio(low).abs().max() == 0, "a subwoofer's channel carries no voice"
    assert load_audio(centre).abs().max() > 0.2


def test_mono_and_stereo_stay_as_they_are(tmp_path: Path) -> None:
    mono, stereo = torch.from_numpy(tone(0.2)), torch.from_numpy(tone(0.2, channels=2))
    assert mix_down(mono) is mono and mix_down(stereo) is stereo
    assert torch.equal(to_stereo(mono), mono.expand(2, -1))
    path = write_sound(tmp_path / "a.wav", mono.numpy(), codec="pcm_f32le")
    (chunk,) = list(decode_audio(path, 16_000, channels=2, limit=1_000))
    assert np.array_equal(chunk, mono[:, :1_000].expand(2, -1)), "not at 0.707, as FFmpeg would"


def test_more_channels_are_refused(tmp_path: Path) -> None:
    path = unlabelled_wav(tmp_path / "a.wav", tone(0.2, 16_000, 17))
    with pytest.raises(MediaError, match=r"expected 1 to 16 channels of sound but got 17 \(.*a\.wav\)\. Mix"):
        load_audio(path)
    with pytest.raises(MediaError, match="expected 1 to 16 channels of sound but got 17"):
        mix_down(torch.zeros(17, 100))
