"""Sound in, through PyAV: any format, rate and channel count, as a stream. No ffmpeg binary, no shell."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..timing import SAMPLE_RATE

if TYPE_CHECKING:
    from av import AudioFrame
    from numpy.typing import NDArray

MIN_SECONDS = 0.1
MAX_MISFIT = 0.5  # seconds by which vocals may be shorter or longer than their recording
LOCAL_ONLY = {"protocol_whitelist": "file"}  # a playlist may not make FFmpeg ask the network
SILENCE_PEAK = 1e-3  # -60 dB of full scale


class MediaError(ValueError):
    """Sound that can't be read, or a video that can't be written. The text is the whole message."""


def load_audio(path: str | Path, *, max_seconds: float | None = None) -> Tensor:
    """Any file with sound -> (S,) float32 at 16 kHz: each channel resampled, then their mean, as upstream."""
    import numpy as np

    limit = None if max_seconds is None else round(max_seconds * SAMPLE_RATE)
    chunks = [chunk.mean(axis=0) for chunk in decode_audio(Path(path), SAMPLE_RATE, limit=limit)]
    samples = np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.float32)
    seconds = samples.size / SAMPLE_RATE
    if seconds < MIN_SECONDS:
        raise MediaError(
            f"expected at least {MIN_SECONDS} s of sound but got {seconds:.3g} s ({path}). Use a longer "
            "recording."
        )
    if not np.isfinite(samples).all():
        raise MediaError(
            f"expected finite samples but got NaN or infinity ({path}). Export the recording again."
        )
    return torch.from_numpy(samples)


def is_silent(waveform: Tensor) -> bool:
    """True where no sample is loud enough for anything to be heard."""
    return bool(waveform.abs().max() < SILENCE_PEAK)


def to_speech(waveform: Tensor, sample_rate: int) -> Tensor:
    """(C, T) -> (S,) at 16 kHz: each channel resampled, then their mean, as upstream does it."""
    samples = waveform.to("cpu", torch.float32)
    if sample_rate != SAMPLE_RATE:
        samples = torch.stack([resample(channel, sample_rate, SAMPLE_RATE) for channel in samples])
    return samples.mean(dim=0)


def resample(channel: Tensor, sample_rate: int, wanted_rate: int) -> Tensor:
    """(T,) -> (round(T * wanted / rate),), through FFmpeg's resampler as files are."""
    import av
    import numpy as np

    frame = av.AudioFrame.from_ndarray(channel[None].contiguous().numpy(), format="fltp", layout="mono")
    frame.sample_rate = sample_rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=wanted_rate)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    samples = torch.from_numpy(np.concatenate([frame.to_ndarray()[0] for frame in frames]))
    wanted = round(channel.shape[0] * wanted_rate / sample_rate)
    return torch.nn.functional.pad(samples[:wanted], (0, max(0, wanted - samples.shape[0])))


def fit_length(sound: Tensor, length: int, what: str) -> Tensor:
    """(S,) cut or zero-padded to ``length`` samples at 16 kHz; a sound of another recording is refused."""
    if abs(sound.shape[0] - length) > MAX_MISFIT * SAMPLE_RATE:
        raise MediaError(
            f"expected {what} of {length / SAMPLE_RATE:.2f} s, as long as the voice, but got "
            f"{sound.shape[0] / SAMPLE_RATE:.2f} s. Use the {what} of the same recording."
        )
    return torch.nn.functional.pad(sound[:length], (0, max(0, length - sound.shape[0])))


def decode_audio(
    path: Path, sample_rate: int, *, layout: str | None = None, limit: int | None = None
) -> Generator[NDArray[Any], None, None]:
    """Chunks of (channels, n) float32 at `sample_rate`, in the file's layout or `layout`, at most `limit`.

    The number of samples is the recording's duration to the nearest sample: what the resampler adds at the
    end is cut, what it swallows is filled with zeros.
    """
    import av
    import numpy as np

    given = Fraction(0)  # seconds decoded
    taken = 0  # samples handed out
    chunk = np.zeros((1, 0), dtype=np.float32)
    try:
        with open_audio(path) as container:
            for frames, seconds in _resampled(container, sample_rate, layout):
                given += seconds
                end = round(given * sample_rate) if seconds == 0 else None  # what a flush may fill up to
                end = limit if end is None else end if limit is None else min(end, limit)
                for frame in frames:
                    chunk = (
                        frame.to_ndarray() if end is None else frame.to_ndarray()[:, : max(0, end - taken)]
                    )
                    taken += chunk.shape[1]
                    yield chunk
                if limit is not None and taken >= limit:
                    return
    except av.FFmpegError as error:
        raise MediaError(
            f"expected sound that can be decoded but got {error.strerror} ({path}). Convert the recording "
            "to WAV first."
        ) from error
    missing = round(given * sample_rate) - taken
    if missing > 0:
        yield np.zeros((chunk.shape[0], missing), dtype=np.float32)


def open_audio(path: Path) -> Any:
    """An open PyAV container that has sound in it."""
    import av

    if not path.is_file():
        actual = "a folder" if path.is_dir() else "no such file"
        raise MediaError(f"expected a sound file but got {actual} ({path}). Check the path.")
    if path.stat().st_size == 0:
        raise MediaError(
            f"expected a sound file but got an empty file of 0 bytes ({path}). Record or copy it again."
        )
    try:
        container = av.open(str(path), options=LOCAL_ONLY)
    except av.FFmpegError as error:
        raise MediaError(
            f"expected a sound file but got {error.strerror} ({path}). Use WAV, MP3, FLAC, M4A, OGG or a "
            "video with sound."
        ) from error
    if not container.streams.audio:
        container.close()
        raise MediaError(
            f"expected a file with sound but got one without an audio stream ({path}). Give the recording "
            "of the voice."
        )
    return container


def _resampled(
    container: Any, sample_rate: int, layout: str | None
) -> Iterator[tuple[list[AudioFrame], Fraction]]:
    """(frames at the wanted rate, seconds of source they came from); follows a source that changes format."""
    from av import AudioResampler

    resampler: Any = None
    source_format = None
    for frame in container.decode(audio=0):
        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if frame_format != source_format:
            if resampler is not None:
                yield resampler.resample(None), Fraction(0)
            wanted = layout or frame.layout.name
            resampler = AudioResampler(format="fltp", layout=wanted, rate=sample_rate)
            source_format = frame_format
        frame.pts = None  # gaps and odd start times must not stretch the sound
        yield resampler.resample(frame), Fraction(frame.samples, frame.sample_rate)
    if resampler is not None:
        yield resampler.resample(None), Fraction(0)
