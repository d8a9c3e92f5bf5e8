"""How far a video has drifted, clip by clip: measured while it is made, told in a sentence.

A decoration of the run: whatever fails here is logged, and the video goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from .drift import Appearance, appearance, ratio
from .values import Clip

Likeness = Callable[[Tensor], float | None]
"""``likeness(frame)``: (3, H, W) in 0..1 -> how alike its face is to the portrait's (1: the same), if any."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drift:
    """A clip against the first that was measured.

    ``colour`` is the largest change of a channel's middle (0..1), ``contrast`` (the colours' spread) and
    ``sharpness`` are ratios: 1 is as in the first. ``likeness`` is that of the face to the portrait's, where
    it is known.
    """

    clip_index: int
    colour: float
    contrast: float
    sharpness: float
    likeness: float | None = None


class DriftMeter:
    """Watches a video's clips. The first one it sees is what the others are held against."""

    def __init__(self, likeness: Likeness | None = None) -> None:
        self.curve: list[Drift] = []
        self._first: Appearance | None = None
        self._likeness = likeness

    def watch(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        """The same clips, each measured on its way."""
        for clip in clips:
            self.add(clip.index, clip.frames)
            yield clip

    def add(self, clip_index: int, frames: Tensor) -> None:
        """A finished clip (F, 3, H, W) in 0..1; one without frames, or with NaN in them, says nothing."""
        try:
            drift = self._measure(clip_index, frames) if len(frames) else None
        except Exception as error:  # whatever it is: onnxruntime's errors share no class
            logger.warning("The drift of clip %d could not be measured: %s", clip_index + 1, error)
            return
        if drift is not None:
            self.curve.append(drift)

    def _measure(self, clip_index: int, frames: Tensor) -> Drift | None:
        seen = appearance(frames)
        if not all(map(math.isfinite, (*seen.colour, *seen.spread, seen.sharpness))):
            return None
        first = self._first = self._first or seen
        drift = Drift(
            clip_index,
            colour=max(abs(a - b) for a, b in zip(seen.colour, first.colour, strict=True)),
            contrast=ratio(sum(seen.spread), sum(first.spread)),
            sharpness=ratio(seen.sharpness, first.sharpness),
        )
        if self._likeness is None:
            return drift
        return replace(drift, likeness=self._likeness(frames[len(frames) // 2]))


def drift_sentence(curve: Sequence[Drift]) -> str:
    """For people: how the last clip compares with the first. Empty where there is nothing to compare."""
    if len(curve) < 2:
        return ""
    first, last = curve[0], curve[-1]
    made_now = " made now" if first.clip_index else ""
    text = (
        f"Drift of the face, the last clip against the first{made_now}: "
        f"sharpness {100 * last.sharpness:.0f} %, contrast {100 * last.contrast:.0f} %, "
        f"colour off by {255 * last.colour:.0f} of 255"
    )
    if first.likeness is not None and last.likeness is not None:
        text += f", likeness to the portrait {last.likeness:.2f} after {first.likeness:.2f}"
    return f"{text}."
