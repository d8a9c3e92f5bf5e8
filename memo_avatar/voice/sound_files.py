"""Sound files in, through PyAV: any format, rate and channel count, as a stream of mono or stereo.

No ffmpeg binary, no shell.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av import AudioFrame, AudioResampler
from numpy.typing import NDArray
from torch import Tensor

from ..timing import MAX_SECONDS, SAMPLE_RATE
from .sound import (
    MediaError,
    check_channels,
    check_finite,
    check_not_too_long,
    check_rate,
    check_seconds,
    mix_down,
)

_PLAYLISTS = {"avisynth", "concat", "dash", "hls", "image2", "imf", "rtsp", "sdp", "vapoursynth"}
LOCAL_ONLY = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(av.formats_available - _PLAYLISTS)),
}
"""Nothing may make FFmpeg ask the network, open another file than the one that was given, or run one."""


def load_audio(path: str | Path, *, max_seconds: float | None = None) -> Tensor:
    """Any file with sound -> (S,) float32 at 16 kHz: each channel resampled, then their mean, as upstream."""
    path = Path(path)
    if max_seconds is None:
        check_length(path)
    limit = round(min(max_seconds or MAX_SECONDS + 1, MAX_SECONDS + 1) * SAMPLE_RATE)
    chunks = [chunk.mean(axis=0) for chunk in decode_audio(path, SAMPLE_RATE, limit=limit)]
    samples = torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.float32), *chunks]))
    check_seconds(len(samples) / SAMPLE_RATE, path)
    check_finite(samples, path)
    return samples


def check_length(path: Path) -> None:
    """Refuse hours that the file's header already tells, before any of them is decoded."""
    with open_audio(path) as container:
        stream = voice_track(container)
        lengths = (stream.duration, stream.time_base), (container.duration, Fraction(1, av.time_base))
        known = [duration * unit for duration, unit in lengths if duration is not None and unit is not None]
    if known:
        check_not_too_long(float(known[0]), path)


def decode_audio(
    path: Path, sample_rate: int, *, channels: int | None = None, limit: int | None = None
) -> Generator[NDArray[Any], None, None]:
    """Chunks of (1 or 2, n) float32 at `sample_rate`, of `channels` where given, at most `limit` samples.

    The number of samples is the recording's duration to the nearest sample: what the resampler adds at the
    end is cut, what it swallows is filled with zeros.
    """
    given = Fraction(0)  # seconds decoded
    taken = 0  # samples handed out
    chunk = np.zeros((channels or 1, 0), dtype=np.float32)
    try:
        with open_audio(path) as container:
            for chunks, seconds in _resampled(_frames(container), sample_rate, path):
                given += seconds
                ends = [] if limit is None else [limit]
                if seconds == 0:  # a flush may fill up to the recording's end
                    ends.append(round(given * sample_rate))
                for samples in chunks:
                    left = max(0, min(ends) - taken) if ends else None
                    chunk = _with_channels(samples[:, :left], channels)
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
    if not path.is_file():
        actual = "a folder" if path.is_dir() else "no such file"
        raise MediaError(f"expected a sound file but got {actual} ({path}). Check the path.")
    if path.stat().st_size == 0:
        raise MediaError(
            f"expected a sound file but got an empty file of 0 bytes ({path}). Record or copy it again."
        )
    try:
        # Absolute: FFmpeg takes what stands before a colon for a protocol.
        container = av.open(str(path.absolute()), options=LOCAL_ONLY)
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


def voice_track(container: Any) -> Any:
    """Of several audio streams, the one that a player would choose."""
    return container.streams.best("audio") or container.streams.audio[0]


def _frames(container: Any) -> Iterator[AudioFrame]:
    """Decoded frames. Where the data break off after some sound, as in a copy cut short, that is the end."""
    broken: av.InvalidDataError | None = None
    heard = False
    for packet in container.demux(voice_track(container)):
        try:
            frames = packet.decode()
        except av.InvalidDataError as error:
            broken = broken or error
            continue
        if frames and broken is not None:
            raise broken  # there is more behind it
        heard = heard or bool(frames)
        yield from frames
    if broken is not None and not heard:
        raise broken


def _resampled(
    frames: Iterator[AudioFrame], sample_rate: int, path: Path
) -> Iterator[tuple[list[NDArray[Any]], Fraction]]:
    """(chunks at the wanted rate, seconds of source they came from); follows a source that changes format."""
    resampler: _Resampler | None = None
    source_format = None
    for frame in frames:
        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if frame_format != source_format:
            if resampler is not None:
                yield resampler.flush(), Fraction(0)
            resampler = _Resampler(frame, sample_rate, path)
            source_format = frame_format
        if resampler is not None:
            yield resampler.push(frame), Fraction(frame.samples, frame.sample_rate)
    if resampler is not None:
        yield resampler.flush(), Fraction(0)


class _Resampler:
    """Frames of one format -> (1 or 2, n) float32 at a rate."""

    def __init__(self, frame: AudioFrame, sample_rate: int, path: Path) -> None:
        self.channels, self.layout = len(frame.layout.channels), frame.layout.name
        check_channels(self.channels, path)
        check_rate(frame.sample_rate, path)
        self.rate = frame.sample_rate
        # More than two channels are mixed by `sound.mix_down` first, as tensors are. They come packed: PyAV
        # reads past the end of more than eight planes.
        self.unpacker = AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
        self.resampler = AudioResampler(format="fltp", rate=sample_rate)

    def push(self, frame: AudioFrame) -> list[NDArray[Any]]:
        """What is ready after this frame."""
        frame.pts = None  # gaps and odd start times must not stretch the sound
        frames = [frame] if self.channels <= 2 else self._mixed(self.unpacker.resample(frame))
        return [out.to_ndarray() for one in frames for out in self.resampler.resample(one)]

    def flush(self) -> list[NDArray[Any]]:
        """What was still on its way."""
        frames = [] if self.channels <= 2 else self._mixed(self.unpacker.resample(None))
        return [out.to_ndarray() for one in [*frames, None] for out in self.resampler.resample(one)]

    def _mixed(self, frames: list[AudioFrame]) -> list[AudioFrame]:
        mixed = []
        for frame in frames:
            samples = torch.from_numpy(frame.to_ndarray().reshape(-1, self.channels).T.copy())
            samples = mix_down(samples, self.layout).numpy()
            layout = "mono" if samples.shape[0] == 1 else "stereo"
            frame = AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate = self.rate
            mixed.append(frame)
        return mixed


def _with_channels(chunk: NDArray[Any], channels: int | None) -> NDArray[Any]:
    """(1 or 2, n) -> (channels, n): mono goes to both sides, stereo becomes its mean."""
    if channels is None or chunk.shape[0] == channels:
        return chunk
    return np.repeat(chunk, 2, axis=0) if channels == 2 else chunk.mean(axis=0, keepdims=True)
