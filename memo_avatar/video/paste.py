"""Generated frames back into the untouched picture they were cropped from: feathered, in its colours.

Colours are matched by a coarse map of offsets, found once from the first generated frame and kept for the
whole video: a correction per frame would flicker, and one for the whole square would mend the skin and spoil
the sky beside it. Where the mask is 0 a frame is the picture, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..inputs import Crop

DEFAULT_FEATHER = 0.15  # of the crop's shorter side
MAX_FEATHER = 0.5
_CELLS = 6  # per side: larger than a mouth, so that a mouth's movement is no colour
_MOST = 0.12  # a first frame that differs more than this shows something else there
_ROUND = 3  # the mask's edge lies where |x|³ + |y|³ = 1: a square with round corners


@dataclass(frozen=True)
class ColourMatch:
    """What is added in each cell of a grid over the crop: ``offsets[channel][row][column]``."""

    offsets: Sequence[Sequence[Sequence[float]]]

    @classmethod
    def between(cls, generated: Tensor, original: Tensor) -> ColourMatch:
        """The difference of the cells' means, of two pictures (3, H, W) in 0..1."""
        difference = functional.adaptive_avg_pool2d((original - generated)[None], _CELLS)[0]
        return cls(difference.clamp(-_MOST, _MOST).tolist())

    def field(self, height: int, width: int) -> Tensor:
        """(3, height, width), smooth from cell to cell."""
        cells = torch.tensor(self.offsets, dtype=torch.float32)
        return functional.interpolate(cells[None], (height, width), mode="bicubic", align_corners=False)[0]


def feather_mask(crop: Crop, feather: float = DEFAULT_FEATHER) -> Tensor:
    """(H, W) of the crop's part inside the picture: 1 in the middle, 0 along the edge and round corners.

    An edge that lies on the picture's own border has nothing to blend into and stays 1.
    """
    if not 0 <= feather <= MAX_FEATHER:
        raise ValueError(
            f"expected a feather of 0 to {MAX_FEATHER} but got {feather:g} (feather). Use {DEFAULT_FEATHER}."
        )
    left, top, right, bottom = crop.inside
    across = _distance(left, right, crop.left, crop.width, crop.picture_width)
    down = _distance(top, bottom, crop.top, crop.height, crop.picture_height)
    radius = (across[None, :] ** _ROUND + down[:, None] ** _ROUND) ** (1 / _ROUND)
    mask = ((1 - radius) / max(2 * feather, 1e-3)).clamp(0, 1)
    return mask * mask * (3 - 2 * mask)


class Paster:
    """Puts frames of any size into a picture (3, H, W) in 0..1, or into the frames of a video of its size.

    The first frame it sees sets the colours.
    """

    def __init__(
        self,
        picture: Tensor,
        crop: Crop,
        *,
        feather: float = DEFAULT_FEATHER,
        match_colour: bool = True,
        colour: ColourMatch | None = None,
    ) -> None:
        self.picture, self.crop = picture, crop
        self._check(picture)
        self.mask = feather_mask(crop, feather)
        self.match_colour, self.colour = match_colour, colour
        self._field: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole frames."""
        return self.crop.picture_width, self.crop.picture_height

    @property
    def content(self) -> tuple[Tensor, Crop, Tensor, bool]:
        """For the key of a job (`Keyed`)."""
        return self.picture, self.crop, self.mask, self.match_colour

    @property
    def colours(self) -> list[ColourMatch]:
        """What is to be kept of a video that will be gone on with; nothing before the first frame."""
        return [] if self.colour is None else [self.colour]

    def take_colours(self, colours: Sequence[ColourMatch]) -> None:
        """Paste as the first part of the video was."""
        (self.colour,) = colours

    def paste(self, frame: Tensor, onto: Tensor | None = None) -> Tensor:
        """(3, h, w) in 0..1 -> (3, H, W): into the picture, or ``onto`` a frame where another face moves."""
        if onto is not None:
            self._check(onto)
        whole = (self.picture if onto is None else onto).clone()
        left, top, right, bottom = self.crop.inside
        part = whole[:, top:bottom, left:right]
        generated = self._fitted(frame.to(part))
        if self.match_colour:
            generated = generated + self._colours(generated, part)
        # Not a lerp: where the mask is 0 the picture's own value has to come out, rounding included.
        part += self.mask * (generated.clamp(0, 1) - part)
        return whole

    def _check(self, picture: Tensor) -> None:
        crop = self.crop
        if tuple(picture.shape) != (3, crop.picture_height, crop.picture_width):
            raise ValueError(
                f"expected the picture that was cropped, {crop.picture_width}x{crop.picture_height}, but got "
                f"{picture.shape[-1]}x{picture.shape[-2]} (original). Connect to original the picture that "
                "MEMO Portrait was given, or one of its size."
            )

    def stream(self, frames: Tensor) -> Iterator[Tensor]:
        """(F, 3, h, w) -> F times (1, 3, H, W), one whole frame in memory at a time."""
        for frame in frames:
            yield self.paste(frame)[None]

    def _colours(self, generated: Tensor, part: Tensor) -> Tensor:
        """The offsets at the part's size, found when the first frame comes."""
        if self.colour is None:
            self.colour = ColourMatch.between(generated, part)
        if self._field is None:
            self._field = self.colour.field(*part.shape[-2:])
        return self._field

    def _fitted(self, frame: Tensor) -> Tensor:
        """The frame at the crop's size, and of it the part inside the picture."""
        crop = self.crop
        if frame.shape[-2:] != (crop.height, crop.width):
            frame = functional.interpolate(
                frame[None], (crop.height, crop.width), mode="bicubic", antialias=True, align_corners=False
            )[0]
        left, top, right, bottom = crop.inside
        return frame[:, top - crop.top : bottom - crop.top, left - crop.left : right - crop.left]


class Pasters:
    """Several faces of one picture, each pasted by its own `Paster`, the later ones over the earlier."""

    def __init__(self, pasters: Sequence[Paster]) -> None:
        self.pasters = tuple(pasters)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole frames."""
        return self.pasters[0].size

    @property
    def colours(self) -> list[ColourMatch]:
        """Those of each; nothing before the first frame."""
        return [colour for paster in self.pasters for colour in paster.colours]

    def take_colours(self, colours: Sequence[ColourMatch]) -> None:
        """Paste as the first part of the video was."""
        for paster, colour in zip(self.pasters, colours, strict=True):
            paster.take_colours([colour])

    def paste(self, frames: Tensor) -> Tensor:
        """(N, 3, h, w) in 0..1, a frame of every face -> (3, H, W)."""
        whole = None
        for paster, frame in zip(self.pasters, frames, strict=True):
            whole = paster.paste(frame, whole)
        assert whole is not None
        return whole


def picture_tensor(pixels: Tensor) -> Tensor:
    """(1, 3, H, W) in -1..1, as `images.to_pixels` gives it -> (3, H, W) in 0..1, exact in 8 bits."""
    return ((pixels[0] / 2 + 0.5) * 255).round() / 255


def _distance(start: int, stop: int, low: int, length: int, limit: int) -> Tensor:
    """For pixels start to stop: 0 in the crop's middle, 1 on its edges; 0 towards the picture's border."""
    half = (length - 1) / 2
    place = (torch.arange(start, stop, dtype=torch.float32) - low - half) / half
    if low <= 0:
        place = place.clamp(min=0)
    if low + length >= limit:
        place = place.clamp(max=0)
    return place.abs().clamp(max=1)
