"""wav2vec2's convolutions over a recording of any length, in bounded memory.

The convolutions have no padding, so stretches that overlap by their reach are exact. Two things are global:
the recording's own normalisation, and the base variant's norm after the first convolution; both are measured
once, in chunks, and every stretch then uses them. Shapes: S samples, T conv frames (50 per second), N video
frames, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VARIANCE_EPS = 1e-7  # of wav2vec2's published feature extractor
CHUNK_SAMPLES = 16_000 * 15  # the first layer's output takes 6.5 MB a second


class Recording:
    """(S,) samples, normalised to zero mean and unit variance as a whole, then zero-padded to ``length``."""

    def __init__(self, waveform: Tensor, length: int) -> None:
        self.waveform, self.length = waveform, length
        variance, mean = torch.var_mean(waveform.float(), correction=0)
        self.mean, self.deviation = mean, torch.sqrt(variance + VARIANCE_EPS)

    def piece(self, start: int, stop: int) -> Tensor:
        """(stop - start,) of the normalised and padded recording."""
        stop = min(stop, self.length)
        samples = (self.waveform[start:stop].float() - self.mean) / self.deviation
        return F.pad(samples, (0, stop - start - samples.shape[0]))


class ConvFeatures:
    """Conv features of a recording, at the times of its video frames.

    ``layers`` are wav2vec2's: each has ``conv`` and may have ``layer_norm``; a GroupNorm is taken over the
    whole recording, as the network in one piece does.
    """

    def __init__(
        self, layers: Sequence[Any], recording: Recording, *, chunk_samples: int = CHUNK_SAMPLES
    ) -> None:
        self.layers, self.recording, self.chunk_samples = layers, recording, chunk_samples
        self.reach, self.stride = _reach_and_stride([layer.conv for layer in layers])
        self.length = _num_outputs(recording.length, self.reach, self.stride)
        self.statistics: tuple[Tensor, Tensor] | None = None
        if isinstance(getattr(layers[0], "layer_norm", None), nn.GroupNorm):
            self.statistics = self._channel_statistics()

    def at_frames(self, start: int, stop: int, num_frames: int) -> Tensor:
        """(1, stop - start, C): the T features spread over ``num_frames``, of which ``start`` to ``stop``.

        Linear interpolation with aligned corners, in the float32 arithmetic of ``F.interpolate``: at 10
        minutes its rounding is larger than that of everything else here.
        """
        scale = torch.tensor(self.length - 1, dtype=torch.float32) / max(1, num_frames - 1)
        position = torch.arange(start, stop, dtype=torch.float32) * scale
        left = position.long().clamp(max=self.length - 1)
        right = (left + 1).clamp(max=self.length - 1)
        first, last = int(left[0]), int(right[-1]) + 1
        features = self.stretch(first, last)[0].transpose(0, 1)  # (1, C, T) -> (T, C)
        weight = (position - left).to(features)[:, None]
        left, right = (index.to(features.device) - first for index in (left, right))
        return (features[left] * (1 - weight) + features[right] * weight)[None]

    def stretch(self, start: int, stop: int) -> Tensor:
        """(1, C, stop - start) conv features."""
        return torch.cat([self._features(*span) for span in self._spans(start, stop)], dim=2)

    def _features(self, start: int, stop: int) -> Tensor:
        samples = self.recording.piece(start * self.stride, (stop - 1) * self.stride + self.reach)
        first, *rest = self.layers
        hidden_states = samples[None, None]  # (1, 1, S)
        if self.statistics is None:
            hidden_states = first(hidden_states)
        else:
            norm = first.layer_norm
            hidden_states = first.conv(hidden_states)
            weight, bias = norm.weight.to(hidden_states), norm.bias.to(hidden_states)
            hidden_states = F.batch_norm(hidden_states, *self.statistics, weight, bias, eps=norm.eps)
            hidden_states = F.gelu(hidden_states)
        for layer in rest:
            hidden_states = layer(hidden_states)
        return hidden_states

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        step = max(1, self.chunk_samples // self.stride)
        for begin in range(start, stop, step):
            yield begin, min(begin + step, stop)

    def _channel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (C,) of the first convolution's output over the whole recording."""
        conv = self.layers[0].conv
        reach, stride = _reach_and_stride([conv])
        num_outputs = _num_outputs(self.recording.length, reach, stride)
        step = max(1, self.chunk_samples // stride)
        count, total, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        for begin in range(0, num_outputs, step):
            end = min(begin + step, num_outputs)
            output = conv(self.recording.piece(begin * stride, (end - 1) * stride + reach)[None, None])[0]
            moments = torch.var_mean(output, dim=1, correction=0)
            # First to the CPU, then to float64: MPS has none, and `.to` of both at once writes nothing.
            variance, mean = (moment.cpu().double() for moment in moments)
            count += end - begin
            total = total + (end - begin) * mean
            squares = squares + (end - begin) * (variance + mean.square())
        mean = total / count
        variance = squares / count - mean.square()
        device = self.recording.waveform.device
        return mean.float().to(device), variance.float().to(device)


def _reach_and_stride(convs: Sequence[nn.Conv1d]) -> tuple[int, int]:
    """Samples that one output of stacked convolutions sees, and samples from one output to the next."""
    reach, stride = 1, 1
    for conv in convs:
        reach += (conv.kernel_size[0] - 1) * stride
        stride *= conv.stride[0]
    return reach, stride


def _num_outputs(num_samples: int, reach: int, stride: int) -> int:
    return (num_samples - reach) // stride + 1
