"""From an upright picture to what the model sees: cropped, letterboxed, or cut out around the face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor

from ..inputs import Portrait
from .face_crop import DEFAULT_MARGIN, FloatBox, centre_crop, cut, plan_crop
from .faces import FaceMode, Identity, identify
from .images import MIN_SIDE, ImageError, check_size, crop_to_fill, letterbox, resize, to_pixels

Framing = Literal["crop", "letterbox", "face"]
FRAMINGS: tuple[Framing, ...] = get_args(Framing)
NO_BOX = (
    "Nobody said where the face is and none was detected: the middle of the picture was taken. "
    "Give the face box to choose another place."
)
SMALL_FACE = "The face is only {} pixels wide here and {} in the video: the pasted face will look soft."


@dataclass(frozen=True)
class FaceOptions:
    """How the face is found. ``box`` and ``embedding`` replace what detection would say."""

    mode: FaceMode = "auto"
    index: int = 0
    folders: Sequence[Path] = ()
    box: FloatBox | None = None
    embedding: Tensor | None = None
    margin: float = DEFAULT_MARGIN


def prepare_portrait(
    image: Image.Image,
    size: tuple[int, int],
    fit: Framing = "crop",
    face: FaceOptions | None = None,
    width: int = 512,
    where: str = "image",
) -> tuple[Portrait, list[str]]:
    """An upright RGB picture at the (width, height) of the video, and what the user should know.

    ``width`` is the face embedding's. The portrait's ``picture`` is left to who wants to paste into it.
    """
    face = face or FaceOptions(mode="none")
    check_size(*size)
    if min(image.size) < MIN_SIDE:
        raise ImageError(
            f"expected a picture of at least {MIN_SIDE}x{MIN_SIDE} pixels "
            f"but got {image.width}x{image.height} ({where}). Use a larger portrait."
        )
    found = _identity(image, fit, face, width)
    notes = [found.note] if found.note else []
    if fit != "face":
        fitted = crop_to_fill(image, *size) if fit == "crop" else letterbox(image, *size)
        return Portrait(to_pixels(fitted), found.embedding), notes
    box = face.box or found.box
    if box is None:
        crop = centre_crop(image.size, size)
        notes.append(NO_BOX)
    else:
        crop = plan_crop(box, image.size, size, face.margin)
        if crop.width * 4 < size[0]:
            notes.append(SMALL_FACE.format(crop.width // 2, size[0] // 2))
    pixels = to_pixels(resize(cut(image, crop), *size))
    return Portrait(pixels, found.embedding, crop), notes


def _identity(image: Image.Image, fit: Framing, face: FaceOptions, width: int) -> Identity:
    """Look only for what was not given."""
    if face.embedding is None:
        return identify(image, face.folders, mode=face.mode, index=face.index, width=width)
    if fit != "face" or face.box is not None:
        return Identity(face.embedding)
    seen = identify(image, face.folders, mode=face.mode, index=face.index, width=width)
    return Identity(face.embedding, seen.box)


def mask_box(mask: Tensor, picture: tuple[int, int]) -> FloatBox | None:
    """Around what is painted in a mask (H, W) of any size, in pixels of the (width, height) picture."""
    rows, columns = (torch.nonzero(mask > 0.5, as_tuple=True)[axis] for axis in (0, 1))
    if not len(rows):
        return None
    across, down = picture[0] / mask.shape[1], picture[1] / mask.shape[0]
    left, right = float(columns.min()) * across, float(columns.max() + 1) * across
    return left, float(rows.min()) * down, right, float(rows.max() + 1) * down
