"""A video in parts: one file per clip, H.264 as a rule, and all joined with the sound without re-encoding.

A clip is encoded by itself (no picture refers to another clip), so a video that was interrupted and continued
is the same file as one that was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..files.disk import replacing
from ..timing import FPS
from .finished import check_finished
from .streams import PictureStream, Sound, SoundStream, add_copy, new_video, open_video, to_pixels

_FRAMES_AT_ONCE = 64  # bounds the copy of pixels that encoding makes


def write_segment(path: Path, parts: Iterable[Tensor], fps: int = FPS, codec: str = "h264") -> None:
    """Frames (n, 3, H, W) in 0..1, in parts -> an MP4 or MOV of one clip; it appears when it is whole.

    A clip that shows no frame at this rate is an empty file.
    """
    with replacing(path) as part, ExitStack() as closing:
        pictures: PictureStream | None = None
        for pixels in (to_pixels(frames, codec) for frames in parts):
            if pictures is None and len(pixels):
                container = closing.enter_context(
                    open_video(part, "w", format="mp4" if codec == "h264" else "mov")
                )
                pictures = PictureStream(container, pixels.shape[2], pixels.shape[1], fps, codec)
            for picture in pixels:
                assert pictures is not None
                pictures.write(picture)
        if pictures is not None:
            pictures.finish()


def write_video(
    path: Path, frames: Tensor, sound: Sound, fps: int = FPS, tags: Mapping[str, str] | None = None
) -> None:
    """(F, 3, H, W) in 0..1 and their sound -> an MP4 file, read back.

    Raises:
        MediaError: the file does not hold what was written.
    """
    height, width = (length + length % 2 for length in frames.shape[-2:])
    with new_video(path, tags=tags) as container:
        pictures, track = PictureStream(container, width, height, fps), SoundStream(container, sound)
        for some in frames.split(_FRAMES_AT_ONCE):
            for picture in to_pixels(some):
                pictures.write(picture)
            track.advance(pictures.seconds)
        pictures.finish()
        track.finish()
    check_finished(path, len(frames), fps, sound=True)


def join_segments(
    segments: Sequence[Path],
    path: Path,
    sound: Sound | None,
    fps: int = FPS,
    *,
    kind: str = "mp4",
    tags: Mapping[str, str] | None = None,
) -> int:
    """Clips in order, and the sound as long as they are, in one file, read back. The number of pictures.

    Raises:
        MediaError: the file does not hold what was written.
    """
    filled, count = [segment for segment in segments if segment.stat().st_size], 0
    with new_video(path, kind, tags) as container, open_video(filled[0]) as first:
        video = add_copy(container, first.streams.video[0])
        exact = first.streams.video[0].codec_context.name == "prores"
        track = None if sound is None else SoundStream(container, sound, exact=exact)
        for segment in filled:
            for packet in _packets(segment):
                packet.time_base, packet.stream = Fraction(1, fps), video
                packet.pts, packet.dts, packet.duration = count, count, 1
                container.mux(packet)
                count += 1
            if track is not None:
                track.advance(Fraction(count, fps))
        if track is not None:
            track.finish()
    check_finished(path, count, fps, sound=sound is not None)
    return count


def read_segments(segments: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """The pictures (H, W, 3) of clips in order, one in memory at a time; exact where they are PNG."""
    for segment in segments:
        if segment.stat().st_size:
            with open_video(segment) as source:
                yield from (frame.to_ndarray(format="rgb24") for frame in source.decode(video=0))


def _packets(segment: Path) -> Iterator[Any]:
    with open_video(segment) as source:
        for packet in source.demux(video=0):
            if packet.dts is not None:  # the end's empty packet
                yield packet
