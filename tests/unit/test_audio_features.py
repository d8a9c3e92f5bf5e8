"""The voice front-end against upstream's numbers, and its integers against a table."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from memo_avatar.audio_features import frame_windows, normalize_waveform, pad_to_clips, voice_features
from memo_avatar.media import load_audio
from standalone.wav2vec2 import TransformersVoiceEncoder, extract_in_chunks, load_wav2vec2


@pytest.fixture(scope="module")
def encoder(goldens: Path) -> TransformersVoiceEncoder:
    return load_wav2vec2(goldens / "audio" / "wav2vec2")


@torch.inference_mode()
def test_equals_upstream(goldens: Path, encoder: TransformersVoiceEncoder) -> None:
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
    padded, frames = pad_to_clips(torch.ones(num_samples), 30, 16)
    assert frames == num_padded
    assert padded.shape[0] == num_samples + zeros
    assert padded[num_samples:].count_nonzero() == 0
    assert num_padded - zeros // 533 == num_frames


def test_windows_are_clamped_and_take_no_memory() -> None:
    frames, layers, width = 6, 3, 4
    states = [
        torch.arange(frames * width, dtype=torch.float32).view(1, frames, width) + 100 * k
        for k in range(layers)
    ]
    windows = frame_windows(states, frames)
    assert windows.shape == (frames, 5, layers, width)
    for i in range(frames):
        for j in range(5):
            neighbour = min(max(i + j - 2, 0), frames - 1)
            assert torch.equal(windows[i, j], torch.stack([state[0, neighbour] for state in states]))
    assert windows.untyped_storage().nbytes() == (frames + 4) * layers * width * 4


def test_normalisation_is_that_of_the_published_feature_extractor() -> None:
    from transformers import Wav2Vec2FeatureExtractor

    quiet = torch.randn(5_000, generator=torch.Generator().manual_seed(0)) * 1e-3 + 0.01
    expected = Wav2Vec2FeatureExtractor(do_normalize=True)(quiet.numpy(), sampling_rate=16_000).input_values[
        0
    ]
    torch.testing.assert_close(normalize_waveform(quiet), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert torch.equal(normalize_waveform(torch.zeros(100)), torch.zeros(100))


@torch.inference_mode()
def test_fits_any_clip_length_and_frame_rate(encoder: TransformersVoiceEncoder) -> None:
    waveform = torch.randn(24_000, generator=torch.Generator().manual_seed(1))
    for frames_per_clip, fps in [(1, 30), (8, 30), (32, 30), (16, 25)]:
        voice = voice_features(waveform, encoder, fps=fps, frames_per_clip=frames_per_clip)
        assert voice.num_frames == math.ceil(1.5 * fps)
        assert voice.embeddings.shape[0] % frames_per_clip == 0
        assert 0 <= voice.embeddings.shape[0] - voice.num_frames < frames_per_clip


@torch.inference_mode()
def test_states_are_those_of_the_whole_model(goldens: Path, encoder: TransformersVoiceEncoder) -> None:
    hidden_states: Tensor = torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(2))
    states = encoder.encoder(hidden_states)
    assert len(states) == encoder.shape[0] + 1
    layers = encoder.model.encoder.layers
    assert not any(layer._forward_pre_hooks for layer in layers)
    for layer, before, after in zip(layers, states[:-1], states[1:], strict=True):
        output = layer(before)
        torch.testing.assert_close(output[0] if isinstance(output, tuple) else output, after)


@torch.inference_mode()
@pytest.mark.parametrize("num_samples", [16_000, 15_999, 6_400, 401])
def test_chunks_give_the_features_of_the_whole(encoder: TransformersVoiceEncoder, num_samples: int) -> None:
    waveform = torch.randn(1, num_samples, generator=torch.Generator().manual_seed(3))
    whole = encoder.feature_extractor(waveform)
    layers = encoder.model.feature_extractor.conv_layers
    chunked = extract_in_chunks(layers, waveform[:, None], chunk_samples=3_200)
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-5)
