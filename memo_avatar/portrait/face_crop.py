"""Which part of a picture the model sees: a rectangle around a face, of the video's aspect. Integers only.

The face keeps a margin all around; near a border the rectangle moves inwards before it reaches beyond the
picture, and what lies beyond is filled by repeating the border's pixels.
"""

from __future__ import annotations

import math
import re

import numpy as np
from PIL import Image

from ..files.foreign import shown
from ..files.limits import MAX_BOX_TEXT
from ..inputs import Box, Crop
from .images import ImageError

FloatBox = tuple[float, float, float, float]  # left, top, right, bottom

DEFAULT_MARGIN = 0.5  # of the face's longer side on every side: the face fills half of the crop
MAX_MARGIN = 3.0
MIN_FACE = 16  # pixels
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,6}")
_MAX_SHIFT = 0.5  # of the margin: the face stays near the middle, where the model expects it


def parse_box(text: str) -> Box:
    """`left,top,right,bottom` in pixels."""
    parts = [part.strip() for part in text.split(",")] if len(text) <= MAX_BOX_TEXT else []
    advice = "Give left,top,right,bottom in pixels, such as 400,300,700,640."
    if len(parts) != 4 or not all(map(_WHOLE_NUMBER.fullmatch, parts)):
        raise ImageError(f"expected four whole numbers but got {shown(text)!r} (face box). {advice}")
    left, top, right, bottom = (int(part) for part in parts)
    if left >= right or top >= bottom:
        raise ImageError(f"expected left < right and top < bottom but got {text} (face box). {advice}")
    return left, top, right, bottom


def write_box(box: FloatBox) -> str:
    """`left,top,right,bottom` in whole pixels."""
    return shown(",".join(f"{value:.0f}" for value in box))


def check_margin(margin: float) -> None:
    """Margins that leave a face to be seen."""
    if not 0 <= margin <= MAX_MARGIN:
        raise ImageError(
            f"expected a margin of 0 to {MAX_MARGIN:g} but got {margin:g} (margin). "
            f"Use {DEFAULT_MARGIN:g}: the face then fills half of the crop."
        )


def in_picture(face: FloatBox, picture: tuple[int, int]) -> FloatBox:
    """What lies in the (width, height) picture of the box around a face, which a user may draw beyond it."""
    left, top = max(0.0, face[0]), max(0.0, face[1])
    right, bottom = min(float(picture[0]), face[2]), min(float(picture[1]), face[3])
    if not (right - left >= MIN_FACE and bottom - top >= MIN_FACE):
        raise ImageError(
            f"expected a face of at least {MIN_FACE}x{MIN_FACE} pixels inside the {picture[0]}x{picture[1]} "
            f"picture but got {write_box(face)} (face box). Give left,top,right,bottom in pixels of the "
            "upright picture."
        )
    return left, top, right, bottom


def plan_crop(
    face: FloatBox, picture: tuple[int, int], size: tuple[int, int], margin: float = DEFAULT_MARGIN
) -> Crop:
    """The crop of a (width, height) picture around a face, in the aspect of the (width, height) video."""
    check_margin(margin)
    left, top, right, bottom = in_picture(face, picture)
    side = max(right - left, bottom - top)
    room = side * (1 + 2 * margin)
    scale = room / min(size)
    width, height = _even(size[0] * scale), _even(size[1] * scale)
    most = side * margin * _MAX_SHIFT
    return Crop(
        _place((left + right) / 2, width, picture[0], most),
        _place((top + bottom) / 2, height, picture[1], most),
        width,
        height,
        *picture,
    )


def centre_crop(picture: tuple[int, int], size: tuple[int, int]) -> Crop:
    """The largest crop of the video's aspect in the middle of the picture."""
    scale = min(picture[0] / size[0], picture[1] / size[1])
    width, height = (max(2, math.floor(side * scale / 2) * 2) for side in size)
    left, top = (picture[0] - width) // 2 // 2 * 2, (picture[1] - height) // 2 // 2 * 2
    return Crop(left, top, width, height, *picture)


def cut(image: Image.Image, crop: Crop) -> Image.Image:
    """The crop's pixels; beyond the picture its border is repeated."""
    left, top, right, bottom = crop.box
    inside = crop.inside
    part = np.asarray(image.crop(inside))
    around = (
        (inside[1] - top, bottom - inside[3]),
        (inside[0] - left, right - inside[2]),
        (0, 0),
    )
    return Image.fromarray(np.pad(part, around, mode="edge"))


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def _place(centre: float, length: int, limit: int, most: float) -> int:
    """Where a span starts so that it lies inside 0..limit, moved by at most ``most`` from the centre."""
    start = centre - length / 2
    wanted = min(max(start, 0.0), float(limit - length)) if length <= limit else (limit - length) / 2
    moved = start + min(max(wanted - start, -most), most)
    return 2 * round(moved / 2)
