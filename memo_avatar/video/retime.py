"""Frames at MEMO's 30 a second -> frames at another rate, exact in time. Integers only.

Each delivered frame shows the generated frame that is on at the middle of its time: nearest in time, never
more than a 60th of a second off, and no error adds up. Frames are dropped or repeated and never blended:
a blend of two mouths is a ghost, and users who want in-between frames have interpolation nodes for it.
"""

from __future__ import annotations

from ..timing import FPS

RATES = (24, 25, 30, 50, 60)


def check_rate(fps: int) -> None:
    """Rates that a video can be delivered at."""
    if fps not in RATES:
        choices = ", ".join(map(str, RATES))
        raise ValueError(f"expected {choices} frames per second but got {fps} (fps). Choose one of these.")


def delivered_count(frames: int, fps: int) -> int:
    """Delivered frames of ``frames`` generated ones: as long to within half a delivered frame."""
    # Delivered frame k is on at (2k + 1) / (2 fps); those before frames / FPS count.
    return max(0, -((FPS - 2 * fps * frames) // (2 * FPS)))


def source_frame(index: int, fps: int) -> int:
    """The generated frame that delivered frame ``index`` shows."""
    return (2 * index + 1) * FPS // (2 * fps)


def delivered_frames(start: int, stop: int, fps: int, total: int | None = None) -> list[int]:
    """The generated frame of each delivered frame, in order, for the generated frames start to stop.

    Parts put one after another are the whole. ``total``, for the last part, is the exact number of delivered
    frames of the video (`clip_plan.frame_count` of the voice at this rate): the last frame stays on until
    then, so the voice is never cut.
    """
    end = delivered_count(stop, fps) if total is None else total
    return [min(source_frame(index, fps), stop - 1) for index in range(delivered_count(start, fps), end)]
