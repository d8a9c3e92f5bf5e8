"""The integers of a video: frames, clips, padding, and who conditions which past frame. Pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple

SAMPLE_RATE = 16_000
"""Samples per second that the audio encoder expects."""

MAX_SECONDS = 36_000
"""Ten hours, 2.3 GB at 16 kHz: what is longer is a mistake, or was made to exhaust."""

FPS = 30
"""Frames per second that MEMO was trained at; other rates are made by resampling its output."""


def frame_count(samples: int, fps: int = FPS, sample_rate: int = SAMPLE_RATE) -> int:
    """Frames of a voice: ceil(samples / sample_rate * fps), in integers."""
    return -(-samples * fps // sample_rate)


def padded_frame_count(frames: int, frames_per_clip: int) -> int:
    """``frames`` rounded up to whole clips."""
    return -(-frames // frames_per_clip) * frames_per_clip


class ClipSpan(NamedTuple):
    """Frames ``start`` to ``stop`` are generated; the first ``keep`` of them belong to the video."""

    index: int
    start: int
    stop: int
    keep: int


def clip_spans(frames: int, frames_per_clip: int) -> tuple[ClipSpan, ...]:
    """The clips of a video of ``frames`` frames; the last clip is generated whole and trimmed."""
    count = padded_frame_count(frames, frames_per_clip) // frames_per_clip
    starts = (index * frames_per_clip for index in range(count))
    return tuple(
        ClipSpan(index, start, start + frames_per_clip, min(frames_per_clip, frames - start))
        for index, start in enumerate(starts)
    )
