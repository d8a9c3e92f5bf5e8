"""The two streams of every video that we write, and all their settings: H.264 pictures and AAC sound, or what
else was asked for.

Whoever has frames pushes both forward. The sound is always as long as the pictures so far, to the sample, so
a file is whole wherever it ends.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import Colorspace
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..voice.sound import mix_down
from ..voice.sound_files import decode_audio, open_audio, voice_track

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
CODECS = ("h264", "prores", "png")
"""Of pictures. PNG is exact, whatever is made of it later; ProRes is for editors, with the sound as it is."""

CRF = 18  # x264's own "visually lossless"
THREADS = "4"  # of x264: another number gives other bytes, and the number of cores must not
BYTES_PER_PIXEL = {"h264": 0.1, "prores": 0.6, "png": 2.0}  # generous: 6 Mbit/s of H.264 at 512x512
SPARE_BYTES = 8_000_000
SOUND_RATES = (44_100, 48_000)  # kept; any other becomes 48 kHz, which every player takes
BIT_RATES = {"mono": 128_000, "stereo": 192_000}

_LAYOUTS = {1: "mono", 2: "stereo"}
_SECOND = 48_000  # samples of a waveform that are resampled at a time


def expected_bytes(frames: int, width: int, height: int, codec: str = "h264") -> int:
    """Room that a video of so many frames takes, generously."""
    return SPARE_BYTES + round(frames * width * height * BYTES_PER_PIXEL[codec])


def open_video(path: Path, mode: str = "r", **options: Any) -> Any:
    """PyAV's container of a file: by its absolute path, since FFmpeg takes `12:30.mp4` for an address."""
    open_any: Any = av.open  # it declares an overload per mode
    return open_any(str(path.absolute()), mode, **options)


