"""A video on disk while it grows: one H.264 file per clip, and all of them joined with the sound without
re-encoding.

A clip is encoded by itself (no frame refers to another clip), so a video that was interrupted and continued
is the same file as one that was not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..timing import FPS
from ..voice.sound import mix_down
from .writer import CRF, even_sides

_SOUND_RATES = (44_100, 48_000)  # every player takes these; others become 48 kHz
_BLOCK = 1024  # samples per AAC frame
_FRAMES_PER_SEGMENT = 64  # bounds the copy of pixels that encoding makes


def write_segment(path: Path, parts: Iterable[Tensor], fps: int = FPS) -> None:
    """Frames (n, 3, H, W) in 0..1, in parts -> an MP4 of one clip; it appears when it is whole.

    A clip that shows no frame at this rate is an empty file.
    """
    import av
    from av.video.reformatter import Colorspace

    partial, stream, count = path.with_suffix(".part"), None, 0
    with partial.open("wb") as file, ExitStack() as closing:
        for part in parts:
            pixels = (part.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
            for picture in map(even_sides, pixels):
                if stream is None:
                    container: Any = closing.enter_context(av.open(file, "w", format="mp4"))
                    stream = _add_picture_stream(container, picture.shape[0], picture.shape[1], fps)
                frame = av.VideoFrame.from_ndarray(picture.numpy(), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
                frame.pts, frame.time_base = count, Fraction(1, fps)
                container.mux(stream.encode(frame))
                count += 1
        if stream is not None:
            container.mux(stream.encode(None))
    os.replace(partial, path)


def _add_picture_stream(container: Any, height: int, width: int, fps: int) -> Any:
    # No frame out of order, so that packets can be renumbered when the clips are joined.
    stream: Any = container.add_stream("libx264", rate=fps, options={"crf": str(CRF), "bf": "0"})
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, fps)
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
    return stream


def write_video(path: Path, frames: Tensor, waveform: Tensor, sample_rate: int, fps: int = FPS) -> None:
    """(F, 3, H, W) in 0..1 and the sound (C, T) -> an MP4 file."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        parts = frames.split(_FRAMES_PER_SEGMENT)
        segments = [Path(folder) / f"{index}.mp4" for index in range(len(parts))]
        for segment, part in zip(segments, parts, strict=True):
            write_segment(segment, [part], fps)
        join_segments(segments, path, waveform, sample_rate, fps)


def join_segments(
    segments: Sequence[Path], path: Path, waveform: Tensor, sample_rate: int, fps: int = FPS
) -> int:
    """Clips in order, and the sound (C, T) as long as they are, in one MP4. Returns the number of frames."""
    import av

    partial = path.with_name(f".{path.name}.part")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            sound = _SoundTrack(container, waveform, sample_rate, fps)
            count, video = 0, None
            for segment in segments:
                if not segment.stat().st_size:
                    continue
                with av.open(str(segment)) as source:
                    template = source.streams.video[0]
                    video = video or _copy_of(container, template)
                    count = _copy_packets(container, source, template, video, count, fps)
                sound.advance(count)
            sound.finish()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _copy_of(container: Any, template: Any) -> Any:
    add = getattr(container, "add_stream_from_template", None)
    return container.add_stream(template=template) if add is None else add(template)


def _copy_packets(container: Any, source: Any, template: Any, video: Any, count: int, fps: int) -> int:
    for packet in source.demux(template):
        if packet.dts is None:  # the end's empty packet
            continue
        packet.time_base = Fraction(1, fps)
        packet.pts, packet.dts, packet.duration = count, count, 1
        packet.stream = video
        container.mux(packet)
        count += 1
    return count


class _SoundTrack:
    """An AAC stream of the sound in mono or stereo, always as long as the frames written so far."""

    def __init__(self, container: Any, waveform: Tensor, sample_rate: int, fps: int) -> None:
        import av

        self.container, self.sample_rate, self.fps = container, sample_rate, fps
        self.samples = mix_down(waveform.cpu().float())
        self.layout = "mono" if self.samples.shape[0] == 1 else "stereo"
        rate = sample_rate if sample_rate in _SOUND_RATES else _SOUND_RATES[-1]
        self.stream = container.add_stream("aac", rate=rate)
        self.stream.codec_context.layout = self.layout
        self.resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=rate, frame_size=_BLOCK)
        self.written = 0

    def advance(self, frames: int) -> None:
        """Up to the end of this many frames; the recording may end before."""
        import av

        end = min(round(frames * self.sample_rate / self.fps), self.samples.shape[1])
        if end <= self.written:
            return
        block = self.samples[:, self.written : end].contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts = self.sample_rate, self.written
        frame.time_base = Fraction(1, self.sample_rate)
        self._encode(self.resampler.resample(frame))
        self.written = end

    def finish(self) -> None:
        """What is still on its way."""
        self._encode(self.resampler.resample(None))
        self.container.mux(self.stream.encode(None))

    def _encode(self, frames: Sequence[Any]) -> None:
        for frame in frames:
            self.container.mux(self.stream.encode(frame))
