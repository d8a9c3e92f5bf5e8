"""Generated frames back into the untouched picture they were cropped from: feathered, in its colours.

Colours are matched by one gain and offset per channel, found once from the first generated frame and kept
for the whole video: a correction per frame would flicker. Where the mask is 0 a frame is the picture, bit for
bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .face_crop import Crop

DEFAULT_FEATHER = 0.12  # of the crop's shorter side
MAX_FEATHER = 0.5
_GAINS = 0.8, 1.25  # a first frame that differs more than this was lit otherwise on purpose
_MIN_SPREAD = 1 / 255


@dataclass(frozen=True)
class ColourMatch:
    """``gain * value + offset`` for red, green and blue."""

    gain: tuple[float, ...] = (1.0, 1.0, 1.0)
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)

    @classmethod
    def between(cls, generated: Tensor, original: Tensor, weight: Tensor) -> ColourMatch:
        """Bring ``generated`` (3, H, W) to the weighted mean and spread of ``original``, per channel."""
        share = weight / weight.sum().clamp(min=1e-6)
        means, spreads = [], []
        for pixels in (generated.double(), original.double()):
            mean = (pixels * share).sum((1, 2))  # (3,)
            means.append(mean)
            spreads.append(((pixels - mean[:, None, None]).square() * share).sum((1, 2)).sqrt())
        gain = (spreads[1].clamp(min=_MIN_SPREAD) / spreads[0].clamp(min=_MIN_SPREAD)).clamp(*_GAINS)
        return cls(tuple(gain.tolist()), tuple((means[1] - gain * means[0]).tolist()))

    def apply(self, frame: Tensor) -> Tensor:
        """(3, H, W) -> the same in 0..1."""
        gain, offset = (frame.new_tensor(values)[:, None, None] for values in (self.gain, self.offset))
        return (frame * gain + offset).clamp(0, 1)


def feather_mask(crop: Crop, feather: float = DEFAULT_FEATHER) -> Tensor:
    """(H, W) of the crop's part inside the picture: 1 in the middle, 0 along the crop's edge.

    An edge that lies on the picture's own border has nothing to blend into and stays 1.
    """
    if not 0 <= feather <= MAX_FEATHER:
        raise ValueError(f"expected a feather of 0 to {MAX_FEATHER} but got {feather} (feather). Use 0.12.")
    width = max(1.0, feather * min(crop.width, crop.height))
    left, top, right, bottom = crop.inside
    across = _ramp(left, right, crop.left, crop.left + crop.width, crop.picture_width, width)
    down = _ramp(top, bottom, crop.top, crop.top + crop.height, crop.picture_height, width)
    return down[:, None] * across[None, :]


class Paster:
    """Puts frames of any size into a picture (3, H, W) in 0..1. The first frame it sees sets the colours."""

    def __init__(
        self,
        picture: Tensor,
        crop: Crop,
        *,
        feather: float = DEFAULT_FEATHER,
        match_colour: bool = True,
        colour: ColourMatch | None = None,
    ) -> None:
        expected = (3, crop.picture_height, crop.picture_width)
        if tuple(picture.shape) != expected:
            raise ValueError(
                f"expected the picture that was cropped, {crop.picture_width}x{crop.picture_height}, but got "
                f"{picture.shape[-1]}x{picture.shape[-2]} (original). Connect the portrait's own."
            )
        self.picture, self.crop = picture, crop
        self.mask = feather_mask(crop, feather)
        self.colour = colour if match_colour else ColourMatch()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole frames."""
        return self.crop.picture_width, self.crop.picture_height

    def paste(self, frame: Tensor) -> Tensor:
        """(3, h, w) in 0..1 -> (3, H, W)."""
        whole = self.picture.clone()
        left, top, right, bottom = self.crop.inside
        part = whole[:, top:bottom, left:right]
        generated = self._fitted(frame.to(part))
        if self.colour is None:
            self.colour = ColourMatch.between(generated, part, self.mask)
        # Not a lerp: where the mask is 0 the picture's own value has to come out, rounding included.
        part += self.mask * (self.colour.apply(generated) - part)
        return whole

    def stream(self, frames: Tensor) -> Iterator[Tensor]:
        """(F, 3, h, w) -> F times (1, 3, H, W), one whole frame in memory at a time."""
        for frame in frames:
            yield self.paste(frame)[None]

    def _fitted(self, frame: Tensor) -> Tensor:
        """The frame at the crop's size, and of it the part inside the picture."""
        crop = self.crop
        if frame.shape[-2:] != (crop.height, crop.width):
            frame = functional.interpolate(
                frame[None], (crop.height, crop.width), mode="bicubic", antialias=True, align_corners=False
            )[0]
        left, top, right, bottom = crop.inside
        return frame[:, top - crop.top : bottom - crop.top, left - crop.left : right - crop.left]


def picture_tensor(pixels: Tensor) -> Tensor:
    """(1, 3, H, W) in -1..1, as `images.to_pixels` gives it -> (3, H, W) in 0..1, exact in 8 bits."""
    return ((pixels[0] / 2 + 0.5) * 255).round() / 255


def _ramp(start: int, stop: int, low: int, high: int, limit: int, width: float) -> Tensor:
    """Smooth steps from 0 at the crop's edges (low, high) to 1, for the pixels start to stop."""
    centre = torch.arange(start, stop, dtype=torch.float32)
    ramp = torch.ones_like(centre)
    if low > 0:
        ramp = torch.minimum(ramp, (centre - low) / width)
    if high < limit:
        ramp = torch.minimum(ramp, (high - 1 - centre) / width)
    ramp = ramp.clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)
