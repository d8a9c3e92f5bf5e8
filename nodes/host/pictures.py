"""IMAGE values of the host as pictures."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from ...memo_avatar.portrait.images import NEUTRAL, ImageError


def opaque(image: Tensor) -> Tensor:
    """The first picture of an IMAGE, (H, W, 1, 3 or 4) in 0..1 -> (H, W, 3); transparency over grey."""
    if image.ndim != 4 or image.shape[0] == 0 or image.shape[-1] not in (1, 3, 4):
        raise ImageError(
            f"expected an image of shape (1, height, width, 3) but got {tuple(image.shape)} (image). "
            "Connect a picture, such as Load Image's."
        )
    picture = image[0].cpu().float()
    if not torch.isfinite(picture).all():
        raise ImageError(
            "expected finite pixel values but got NaN or infinity (image). Repair the picture first."
        )
    if picture.shape[-1] == 4:
        alpha = picture[..., 3:].clamp(0, 1)
        grey = torch.tensor(NEUTRAL) / 255
        return picture[..., :3] * alpha + grey * (1 - alpha)
    return picture.expand(*picture.shape[:2], 3)


def to_picture(picture: Tensor) -> Image.Image:
    """(H, W, 3) in 0..1 -> an 8-bit RGB picture."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).contiguous().numpy())
