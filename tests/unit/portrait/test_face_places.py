"""All that may arrive on the sockets for a face's place: what can be meant is taken, the rest is one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from memo_avatar.portrait.face_places import listed_box, mask_box
from memo_avatar.portrait.images import ImageError

PICTURE = (200, 100)
PAINTED = torch.zeros(1, 50, 100)
PAINTED[:, 10:30, 20:60] = 1
AROUND = (40.0, 20.0, 120.0, 60.0)


def box(x: float, y: float, width: float, height: float, **more: Any) -> dict[str, Any]:
    return {"x": x, "y": y, "width": width, "height": height, **more}


SMALL, LARGE = box(150, 10, 20, 30, label="face", score=0.9), box(40, 20, 80, 40, label="face", score=0.6)


@pytest.mark.parametrize(
    "mask",
    [
        PAINTED,
        PAINTED[0],
        PAINTED[None],
        torch.cat([PAINTED, 1 - PAINTED]),
        PAINTED > 0,
        (PAINTED * 255).byte(),
        PAINTED.half(),
        PAINTED.clone().requires_grad_(),
        PAINTED.numpy(),
        torch.where(PAINTED > 0, 0.6, 0.4),
    ],
    ids=["host", "no batch", "channel", "batch", "bool", "bytes", "half", "gradient", "array", "soft"],
)
def test_masks_that_are_taken(mask: Any) -> None:
    assert mask_box(mask, PICTURE) == AROUND


def test_an_empty_mask_says_nothing() -> None:
    assert mask_box(torch.zeros(1, 64, 64), PICTURE) is None
    assert mask_box(torch.full((1, 8, 8), torch.nan), PICTURE) is None


@pytest.mark.parametrize(
    ("mask", "actual"),
    [
        (torch.zeros(1, 8, 8, 3), "a picture"),
        (None, "nothing"),
        ("mask.png", "a text"),
        ([[1.0], [1.0, 2.0]], "a list of 2"),
        (torch.zeros(0, 8, 8), r"numbers of shape \(0, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8), r"numbers of shape \(1, 3, 8, 8\)"),
        (torch.zeros(8), r"numbers of shape \(8,\)"),
        (torch.zeros(1, 8, 0), r"numbers of shape \(1, 8, 0\)"),
        (torch.zeros(1, 8, 8) + 0j, r"complex numbers of shape \(1, 8, 8\)"),
    ],
)
def test_masks_that_are_refused(mask: Any, actual: str) -> None:
    with pytest.raises(
        ImageError, match=rf"expected a mask of shape \(1, height, width\) but got {actual} \("
    ):
        mask_box(mask, PICTURE)


@pytest.mark.parametrize(
    "boxes",
    [
        LARGE,
        [LARGE],
        [SMALL, LARGE],
        [[SMALL, LARGE]],
        [[SMALL, LARGE], []],
        ([LARGE],),
        [{**LARGE, "x": np.float32(40)}],
    ],
    ids=["one", "a list", "two", "the host's", "two pictures", "tuples", "numpy"],
)
def test_boxes_of_a_detector(boxes: Any) -> None:
    assert listed_box(boxes) == AROUND


def test_the_second_face_and_none() -> None:
    assert listed_box([[SMALL, LARGE]], 1) == (150.0, 10.0, 170.0, 40.0)
    assert listed_box([[]]) is None and listed_box([]) is None
    with pytest.raises(ImageError, match="expected a face number from 0 to 1 but got 2"):
        listed_box([[SMALL, LARGE]], 2)


NO_BOXES: dict[str, tuple[Any, str]] = {
    "nothing": (None, "nothing"),
    "a number": (3, "a number"),
    "a text": ("0,0,9,9", "a text"),
    "numbers": ([(1, 2, 3, 4)], "a number"),
    "no sides": ([{"x": 1}], "a set of values"),
    "NaN": (box(0, 0, float("nan"), 9), "a box without numbers"),
    "no numbers": ([{**LARGE, "x": "left"}], "a box without numbers"),
    "nothing inside": ([None], "nothing"),
    "a mask": (torch.zeros(1, 8, 8), "a mask"),
}


@pytest.mark.parametrize("name", NO_BOXES)
def test_what_is_no_box_is_told(name: str) -> None:
    boxes, words = NO_BOXES[name]
    message = rf"expected boxes of faces, with x, y, width and height, but got {words} \("
    with pytest.raises(ImageError, match=message):
        listed_box(boxes)
