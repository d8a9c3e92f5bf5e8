"""A portrait file to MEMO's pixels: upright, opaque, 8-bit RGB, cropped or letterboxed, never squashed.

A square picture gives the numbers of upstream's `transforms.Resize`: Pillow's antialiased bilinear filter.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Fit = Literal["crop", "letterbox"]

SIZE_MULTIPLE = 8  # the VAE's
MIN_SIDE = 32  # no face can be seen in less
MAX_PIXELS = 178_000_000  # Pillow refuses larger ones as possible decompression bombs
NEUTRAL = (128, 128, 128)  # behind transparency and around a letterboxed picture


class ImageError(ValueError):
    """A picture, size or box that can't be used. The text is the whole message."""


def check_size(width: int, height: int) -> None:
    """Sizes that the VAE can take."""
    if min(width, height) < SIZE_MULTIPLE or width % SIZE_MULTIPLE or height % SIZE_MULTIPLE:
        sides = (max(1, -(-side // SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in (width, height))
        raise ImageError(
            f"expected a width and height divisible by {SIZE_MULTIPLE} but got {width}x{height} (size). "
            f"Use {'x'.join(map(str, sides))}."
        )


def open_image(path: Path) -> Image:
    """Decode, turn upright by EXIF, put transparency over grey, and bring any pixel format to 8-bit RGB."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.is_file():
        actual = "a folder" if path.is_dir() else "no such file"
        raise ImageError(f"expected a picture file but got {actual} ({path}). Check the path.")
    try:
        with warnings.catch_warnings():
            # Between 89 and 178 million pixels Pillow only warns; that many are fine here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = ImageOps.exif_transpose(Image.open(path))
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"expected a picture of at most {MAX_PIXELS // 1_000_000} million pixels but got a larger one "
            f"({path}). Scale it down first."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"expected a picture but got a file of another kind ({path}). Use a PNG, JPEG, WebP, BMP, GIF "
            "or TIFF file."
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise ImageError(
            f"expected a whole picture but got {error} ({path}). Save or download it again."
        ) from error
    return to_rgb(image, str(path))


def to_rgb(image: Image, where: str = "image") -> Image:
    """Any pixel format -> 8-bit RGB: 16 bits scaled to 8, transparency over grey."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey_to_rgb(image, where)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGB", image.size, NEUTRAL)
        background.paste(rgba, mask=rgba.getchannel("A"))
        return background
    return image.convert("RGB")


def crop_to_fill(image: Image, width: int, height: int) -> Image:
    """The largest centred part of the target's aspect, resized to the target."""
    scale = min(image.width / width, image.height / height)
    crop_width, crop_height = round(width * scale), round(height * scale)
    left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
    return resize(image.crop((left, top, left + crop_width, top + crop_height)), width, height)


def letterbox(image: Image, width: int, height: int) -> Image:
    """The whole picture, as large as fits, centred on grey."""
    from PIL import Image

    scale = min(width / image.width, height / image.height)
    inner = resize(image, max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (width, height), NEUTRAL)
    canvas.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    return canvas


def to_pixels(image: Image) -> Tensor:
    """8-bit RGB -> (1, 3, H, W) in -1..1."""
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = flat.view(1, image.height, image.width, 3).permute(0, 3, 1, 2)  # (1, H, W, 3) -> (1, 3, H, W)
    return (pixels.float() / 255 - 0.5) / 0.5


def resize(image: Image, width: int, height: int) -> Image:
    """Upstream's filter: Pillow's antialiased bilinear."""
    from PIL.Image import Resampling

    return image.resize((width, height), Resampling.BILINEAR)


def _deep_grey_to_rgb(image: Image, where: str) -> Image:
    """16-bit integer or floating-point grey -> 8-bit RGB. Floats may run 0..1 or 0..255."""
    import numpy as np
    from PIL import Image

    grey = np.asarray(image, dtype=np.float32)
    if not np.isfinite(grey).all():
        raise ImageError(
            f"expected finite pixel values but got NaN or infinity ({where}). Save the picture as PNG."
        )
    if image.mode == "F":
        scale = 255.0 if grey.max() <= 1.0 else 1.0
    else:
        scale = 1.0 if image.mode == "I" and grey.max() <= 255 else 1 / 257
    return Image.fromarray((grey * scale).round().clip(0, 255).astype(np.uint8), mode="L").convert("RGB")
