"""The voice front-end: a 16 kHz waveform to the wav2vec2 states of every video frame.

Source: memoavatar/memo `memo/utils/audio_utils.py` (preprocess_audio), `memo/models/wav2vec.py`.
It knows no file format and no model library: the wav2vec2 network arrives as its parts. Up to ten minutes go
through it in one piece, as upstream does it; longer voices in windows (`voice_windows.py`).

Shapes: S samples, N video frames padded to whole clips, C conv channels, D hidden size, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..inputs import FrameFeatures
from ..timing import SAMPLE_RATE, frame_count, padded_frame_count
from .conv_features import ConvFeatures, Recording
from .sound import MediaError
from .windows import StoredStates, WindowPlan, windowed_states

WINDOW = 5  # wav2vec2 states that one frame sees: two before, its own, two after

OnLayer = Callable[[float], None]
"""Called after every layer with the share of the work that is done, 0 to 1; may raise to stop it."""


def check_width(layers: int, width: int, expected: int, where: str) -> None:
    """Refuse an audio encoder of another size than the checkpoint's, whose projection takes ``expected``."""
    if WINDOW * layers * width != expected:
        raise MediaError(
            f"expected an audio encoder whose layers x width x {WINDOW} is {expected} but got {layers} x "
            f"{width} x {WINDOW} ({where}). Use the one that this checkpoint was trained with."
        )


class VoiceEncoder(Protocol):
    """wav2vec2 in its parts. Libraries return them differently; an adapter for each evens that out."""

    @property
    def conv_layers(self) -> Sequence[Any]:
        """The feature extractor's layers, each with `conv` and perhaps `layer_norm`."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D)."""
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

    The embeddings are a strided view: the windows' overlap takes no memory until a clip is copied out. Those
    of a voice over ten minutes are a :class:`StoredStates`, which reads the rows that it is indexed with.
    """

    embeddings: FrameFeatures
    num_frames: int


def padded_length(num_samples: int, fps: int, frames_per_clip: int) -> tuple[int, int]:
    """Samples after zero-padding to whole clips, and the number of frames they then span.

    A padding frame is `SAMPLE_RATE // fps` samples: inexact at 30 fps, as upstream trained it.
    """
    num_frames = frame_count(num_samples, fps)
    num_padded = padded_frame_count(num_frames, frames_per_clip)
    return num_samples + (num_padded - num_frames) * (SAMPLE_RATE // fps), num_padded


def frame_windows(states: Tensor) -> Tensor:
    """(2 + N + 2, L, D) -> (N, 5, L, D), a view: frame i sees frames i-2 … i+2, clamped at both ends.

    The two rows at either end are margins; this fills them.
    """
    margin = WINDOW // 2
    states[:margin] = states[margin]
    states[-margin:] = states[-margin - 1]
    return states.unfold(0, WINDOW, 1).permute(0, 3, 1, 2)  # (N, L, D, 5) -> (N, 5, L, D)


@torch.inference_mode()
def voice_features(
    waveform: Tensor,
    encoder: VoiceEncoder,
    *,
    fps: int = 30,
    frames_per_clip: int = 16,
    windows: WindowPlan | None = None,
    on_layer: OnLayer | None = None,
) -> VoiceFeatures:
    """(S,) mono samples at 16 kHz -> the features of every frame, computed on the waveform's device.

    Upstream returns the padded length as the audio's. Here: both; the video ends where the voice ends.
    Upstream counts frames in floats, one too many at a few lengths such as 8.3 s. Here: in integers.
    """
    windows = windows or WindowPlan(fps=fps)
    num_samples = waveform.shape[0]
    length, num_padded = padded_length(num_samples, fps, frames_per_clip)
    features = ConvFeatures(encoder.conv_layers, Recording(waveform, length))
    num_frames = frame_count(num_samples, fps)
    if num_padded <= windows.one_piece:
        margin = WINDOW // 2
        states = _states(encoder, features.at_frames(0, num_padded, num_padded), margin, on_layer)
        return VoiceFeatures(frame_windows(states), num_frames)

    def states_of(start: int, stop: int) -> Tensor:
        end = stop if stop == num_padded else stop - windows.overlap  # where the next window begins

        def report(part: float) -> None:
            if on_layer is not None:
                on_layer((start + part * (end - start)) / num_padded)

        return _states(encoder, features.at_frames(start, stop, num_padded), 0, report)

    stored = StoredStates(num_padded, WINDOW)
    for block in windowed_states(states_of, num_padded, windows):
        stored.append(block)
    return VoiceFeatures(stored, num_frames)


def _states(encoder: VoiceEncoder, features: Tensor, margin: int, on_layer: OnLayer | None) -> Tensor:
    """(1, N, C) conv features -> (margin + N + margin, L, D) on the CPU, written layer by layer."""
    hidden_states = encoder.feature_projection(features)  # (1, N, C) -> (1, N, D)
    _, num_frames, width = hidden_states.shape
    num_layers = encoder.shape[0]
    states = torch.empty(num_frames + 2 * margin, num_layers, width)
    inside = states[margin : margin + num_frames]
    for index, state in enumerate(encoder.encoder(hidden_states)):
        if index > 0:  # the first is the first layer's input
            inside[:, index - 1] = state[0].cpu().float()
        if on_layer is not None:
            on_layer(index / num_layers)
    return states
