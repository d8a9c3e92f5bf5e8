"""What two videos of the same noise differ in: numbers for a verdict, pictures for the eye."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 255
GAIN = 10
"""What a picture of the difference multiplies it by: a level of 255 is nothing that one could see."""


@dataclass(frozen=True)
class Difference:
    """In levels of 255: of all values, of the one that differs most, and the frame that differs most."""

    mean: float
    most: float
    frame: int


def measure(one: Tensor, other: Tensor) -> Difference:
    """Of two videos (F, H, W, 3) in 0..1, frame by frame. Raises ValueError unless they are of one size."""
    if one.shape != other.shape or one.ndim != 4 or not one.numel():
        raise ValueError(
            f"expected two videos of one size but got {_size(one)} and {_size(other)} (full, cached). "
            "Connect two samplers with the same portrait and voice."
        )
    found = [(float(each.mean()), float(each.max())) for each in _differences(one, other)]
    means, most = zip(*found, strict=True)
    return Difference(
        mean=LEVELS * sum(means) / len(means),
        most=LEVELS * max(most),
        frame=max(range(len(means)), key=means.__getitem__),
    )


def side_by_side(one: Tensor, other: Tensor) -> Tensor:
    """One, the other, and their difference times ``GAIN``: (F, H, 3 W, 3) in 0..1."""
    count, height, width, channels = one.shape
    panels = torch.empty(count, height, 3 * width, channels)
    panels[:, :, :width], panels[:, :, width : 2 * width] = one, other
    for panel, difference in zip(panels, _differences(one, other), strict=True):
        panel[:, 2 * width :] = (difference * GAIN).clamp(0, 1)
    return panels


def _differences(one: Tensor, other: Tensor) -> Iterator[Tensor]:
    return ((a.float() - b.float()).abs() for a, b in zip(one, other, strict=True))


def _size(video: Tensor) -> str:
    return "x".join(str(length) for length in video.shape)
