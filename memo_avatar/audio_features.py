"""The voice front-end: a 16 kHz waveform to the wav2vec2 states of every video frame.

Source: memoavatar/memo `memo/utils/audio_utils.py` (preprocess_audio), `memo/models/wav2vec.py`.
It knows no file format and no model library: the wav2vec2 network arrives as three callables.

Shapes: S samples, T conv frames (50 per second), N video frames padded to whole clips, C conv channels,
D hidden size, L layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .clip_plan import SAMPLE_RATE, frame_count, padded_frame_count

WINDOW = 5  # wav2vec2 states that one frame sees: two before, its own, two after
VARIANCE_EPS = 1e-7  # of wav2vec2's published feature extractor


class VoiceEncoder(Protocol):
    """wav2vec2 in three parts. Libraries return them differently; an adapter for each evens that out."""

    def feature_extractor(self, waveform: Tensor) -> Tensor:
        """(1, S) normalised samples -> (1, C, T) conv features."""
        ...

    def feature_projection(self, features: Tensor) -> Tensor:
        """(1, N, C) -> (1, N, D)."""
        ...

    def encoder(self, hidden_states: Tensor) -> Iterable[Tensor]:
        """(1, N, D) -> L + 1 states of (1, N, D): the first layer's input, then every layer's output."""
        ...


@dataclass(frozen=True)
class VoiceFeatures:
    """`embeddings` (N, 5, L, D) on the CPU, N in whole clips; `num_frames` is the voice's own length, <= N.

    The embeddings are a strided view: the windows' overlap takes no memory until a clip is copied out.
    """

    embeddings: Tensor
    num_frames: int


def normalize_waveform(waveform: Tensor) -> Tensor:
    """Zero mean and unit variance over the whole recording, as wav2vec2's feature extractor does it."""
    variance, mean = torch.var_mean(waveform, correction=0)
    return (waveform - mean) / torch.sqrt(variance + VARIANCE_EPS)


def pad_to_clips(waveform: Tensor, fps: int, frames_per_clip: int) -> tuple[Tensor, int]:
    """(S,) -> samples zero-padded at the end to fill whole clips, and the number of frames they then span.

    A padding frame is `SAMPLE_RATE // fps` samples: inexact at 30 fps, as upstream trained it.
    """
    num_frames = frame_count(waveform.shape[0], fps)
    num_padded = padded_frame_count(num_frames, frames_per_clip)
    return functional.pad(waveform, (0, (num_padded - num_frames) * (SAMPLE_RATE // fps))), num_padded


def frame_windows(states: Iterable[Tensor], num_frames: int) -> Tensor:
    """L states of (1, N, D) -> (N, 5, L, D), a view: frame i sees frames i-2 … i+2, clamped at both ends."""
    margin = WINDOW // 2
    layers = [state[0].to("cpu", torch.float32) for state in states]
    padded = torch.empty(num_frames + 2 * margin, len(layers), layers[0].shape[-1])
    for index, layer in enumerate(layers):
        padded[margin : margin + num_frames, index] = layer
    padded[:margin] = padded[margin]
    padded[margin + num_frames :] = padded[margin + num_frames - 1]
    return padded.unfold(0, WINDOW, 1).permute(0, 3, 1, 2)  # (N, L, D, 5) -> (N, 5, L, D)


def voice_features(
    waveform: Tensor, encoder: VoiceEncoder, *, fps: int = 30, frames_per_clip: int = 16
) -> VoiceFeatures:
    """(S,) mono samples at 16 kHz -> the features of every frame.

    Upstream returns the padded length as the audio's. Here: both; the video ends where the voice ends.
    Upstream counts frames in floats, one too many at a few lengths such as 8.3 s. Here: in integers.
    """
    num_frames = frame_count(waveform.shape[0], fps)
    padded, num_padded = pad_to_clips(normalize_waveform(waveform.float()), fps, frames_per_clip)
    features = encoder.feature_extractor(padded[None])  # (1, S) -> (1, C, T)
    features = functional.interpolate(features, size=num_padded, mode="linear", align_corners=True)
    hidden_states = encoder.feature_projection(features.transpose(1, 2))  # (1, C, N) -> (1, N, D)
    _, *layer_outputs = encoder.encoder(hidden_states)
    return VoiceFeatures(frame_windows(layer_outputs, num_padded), num_frames)
