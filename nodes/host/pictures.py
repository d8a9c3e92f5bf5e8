"""IMAGE values of the host as pictures."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...memo_avatar.files.foreign import in_words
from ...memo_avatar.portrait.images import NEUTRAL, ImageError


def opaque(image: Any) -> Tensor:
    """What may arrive as IMAGE -> (H, W, 3) in 0..1, transparency over grey.

    Taken as meant: (H, W, C) and the first of (B, H, W, C) of 1, 3 or 4 channels, on any device, as an array,
    of floats or bytes. Anything else is told in one line.
    """
    try:
        pixels = torch.as_tensor(image).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        pixels = torch.zeros(())
    if pixels.ndim == 4 and len(pixels):
        pixels = pixels[0]
    is_byte = pixels.dtype == torch.uint8
    if (
        pixels.ndim != 3
        or not pixels.numel()
        or pixels.layout != torch.strided
        or pixels.shape[-1] not in (1, 3, 4)
        or not (is_byte or pixels.is_floating_point())
    ):
        raise ImageError(
            f"expected an image of shape (1, height, width, 3) but got {in_words(image)} (image). "
            "Connect a picture, such as Load Image's."
        )
    picture = pixels.float() / 255 if is_byte else pixels.float()
    if not torch.isfinite(picture).all():
        raise ImageError(
            "expected finite pixel values but got NaN or infinity (image). Repair the picture first."
        )
    if picture.shape[-1] == 4:
        alpha = picture[..., 3:].clamp(0, 1)
        grey = torch.tensor(NEUTRAL) / 255
        return picture[..., :3] * alpha + grey * (1 - alpha)
    return picture.expand(*picture.shape[:2], 3)


def frames_of(images: Any, what: str) -> Tensor:
    """What may arrive as the frames of a video -> (B, H, W, 3) in 0..1; alpha is left out.

    Floats are not copied. Bytes are taken as meant, and anything else is told in one line.
    """
    shape = tuple(getattr(images, "shape", ()))
    if (
        not isinstance(images, Tensor)
        or images.layout != torch.strided
        or images.ndim != 4
        or images.shape[-1] not in (1, 3, 4)
        or not (images.dtype == torch.uint8 or images.is_floating_point())
        or not images.numel()
    ):
        raise ImageError(
            f"expected frames of shape (count, height, width, 3) but got {in_words(images)} ({what}). "
            "Connect the images of MEMO Sampler."
        )
    frames = images[..., :3].expand(*shape[:3], 3)
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def to_picture(picture: Tensor) -> Image.Image:
    """(H, W, 3) in 0..1 -> an 8-bit RGB picture."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).contiguous().numpy())
