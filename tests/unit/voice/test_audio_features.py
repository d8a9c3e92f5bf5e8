"""The voice front-end against upstream's numbers, and its integers against a table."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from memo_avatar.voice.conv_features import ConvFeatures, Recording
from memo_avatar.voice.features import check_width, frame_windows, padded_length, voice_features
from memo_avatar.voice.sound import MediaError
from memo_avatar.voice.sound_files import load_audio
from memo_avatar.voice.wav2vec2 import Wav2Vec2
from standalone.models import load_wav2vec2
from tests.helpers.media import write_tiny_wav2vec2


@pytest.fixture(scope="module")
def encoder(goldens: Path) -> Wav2Vec2:
    return load_wav2vec2(goldens / "audio" / "wav2vec2")


@torch.inference_mode()
def test_equals_upstream(goldens: Path, encoder: Wav2Vec2) -> None:
    run = json.loads((goldens / "audio" / "run.json").read_text())
    golden = load_file(goldens / "audio" / "golden.safetensors")
    voice = voice_features(load_audio(goldens / "audio" / "speech.wav"), encoder, fps=run["fps"])
    expected = golden["audio_emb"]
    assert voice.embeddings.shape == expected.shape
    assert voice.embeddings.shape[0] == golden["audio_length"]  # upstream reports the padded length
    assert voice.num_frames == math.ceil(run["seconds"] * run["fps"]) == 72
    relative = torch.linalg.vector_norm(voice.embeddings - expected) / torch.linalg.vector_norm(expected)
    assert relative < 1e-5


@pytest.mark.parametrize(
    ("num_samples", "num_frames", "num_padded", "zeros"),
    [
        (1_600, 3, 16, 13 * 533),
        (8_000, 15, 16, 533),
        (8_533, 16, 16, 0),
        (8_534, 17, 32, 15 * 533),
        (16_000, 30, 32, 2 * 533),
        (37_920, 72, 80, 8 * 533),
        (132_800, 249, 256, 7 * 533),  # 8.3 s: 8.3 * 30 is 249.00000000000003 in floats
        (16_000 * 600, 18_000, 18_000, 0),
    ],
)
def test_frames_and_padding(num_samples: int, num_frames: int, num_padded: int, zeros: int) -> None:
    assert padded_length(num_samples, 30, 16) == (num_samples + zeros, num_padded)
    assert num_padded - zeros // 533 == num_frames


def test_the_padding_is_silence_after_normalisation() -> None:
    recording = Recording(torch.randn(1_000) + 5, 1_500)
    assert recording.piece(990, 1_500).shape == (510,)
    assert recording.piece(1_000, 1_600).count_nonzero() == 0
    assert abs(recording.piece(0, 1_000).mean()) < 1e-5


def test_windows_are_clamped_and_take_no_memory() -> None:
    frames, layers, width = 6, 3, 4
    inside = torch.randn(frames, layers, width)
    states = torch.zeros(frames + 4, layers, width)
    states[2:-2] = inside
    windows = frame_windows(states)
    assert windows.shape == (frames, 5, layers, width)
    for i in range(frames):
        for j in range(5):
            assert torch.equal(windows[i, j], inside[min(max(i + j - 2, 0), frames - 1)])
    assert windows.untyped_storage().nbytes() == (frames + 4) * layers * width * 4


def test_normalisation_is_that_of_the_published_feature_extractor() -> None:
    from transformers import Wav2Vec2FeatureExtractor

    quiet = torch.randn(5_000, generator=torch.Generator().manual_seed(0)) * 1e-3 + 0.01
    published = Wav2Vec2FeatureExtractor(do_normalize=True)
    expected = published(quiet.numpy(), sampling_rate=16_000).input_values[0]
    normalised = Recording(quiet, 5_000).piece(0, 5_000)
    torch.testing.assert_close(normalised, torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert torch.equal(Recording(torch.zeros(100), 100).piece(0, 100), torch.zeros(100))


@torch.inference_mode()
def test_fits_any_clip_length_and_frame_rate(encoder: Wav2Vec2) -> None:
    waveform = torch.randn(24_000, generator=torch.Generator().manual_seed(1))
    for frames_per_clip, fps in [(1, 30), (8, 30), (32, 30), (16, 25)]:
        voice = voice_features(waveform, encoder, fps=fps, frames_per_clip=frames_per_clip)
        assert voice.num_frames == math.ceil(1.5 * fps)
        assert voice.embeddings.shape[0] % frames_per_clip == 0
        assert 0 <= voice.embeddings.shape[0] - voice.num_frames < frames_per_clip


@torch.inference_mode()
def test_equals_transformers(tmp_path: Path) -> None:
    """Our net, fed as voice_features feeds it, against Wav2Vec2Model on the same file."""
    from transformers import Wav2Vec2Model

    folder = write_tiny_wav2vec2(tmp_path / "wav2vec2", hidden_size=32, num_layers=3)
    theirs, ours = Wav2Vec2Model.from_pretrained(folder).eval(), load_wav2vec2(folder)
    recording = Recording(torch.randn(48_123, generator=torch.Generator().manual_seed(2)), 48_123)
    frames = 91
    features = theirs.feature_extractor(recording.piece(0, 48_123)[None])
    features = functional.interpolate(features, size=frames, mode="linear", align_corners=True)
    expected = theirs.encoder(
        theirs.feature_projection(features.transpose(1, 2))[0], output_hidden_states=True
    )
    at_frames = ConvFeatures(ours.conv_layers, recording).at_frames(0, frames, frames)
    torch.testing.assert_close(at_frames, features.transpose(1, 2), rtol=1e-5, atol=1e-5)
    states = list(ours.encoder(ours.feature_projection(at_frames)))
    assert len(states) == ours.shape[0] + 1
    torch.testing.assert_close(states[-1], expected.last_hidden_state, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("num_samples", [16_000, 15_999, 6_400, 401])
def test_chunks_give_the_features_of_the_whole(encoder: Wav2Vec2, num_samples: int) -> None:
    waveform = torch.randn(num_samples, generator=torch.Generator().manual_seed(3))
    recording = Recording(waveform, num_samples)
    whole = recording.piece(0, num_samples)[None, None]
    for layer in encoder.conv_layers:
        whole = layer(whole)
    chunked = ConvFeatures(encoder.conv_layers, recording, chunk_samples=3_200)
    torch.testing.assert_close(chunked.stretch(0, chunked.length), whole, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_frames_lie_where_interpolate_puts_them_after_ten_minutes() -> None:
    """Its positions are float32, off by up to 1e-3 frames there; any other arithmetic would differ."""
    conv = torch.nn.Conv1d(1, 1, 2, stride=2, bias=False)
    conv.weight.fill_(0.5)
    layers = [SimpleNamespace(conv=conv)]
    features = ConvFeatures(layers, Recording(torch.randn(60_000), 60_000))
    features._features = lambda start, stop: conv(  # pyright: ignore[reportAttributeAccessIssue]
        features.recording.piece(2 * start, 2 * stop)[None, None]
    )
    whole = features.stretch(0, features.length)
    expected = functional.interpolate(whole, size=18_000, mode="linear", align_corners=True)
    parts = [features.at_frames(start, start + 6_000, 18_000) for start in (0, 6_000, 12_000)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected.transpose(1, 2), rtol=0, atol=1e-6)


def test_an_encoder_of_another_size_is_told() -> None:
    check_width(13, 768, 5 * 13 * 768, "wav2vec2")
    with pytest.raises(MediaError, match=r"is 49920 but got 25 x 1024 x 5 \(wav2vec2-large\)\. Use "):
        check_width(25, 1024, 5 * 13 * 768, "wav2vec2-large")