@contextmanager
def new_video(path: Path, kind: str = "mp4", tags: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A container to write, of one of `FORMATS`. Its index comes first, so that a page can play it before all
    of it has arrived; ``tags`` are texts that travel in the file.
    """
    options = {} if kind == "matroska" else {"movflags": "faststart+use_metadata_tags"}
    with open_video(path, "w", format=kind, options=options) as container:
        container.metadata.update(tags or {})
        yield container


def to_pixels(frames: Tensor, codec: str = "h264") -> Tensor:
    """(F, 3, H, W) in 0..1 -> (F, H, W, 3) uint8 on the CPU, odd sides repeated: yuv420p halves both."""
    pixels = frames.clamp(0, 1).mul_(255).round_().to("cpu", torch.uint8).permute(0, 2, 3, 1)
    if codec == "png":
        return pixels.contiguous()
    if pixels.shape[1] % 2:
        pixels = torch.cat([pixels, pixels[:, -1:]], dim=1)
    if pixels.shape[2] % 2:
        pixels = torch.cat([pixels, pixels[:, :, -1:]], dim=2)
    return pixels.contiguous()


class PictureStream:
    """Pictures, of even width and height but for PNG. None refers to a later one, so that the packets of
    clips can be renumbered when these are joined.
    """

    def __init__(self, container: Any, width: int, height: int, fps: int, codec: str = "h264") -> None:
        self._container, self._fps, self.count = container, fps, 0
        name, self._format, options = _encoder(codec)
        self._stream = container.add_stream(name, rate=fps, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, self._format
        context = self._stream.codec_context
        context.time_base = Fraction(1, fps)
        if name == "h264":  # what stands in for x264 knows no CRF
            context.bit_rate = round(8 * BYTES_PER_PIXEL[codec] * width * height * fps)
        if codec != "png":
            # BT.709, limited range, said in the file: players guess by size else, and shift skin colours.
            context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1

    @property
    def seconds(self) -> Fraction:
        """The length so far."""
        return Fraction(self.count, self._fps)

    def write(self, pixels: Tensor) -> None:
        """One picture (H, W, 3) of `to_pixels`."""
        if self._format == "yuv422p10le":
            frame = _to_422(pixels)
        else:
            frame = av.VideoFrame.from_ndarray(pixels.numpy(), format="rgb24")
        if self._format == "yuv420p":
            frame = frame.reformat(format=self._format, dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = self.count, Fraction(1, self._fps)
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    def finish(self) -> None:
        """What is still on its way."""
        self._container.mux(self._stream.encode(None))


def _encoder(codec: str) -> tuple[str, str, dict[str, str]]:
    """FFmpeg's name of it, its pixels, its settings: the same pictures are the same bytes on every machine.

    x264's macroblock tree is left out for that. It reckons in approximate floats, and its AVX-512 form
    answers by where the memory lies: one encoding in thousands of narrow pictures came out different.
    """
    if codec == "png":
        return "png", "rgb24", {}
    if codec == "prores":
        # HQ by its number: PyAV 14.2 does not know the name.
        return "prores_ks", "yuv422p10le", {"profile": "3", "vendor": "apl0"}
    name = "libx264" if "libx264" in av.codecs_available else "h264"
    return name, "yuv420p", {"crf": str(CRF), "bf": "0", "mbtree": "0", "threads": THREADS}


def _to_422(pixels: Tensor) -> Any:
    """(H, W, 3) uint8, W even -> a frame of 10 bits in BT.709, limited range, chroma halved across.

    FFmpeg's own conversion to it reads past the rows' ends: the same picture gave different bytes.
    """
    red, green, blue = (pixels.float() / 255).unbind(-1)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    chroma = [(blue - luma) / 1.8556, (red - luma) / 1.5748]
    halves = [512 + 896 * functional.avg_pool1d(plane, 2) for plane in chroma]
    frame = av.VideoFrame(pixels.shape[1], pixels.shape[0], "yuv422p10le")
    frame.colorspace = frame.color_range = 1
    for plane, values in zip(frame.planes, [64 + 876 * luma, *halves], strict=True):
        rows = np.zeros((plane.height, plane.line_size // 2), dtype="<u2")
        rows[:, : plane.width] = values.round().numpy()
        plane.update(rows.tobytes())
    return frame


def add_copy(container: Any, stream: Any) -> Any:
    """A stream that takes another file's packets as they are."""
    # Without `opaque` PyAV before 15 leaves the pictures undecodable.
    return container.add_stream_from_template(stream, opaque=True)


class Sound:
    """Samples as they are needed, mono or stereo, at a rate that players take; silence after the end."""

    def __init__(self, chunks: Generator[NDArray[Any], None, None], rate: int, channels: int) -> None:
        """``chunks``: (channels, n) float32, one after the other."""
        self.rate, self.layout, self._chunks = rate, _LAYOUTS[channels], chunks
        self._pending = np.zeros((channels, 0), dtype=np.float32)

    @classmethod
    def of_file(cls, path: Path) -> Sound:
        """A recording, read as far as it is needed."""
        return cls.of_files([(path, 0.0)])

    @classmethod
    def of_files(cls, recordings: Sequence[tuple[Path, float]]) -> Sound:
        """Recordings, each from so many seconds on, mixed as far as they are needed."""
        kinds = [_kind_of(path) for path, _ in recordings]
        rates, channels = {rate for rate, _ in kinds}, max(channels for _, channels in kinds)
        rate = rates.pop() if len(rates) == 1 else SOUND_RATES[-1]
        tracks = [
            cls(_delayed(decode_audio(path, rate, channels=channels), round(start * rate)), rate, channels)
            for path, start in recordings
        ]
        return tracks[0] if len(tracks) == 1 else cls(_mixed(tracks), rate, channels)

    @classmethod
    def of_waveform(cls, waveform: Tensor, sample_rate: int) -> Sound:
        """(C, S) at any rate."""
        samples = mix_down(waveform.detach().cpu().float())
        rate = sample_rate if sample_rate in SOUND_RATES else SOUND_RATES[-1]
        return cls(_resampled(samples, sample_rate, rate), rate, samples.shape[0])

    def read(self, count: int) -> NDArray[Any]:
        """The next (channels, count)."""
        parts, available = [self._pending], self._pending.shape[1]
        while available < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                chunk = np.zeros((self._pending.shape[0], count - available), dtype=np.float32)
            parts.append(chunk)
            available += chunk.shape[1]
        samples = np.concatenate(parts, axis=1)
        self._pending = samples[:, count:]
        return np.ascontiguousarray(samples[:, :count])

    def close(self) -> None:
        """Let go of the file."""
        self._chunks.close()


class SoundStream:
    """AAC, or 16 bits as they are, as long as it is told: cut, or filled with silence."""

    def __init__(self, container: Any, sound: Sound, *, exact: bool = False) -> None:
        self._container, self._sound, self._written = container, sound, 0
        self._stream = container.add_stream("pcm_s16le" if exact else "aac", rate=sound.rate)
        self._stream.codec_context.layout = sound.layout
        if not exact:
            self._stream.codec_context.bit_rate = BIT_RATES[sound.layout]

    def advance(self, seconds: Fraction) -> None:
        """Up to this time."""
        rate = self._sound.rate
        count = round(seconds * rate) - self._written
        if count <= 0:
            return
        samples = self._sound.read(count)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._sound.layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, self._written, Fraction(1, rate)
        self._container.mux(self._stream.encode(frame))
        self._written += count

    def finish(self) -> None:
        """What is still on its way."""
        self._container.mux(self._stream.encode(None))


def _kind_of(path: Path) -> tuple[int, int]:
    """A recording's rate, if players take it, and its channels, at most two."""
    with open_audio(path) as container:
        context = voice_track(container).codec_context
        rate = context.sample_rate if context.sample_rate in SOUND_RATES else SOUND_RATES[-1]
        return rate, min(2, len(context.layout.channels))


def _delayed(
    chunks: Generator[NDArray[Any], None, None], samples: int
) -> Generator[NDArray[Any], None, None]:
    """Silence of so many samples, and then the sound."""
    first = next(chunks, None)
    if first is None:
        return
    for start in range(0, samples, _SECOND):
        yield np.zeros((len(first), min(_SECOND, samples - start)), dtype=np.float32)
    yield first
    yield from chunks


def _mixed(tracks: Sequence[Sound]) -> Generator[NDArray[Any], None, None]:
    """Their sum, a second at a time, without an end; what is over full scale is cut off."""
    try:
        while True:
            yield np.clip(np.sum([track.read(_SECOND) for track in tracks], axis=0), -1, 1)
    finally:
        for track in tracks:
            track.close()


def _resampled(samples: Tensor, sample_rate: int, rate: int) -> Generator[NDArray[Any], None, None]:
    """(1 or 2, S) in parts -> chunks of so many channels at ``rate``."""
    if sample_rate == rate:
        yield from (part.contiguous().numpy() for part in samples.split(_SECOND, dim=1))
        return
    layout = _LAYOUTS[samples.shape[0]]
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    for part in samples.split(_SECOND, dim=1):
        frame = av.AudioFrame.from_ndarray(part.contiguous().numpy(), format="fltp", layout=layout)
        frame.sample_rate = sample_rate
        yield from (out.to_ndarray() for out in resampler.resample(frame))
    yield from (out.to_ndarray() for out in resampler.resample(None))
