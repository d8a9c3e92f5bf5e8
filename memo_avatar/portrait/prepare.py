"""From an upright picture to what the model sees: cropped, letterboxed, or cut out around the face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..files.foreign import shown
from ..inputs import Crop, Portrait
from .face_crop import DEFAULT_MARGIN, FloatBox, centre_crop, cut, in_picture, plan_crop, write_box
from .faces import FaceMode, Identity, identify
from .images import MIN_SIDE, ImageError, check_size, crop_to_fill, letterbox, resize, to_pixels

Framing = Literal["crop", "letterbox", "face"]
FRAMINGS: tuple[Framing, ...] = get_args(Framing)
NO_BOX = (
    "Give the face box to choose another place: nobody said where the face is, and the middle of the picture "
    "was taken."
)
SMALL_FACE = (
    "Use a larger picture: the face is only {} pixels wide here and {} in the video, so it will look soft."
)
_FRACTION = 0.5  # of a pixel, by which a detector may see a face end beyond the picture
BEYOND = "Check where the face is: {} reaches beyond the {}x{} picture, and {} was taken."
PHOTO = (
    "Use a drawn face like the bundled ones: this small checkpoint knows no others, and a photo comes out "
    "smeared. Photos need MEMO's own weights."
)
OTHER_SIZE = "Use about {0}x{0}: the checkpoint was trained at that size, and {1}x{2} may come out smeared."
_FLAT = 0.85  # of neighbours that are equal: drawn faces are above, photos below
_SAMPLE = 1024  # pixels along each side that are looked at


@dataclass(frozen=True)
class FaceOptions:
    """How the face is found. ``box`` and ``embedding`` replace what detection would say; ``learned``: whether
    the checkpoint knows embeddings, without which only a missing box is looked for.
    """

    mode: FaceMode = "auto"
    index: int = 0
    folders: Sequence[Path] = ()
    box: FloatBox | None = None
    embedding: Tensor | None = None
    margin: float = DEFAULT_MARGIN
    learned: bool = True


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
    if fit not in FRAMINGS:
        raise ImageError(f"expected one of {', '.join(FRAMINGS)} but got {shown(fit)} (fit). Use crop.")
    found = _identity(image, fit, face, width)
    notes = [found.note] if found.note and face.learned else []
    if fit != "face":
        fitted = crop_to_fill(image, *size) if fit == "crop" else letterbox(image, *size)
        return Portrait(to_pixels(fitted), found.embedding), notes
    crop, told = _crop(image, size, face, found.box)
    pixels = to_pixels(resize(cut(image, crop), *size))
    return Portrait(pixels, found.embedding, crop), [*notes, *told]


def _crop(
    image: Image.Image, size: tuple[int, int], face: FaceOptions, found: FloatBox | None
) -> tuple[Crop, list[str]]:
    """What is cut out around the face that was given, else ``found``; and what the user should know."""
    box = face.box or found
    if box is None:
        return centre_crop(image.size, size), [NO_BOX]
    crop, notes = plan_crop(box, image.size, size, face.margin), list[str]()
    taken = in_picture(box, image.size)
    if face.box is not None and max(abs(a - b) for a, b in zip(box, taken, strict=True)) > _FRACTION:
        notes.append(BEYOND.format(write_box(box), *image.size, write_box(taken)))
    if crop.width * 4 < size[0]:
        notes.append(SMALL_FACE.format(crop.width // 2, size[0] // 2))
    return crop, notes


def advise(image: Image.Image, size: tuple[int, int], own_size: int, photographs: bool) -> list[str]:
    """What a checkpoint makes badly: another size than it was trained at, a photo where it knows drawings."""
    notes = []
    if not photographs and not _is_drawn(image):
        notes.append(PHOTO)
    if min(size) * 2 < own_size or max(size) > own_size * 2:
        notes.append(OTHER_SIZE.format(own_size, *size))
    return notes


def _is_drawn(image: Image.Image) -> bool:
    """Whether most neighbouring pixels are of one colour, which a camera's never are."""
    left, top = max(0, image.width - _SAMPLE) // 2, max(0, image.height - _SAMPLE) // 2
    right, bottom = min(image.width, left + _SAMPLE), min(image.height, top + _SAMPLE)
    pixels = np.asarray(image.crop((left, top, right, bottom))).astype(np.int16)
    steps = np.abs(np.diff(pixels, axis=1)).max(axis=-1)
    return bool((steps <= 1).mean() > _FLAT)


def _identity(image: Image.Image, fit: Framing, face: FaceOptions, width: int) -> Identity:
    """Look only for what was not given."""
    nobody = torch.zeros(1, width)
    needs_box = fit == "face" and face.box is None
    needs_embedding = face.embedding is None and (face.learned or face.mode == "require")
    if not needs_box and not needs_embedding:
        return Identity(nobody if face.embedding is None else face.embedding)
    seen = identify(image, face.folders, mode=face.mode, index=face.index, near=face.box, width=width)
    return seen if face.embedding is None else Identity(face.embedding, seen.box)
