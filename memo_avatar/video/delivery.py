"""Generated clips -> the frames of the video: at its rate, pasted into the picture if asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ..timing import FPS, SAMPLE_RATE, frame_count
from .paste import Paster, Pasters
from .retime import check_rate, delivered_count, delivered_frames

MAX_H264_PIXELS = 4096 * 2304  # level 5.1, the highest that common players and phones decode


@dataclass(frozen=True)
class Delivery:
    """``generated`` frames at 30 a second become ``total`` frames at ``fps``."""

    generated: int
    total: int
    fps: int = FPS
    paster: Paster | Pasters | None = None
    codec: str = "h264"  # of the clips on the disk, one of `streams.CODECS`

    @classmethod
    def of_voice(
        cls,
        samples: int,
        fps: int = FPS,
        paster: Paster | Pasters | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
        generated: int | None = None,
    ) -> Delivery:
        """For a voice of so many samples: the video is as long, and never shorter. ``generated`` is the
        count of frames where the voice was resampled since, which may move it by one.
        """
        check_rate(fps)
        if generated is None:
            generated = frame_count(samples, FPS, sample_rate)
        total = generated if fps == FPS else frame_count(samples, fps, sample_rate)
        return cls(generated, max(total, delivered_count(generated - 1, fps)), fps, paster)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the delivered frames, where the generated ones are width × height."""
        return (width, height) if self.paster is None else self.paster.size

    def count(self, stop: int) -> int:
        """Delivered frames of the first ``stop`` generated ones."""
        return self.total if stop >= self.generated else delivered_count(stop, self.fps)

    def indices(self, start: int, count: int) -> list[int]:
        """Which of the generated frames start to start + count each delivered one shows, counted from 0."""
        stop = start + count
        total = self.total if stop == self.generated else None
        return [index - start for index in delivered_frames(start, stop, self.fps, total)]

    def frames(self, frames: Tensor, start: int) -> Iterator[Tensor]:
        """(F, 3, h, w), or (F, N, 3, h, w) of N faces, from generated frame ``start`` on -> (n, 3, H, W) in
        0..1; whole pictures singly.
        """
        indices = self.indices(start, len(frames))
        if self.paster is None:
            yield frames[indices]
            return
        shown, whole = -1, frames[:0]
        for index in indices:
            if index != shown:
                shown, whole = index, self.paster.paste(frames[index])[None]
            yield whole
