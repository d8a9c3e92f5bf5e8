"""Sound in memory: how many channels, at which rate, how long, and what of it may be believed.

Samples are float32 on the CPU, full scale is 1. FFmpeg's resampler does what changes them, through PyAV, so
that a file and a tensor give the same numbers. Shapes: C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import av
import numpy as np
import torch
from av import AudioFrame, AudioResampler
from torch import Tensor

from ..files.foreign import in_words
from ..files.limits import MAX_CHANNELS, MAX_RATE, MIN_RATE
from ..timing import MAX_SECONDS, SAMPLE_RATE

MIN_SECONDS = 0.1
MAX_MISFIT = 0.5  # seconds by which vocals may be shorter or longer than their recording
SILENCE_PEAK = 1e-3  # -60 dB of full scale

_LAYOUTS = {3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""What so many channels are where nobody says it."""


class MediaError(ValueError):
    """Sound that can't be read, or a video that can't be written. The text is the whole message."""


def check_channels(channels: int, where: object) -> None:
    """As many as can be mixed."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise MediaError(
            f"expected 1 to {MAX_CHANNELS} channels of sound but got {channels} ({where}). Mix them to mono "
            "or stereo first."
        )


def check_rate(sample_rate: float, where: object) -> None:
    """Sound, and not some other signal: a wrong rate would make hours out of kilobytes."""
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise MediaError(
            f"expected {MIN_RATE} to {MAX_RATE} samples a second but got {sample_rate:g} ({where}). Export "
            "the recording again, at 16000 or more."
        )


def check_seconds(seconds: float, where: object) -> None:
    """Enough to be spoken, and no more than can be held."""
    if seconds < MIN_SECONDS:
        raise MediaError(
            f"expected at least {MIN_SECONDS} s of sound but got {seconds:.3g} s ({where}). Use a longer "
            "recording."
        )
    check_not_too_long(seconds, where)


def check_not_too_long(seconds: float, where: object) -> None:
    """What a header tells may be asked before anything is decoded."""
    if seconds > MAX_SECONDS:
        raise MediaError(
            f"expected at most {MAX_SECONDS / 3600:g} hours of sound but got {seconds / 3600:.3g} ({where}). "
            "Use a part of it."
        )


def check_finite(samples: Tensor, where: object) -> None:
    """No NaN and no infinity."""
    if not torch.isfinite(samples).all():
        raise MediaError(
            f"expected finite samples but got NaN or infinity ({where}). Export the recording again."
        )


def read_audio(value: Any, what: str) -> tuple[Tensor, int]:
    """What may arrive as sound, ``waveform`` and ``sample_rate`` in a mapping -> (C, S) samples, their rate.

    Taken as meant: (S,), (C, S) and the first of (B, C, S); a tensor on any device, an array or a list, of
    floats or of whole numbers, whose full scale becomes 1. Anything else is told in one line.
    """
    try:
        if not isinstance(value, Mapping):
            raise TypeError
        samples = torch.as_tensor(value["waveform"]).detach().cpu()
        if samples.layout != torch.strided:  # a sparse one has no storage to slice
            raise TypeError
        sample_rate = float(value["sample_rate"])
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        got = in_words(value).replace("a sound", "one that can't be read")
        raise MediaError(
            f"expected sound, a waveform and its sample rate, but got {got} ({what}). "
            "Connect Load Audio or another node's audio."
        ) from error
    shape = tuple(samples.shape)
    if samples.ndim == 3 and shape[0]:
        samples = samples[0]
    elif samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2 or samples.is_complex() or samples.dtype == torch.bool:
        kind = str(samples.dtype).removeprefix("torch.")
        raise MediaError(
            f"expected a waveform of shape (1, channels, samples) but got {shape} of {kind} ({what}). "
            "Connect Load Audio or another node's audio."
        )
    check_channels(samples.shape[0], what)
    check_rate(sample_rate, what)
    return _full_scale(samples), round(sample_rate)


def _full_scale(samples: Tensor) -> Tensor:
    """Any real dtype -> float32 with 1 as full scale."""
    if samples.is_floating_point():
        return samples.float()
    bits = torch.iinfo(samples.dtype).bits
    middle = 0 if samples.dtype.is_signed else 2 ** (bits - 1)
    return (samples.double() - middle).float() / 2 ** (bits - 1)


def is_silent(samples: Tensor) -> bool:
    """True where no sample is loud enough for anything to be heard."""
    return bool(samples.abs().max() < SILENCE_PEAK)


def mix_down(samples: Tensor, layout: str = "") -> Tensor:
    """(C, S) -> (1, S) or (2, S): what a stereo player would play.

    Up to two channels stay as they are. More are mixed with the coefficients of FFmpeg's resampler, for the
    ``layout`` of that name, else for the usual one of that count; of no known layout, to their mean.
    """
    channels = samples.shape[0]
    check_channels(channels, "mix")
    return samples if channels <= 2 else _coefficients(channels, layout) @ samples


def to_stereo(samples: Tensor) -> Tensor:
    """(C, S) -> (2, S); mono goes to both sides."""
    return mix_down(samples).expand(2, -1)


def to_speech(samples: Tensor, sample_rate: int) -> Tensor:
    """(C, S) -> (S',) at 16 kHz: mixed down, each channel resampled, then their mean, as upstream does it."""
    samples = mix_down(samples)
    if sample_rate != SAMPLE_RATE:
        samples = resample(samples, sample_rate, SAMPLE_RATE)
    return samples.mean(dim=0)


def resample(samples: Tensor, sample_rate: int, wanted_rate: int) -> Tensor:
    """(C, S) -> (C, round(S * wanted / rate)), through FFmpeg's resampler as files are."""
    return torch.stack([_resample_channel(channel, sample_rate, wanted_rate) for channel in samples])


def fit_length(samples: Tensor, length: int, what: str) -> Tensor:
    """(S,) cut or zero-padded to ``length`` samples at 16 kHz; a sound of another recording is refused."""
    if abs(samples.shape[0] - length) > MAX_MISFIT * SAMPLE_RATE:
        raise MediaError(
            f"expected {what} of {length / SAMPLE_RATE:.2f} s, as long as the voice, but got "
            f"{samples.shape[0] / SAMPLE_RATE:.2f} s. Use the {what} of the same recording."
        )
    return torch.nn.functional.pad(samples[:length], (0, max(0, length - samples.shape[0])))


def _resample_channel(channel: Tensor, sample_rate: int, wanted_rate: int) -> Tensor:
    frame = AudioFrame.from_ndarray(channel[None].contiguous().numpy(), format="flt", layout="mono")
    frame.sample_rate = sample_rate
    resampler = AudioResampler(format="flt", layout="mono", rate=wanted_rate)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    samples = torch.from_numpy(np.concatenate([frame.to_ndarray()[0] for frame in frames]))
    wanted = round(channel.shape[0] * wanted_rate / sample_rate)
    return torch.nn.functional.pad(samples[:wanted], (0, max(0, wanted - samples.shape[0])))


@cache
def _coefficients(channels: int, layout: str) -> Tensor:
    """(2, C), or (1, C) of equal shares, for 3 and more channels."""
    for name in (layout, _LAYOUTS.get(channels, "")):
        if name and not name.endswith("channels"):  # FFmpeg's "6 channels" is no layout
            try:
                return _mixed_by_ffmpeg(torch.eye(channels), name)
            except (av.FFmpegError, ValueError):
                continue  # FFmpeg knows no mix of it
    return torch.full((1, channels), 1 / channels)


def _mixed_by_ffmpeg(samples: Tensor, layout: str) -> Tensor:
    """(C, S) -> (2, S). Samples go in and out packed: PyAV reads past the end of more than eight planes."""
    packed = np.ascontiguousarray(samples.T.numpy()).reshape(1, -1)
    frame = AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate = SAMPLE_RATE  # any: it stays as it is
    resampler = AudioResampler(format="flt", layout="stereo", rate=SAMPLE_RATE)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    packed = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    return torch.from_numpy(packed.reshape(-1, 2).T.copy())
