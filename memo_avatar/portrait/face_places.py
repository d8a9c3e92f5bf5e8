"""Where another node says that the face is: painted in a mask, or found by a detector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..files.foreign import in_words
from .face_crop import FloatBox
from .images import ImageError

_SIDES = ("x", "y", "width", "height")


def mask_box(value: Any, picture: tuple[int, int]) -> FloatBox | None:
    """Around what is painted in a mask of any size, in pixels of the (width, height) picture; None for none.

    (H, W), and the first of (B, H, W) and (B, 1, H, W), of floats in 0..1, bytes or truth values.
    """
    try:
        mask = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        mask = torch.zeros(())
    while mask.ndim > 2 and len(mask) and (mask.ndim == 3 or mask.shape[1] == 1):
        mask = mask[0]
    if mask.ndim != 2 or not mask.numel() or mask.is_complex():
        raise ImageError(
            f"expected a mask of shape (1, height, width) but got {in_words(value)} (face mask). "
            "Paint the face in the mask editor of Load Image."
        )
    painted = mask > (0 if mask.dtype in (torch.bool, torch.uint8) else 0.5)
    rows, columns = torch.nonzero(painted, as_tuple=True)
    if not len(rows):
        return None
    across, down = picture[0] / mask.shape[1], picture[1] / mask.shape[0]
    left, right = float(columns.min()) * across, float(columns.max() + 1) * across
    return left, float(rows.min()) * down, right, float(rows.max() + 1) * down


def listed_box(value: Any, index: int = 0) -> FloatBox | None:
    """Face number ``index``, counted from the largest, of a detector's boxes; None where it found none.

    BOUNDING_BOX of the host: a box (x, y, width and height in pixels), a list of them, or a list of such
    lists, one for each picture, of which the first counts.
    """
    boxes = [value] if isinstance(value, Mapping) else value
    if isinstance(boxes, list | tuple) and boxes and isinstance(boxes[0], list | tuple):
        boxes = boxes[0]
    if not isinstance(boxes, list | tuple):
        raise _no_boxes(value)
    found = sorted((_corners(box) for box in boxes), key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))
    if not found:
        return None
    if not 0 <= index < len(found):
        raise ImageError(
            f"expected a face number from 0 to {len(found) - 1} but got {index} (face index). "
            "0 is the largest."
        )
    return found[index]


def _corners(box: Any) -> FloatBox:
    """Left, top, right, bottom."""
    try:
        x, y, width, height = (float(box[side]) for side in _SIDES)
    except (TypeError, KeyError, ValueError) as error:
        raise _no_boxes(box) from error
    if not all(map(math.isfinite, (x, y, width, height))):
        raise _no_boxes(box)
    return x, y, x + max(0.0, width), y + max(0.0, height)


def _no_boxes(value: Any) -> ImageError:
    got = in_words(value).replace("a box", "a box without numbers")
    return ImageError(
        f"expected boxes of faces, with x, y, width and height, but got {got} (face boxes). "
        "Connect the boxes of a face detector."
    )
