"""What frames look like, and a guard that holds a long video to its portrait.

Each clip is conditioned on the decoded frames of the clip before, so a small loss of colour or sharpness is
the next clip's truth. The guard corrects the past frames, and only them, before they condition the next clip.
Upstream has no such thing: the guard leaves the published numbers.

Everything is measured in the middle half of the picture, where the face of a well-cut portrait is, and by
quartiles, which an opening mouth hardly moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)  # BT.709
QUARTILES = (0.25, 0.5, 0.75)
MOST_SAMPLES = 1 << 17  # of one channel: quantiles of so many are exact to 1 in 1000
MOST_GAIN = 1.25  # one clip's colours are stretched by no more than this
MOST_SHARPENING = 1.0  # weight of the unsharp mask
OPEN_EYES = 0.8  # a frame whose eyes show less than this share of the clip's contrast is a blink or a blur
_SMALLEST = 1e-4

GuardPast = Callable[[Tensor], Tensor]
"""``guard(past_frames)``: (P, 3, H, W) in 0..1 as generated -> as the next clip shall see them."""


@dataclass(frozen=True)
class Appearance:
    """What some frames look like.

    ``colour`` is the median and ``spread`` the distance of the quartiles of R, G and B in 0..1; ``sharpness``
    is the mean absolute Laplacian of the luma.
    """

    colour: tuple[float, float, float]
    spread: tuple[float, float, float]
    sharpness: float


def face_region(frames: Tensor) -> Tensor:
    """(F, 3, H, W) -> the middle half of each side, (F, 3, H/2, W/2)."""
    height, width = frames.shape[-2:]
    top, left = height // 4, width // 4
    return frames[..., top : height - top, left : width - left]


def appearance(frames: Tensor) -> Appearance:
    """Of frames (F, 3, H, W) in 0..1."""
    low, middle, high = _quartiles(face_region(frames))
    return Appearance(
        colour=_three(middle),
        spread=_three(high - low),
        sharpness=float(_laplacian(face_region(frames)).abs().mean()),
    )


def guard_past(portrait: Appearance) -> GuardPast:
    """A guard that holds past frames to the portrait's look and keeps blinks out of them."""

    def guard(past_frames: Tensor) -> Tensor:
        held = hold_colour(without_blinks(past_frames), portrait)
        return hold_sharpness(held, portrait.sharpness)

    return guard


def hold_colour(frames: Tensor, wanted: Appearance) -> Tensor:
    """Frames (F, 3, H, W) with one gain and offset per channel that make their quartiles the wanted ones."""
    seen = appearance(frames)
    scale = [
        min(max(ratio(want, got), 1 / MOST_GAIN), MOST_GAIN)
        for want, got in zip(wanted.spread, seen.spread, strict=True)
    ]
    gain, middle, target = (
        frames.new_tensor(values).view(1, 3, 1, 1) for values in (scale, seen.colour, wanted.colour)
    )
    return ((frames - middle) * gain + target).clamp(0, 1)


def hold_sharpness(frames: Tensor, wanted: float) -> Tensor:
    """Frames (F, 3, H, W) that have lost sharpness, sharpened up to the wanted one; others as they are.

    An unsharp mask of weight w adds w times the detail that a blur takes away, so to first order its mean
    Laplacian grows by w times that of the detail.
    """
    detail = frames - _blurred(frames)
    seen, gain = (float(_laplacian(face_region(part)).abs().mean()) for part in (frames, detail))
    if seen >= wanted or gain < _SMALLEST:
        return frames
    weight = min((wanted - seen) / gain, MOST_SHARPENING)
    return (frames + weight * detail).clamp(0, 1)


def without_blinks(frames: Tensor) -> Tensor:
    """Frames (F, 3, H, W) with open eyes only.

    Each blink or blur is replaced by the last open frame before it, or by the first after it.
    """
    contrast = eye_contrast(frames)
    is_open = contrast >= OPEN_EYES * contrast.median()
    chosen = torch.arange(len(frames))
    last = int(is_open.int().argmax())
    for index in range(len(frames)):
        last = index if is_open[index] else last
        chosen[index] = last
    return frames[chosen]


def eye_contrast(frames: Tensor) -> Tensor:
    """(F, 3, H, W) -> (F,), the luma's standard deviation where the eyes are: the band above the middle."""
    height, width = frames.shape[-2:]
    band = frames[..., round(0.34 * height) : round(0.5 * height), width // 4 : width - width // 4]
    return _luma(band).flatten(1).std(dim=1).cpu()


def _quartiles(frames: Tensor) -> Tensor:
    """(F, 3, H, W) -> (3 quartiles, 3 channels)."""
    values = frames.float().transpose(0, 1).flatten(1)  # (F, 3, H, W) -> (3, F*H*W)
    values = values[:, :: (values.shape[1] // MOST_SAMPLES) | 1]  # odd: no even width is met in one column
    return torch.quantile(values, values.new_tensor(QUARTILES), dim=1)


def _luma(frames: Tensor) -> Tensor:
    """(F, 3, H, W) -> (F, 1, H, W)."""
    return (frames.float() * frames.new_tensor(LUMA, dtype=torch.float32).view(1, 3, 1, 1)).sum(
        1, keepdim=True
    )


def _laplacian(frames: Tensor) -> Tensor:
    """Of the luma: (F, 3, H, W) -> (F, 1, H-2, W-2)."""
    luma = _luma(frames)
    middle = luma[..., 1:-1, 1:-1]
    around = luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1] + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]
    return around - 4 * middle


def _blurred(frames: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def ratio(a: float, b: float) -> float:
    """``a`` as a share of ``b``; 1 where there is nothing to compare with."""
    return a / b if b > _SMALLEST else 1.0


def _three(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue
