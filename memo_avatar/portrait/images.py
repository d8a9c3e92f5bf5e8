"""A portrait file to MEMO's pixels: upright, opaque, 8-bit RGB, cropped or letterboxed, never squashed.

A square picture gives the numbers of upstream's `transforms.Resize`: Pillow's antialiased bilinear filter.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..files.disk import open_regular
from ..files.foreign import shown
from ..files.limits import (
    MAX_PICTURE_HEADER,
    MAX_PICTURE_READS,
    MAX_PIXELS,
    MAX_SCANS,
    MAX_WEBP_BYTES,
    MIN_TILE,
)

Fit = Literal["crop", "letterbox"]

SIZE_MULTIPLE = 8  # the VAE's
MAX_SIDE = 4096
MIN_SIDE = 32  # no face can be seen in less
FORMATS = ("PNG", "JPEG", "WebP", "BMP", "GIF", "TIFF", "PPM")  # no others: some of Pillow's start programs
_PROFILED = ("RGB", "RGBA", "L", "LA", "P", "CMYK")
_OPAQUE = {"RGBA": "RGB", "LA": "L"}
_KEEP_BLACK = 0x2000  # lcms's flag for black point compensation; Pillow 10.1 has no name for it
_SRGB_MISFIT = 2  # of 255
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF's tags
NEUTRAL = (128, 128, 128)  # behind transparency and around a letterboxed picture


class ImageError(ValueError):
    """A picture, size or box that can't be used. The text is the whole message."""


def check_size(width: int, height: int) -> None:
    """Sizes that the VAE can take, and a machine."""
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"expected a width and height up to {MAX_SIDE} but got {width}x{height} (size). Use the "
            "checkpoint's own, and enlarge the video afterwards."
        )
    if min(width, height) < SIZE_MULTIPLE or width % SIZE_MULTIPLE or height % SIZE_MULTIPLE:
        sides = (max(1, -(-side // SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in (width, height))
        raise ImageError(
            f"expected a width and height divisible by {SIZE_MULTIPLE} but got {width}x{height} (size). "
            f"Use {'x'.join(map(str, sides))}."
        )


def open_image(path: Path) -> Image.Image:
    """Decode, turn upright by EXIF, bring to sRGB, put transparency over grey, and make it 8-bit RGB."""
    if not path.is_file():
        actual = "a folder" if path.is_dir() else "no such file"
        raise ImageError(f"expected a picture file but got {actual} ({path}). Check the path.")
    try:
        with warnings.catch_warnings(), _BoundedFile(open_regular(path).detach()) as stream:
            # Between 89 and 178 million pixels Pillow only warns; that many are fine here. And what it warns
            # of in a damaged EXIF is nobody's concern.
            warnings.simplefilter("ignore")
            image = Image.open(stream, formats=[name.upper() for name in FORMATS])
            _check_pixels(image.width * image.height, path)  # from the header: nothing is decoded yet
            _check_tile(image, path)
            stream.is_header, stream.is_jpeg = False, image.format in ("JPEG", "MPO")
            return to_rgb(to_srgb(ImageOps.exif_transpose(image)), str(path))
    except Image.DecompressionBombError:
        _check_pixels(MAX_PIXELS + 1, path)
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"expected a picture but got a file of another kind ({path}). Use a "
            f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} file."
        ) from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # of a damaged file Pillow's decoders raise nearly everything
        raise ImageError(
            f"expected a whole picture but got {shown(str(error))} ({path}). Save or download it again."
        ) from error


class _BoundedFile(io.BufferedReader):
    """A picture's file as Pillow reads it: a header that does not end, and scans without number, are errors.

    ``is_header`` until the picture's size is known, ``is_jpeg`` once it is known to be one.
    """

    is_header, is_jpeg = True, False

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self._reads, self._bytes, self._scans, self._last = 0, 0, 0, b""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.is_header:
            is_all = size is None or size < 0
            most = MAX_WEBP_BYTES if is_all else MAX_PICTURE_HEADER - self._bytes
            data = super().read(most + 1 if is_all else min(size or 0, most + 1))
            self._reads, self._bytes = self._reads + 1, self._bytes + len(data)
            if self._reads > MAX_PICTURE_READS or len(data) > most:
                raise OSError(f"a header that does not end after {self._bytes} bytes")
            return data
        data = super().read(size)
        if self.is_jpeg:  # among compressed data this pair of bytes is nothing else
            self._scans += (self._last + data).count(b"\xff\xda")
            self._last = data[-1:]
            if self._scans > MAX_SCANS:
                raise OSError(f"more than {MAX_SCANS} scans")
        return data


def _check_pixels(pixels: int, path: Path) -> None:
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"expected a picture of at most {MAX_PIXELS // 1_000_000} million pixels but got a larger one "
            f"({path}). Scale it down first."
        )


def _check_tile(image: Image.Image, path: Path) -> None:
    """A TIFF's tiles are unpacked whole, however small the picture is."""
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)
    if width * height > max(MIN_TILE, 2 * image.width * image.height):
        raise ImageError(
            f"expected tiles of about the picture's {image.width}x{image.height} but got "
            f"{shown(width)}x{shown(height)} ({path}). Save the picture as PNG."
        )


def to_srgb(image: Image.Image) -> Image.Image:
    """A picture in the colours that its ICC profile names -> sRGB, upstream's and every player's.

    Without a profile, with one that can't be used, or one that is sRGB, the picture stays as it is.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in _PROFILED:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if profile[16:20] == b"RGB " and _is_srgb(source):
            return image
        if image.mode == "P":
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
        converted = _convert(image.convert(_OPAQUE.get(image.mode, image.mode)), source)
    except (ImageCms.PyCMSError, ImportError, OSError, ValueError, TypeError):
        return image
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _convert(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    """As browsers do: the same colours, and black stays black."""
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        image.mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=_KEEP_BLACK,  # pyright: ignore[reportArgumentType]  # a number in every Pillow
    )
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None, "only an in-place transform gives None"
    return converted


def _is_srgb(source: ImageCms.ImageCmsProfile) -> bool:
    """Judged by what it does to colours: there are many sRGB profiles, of many names."""
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    changed = np.asarray(_convert(Image.fromarray(colours), source)).astype(int)
    return bool(np.abs(changed - colours).max() <= _SRGB_MISFIT)


def to_rgb(image: Image.Image, where: str = "image") -> Image.Image:
    """Any pixel format -> 8-bit RGB: 16 bits scaled to 8, transparency over grey."""
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey_to_rgb(image, where)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGB", image.size, NEUTRAL)
        background.paste(rgba, mask=rgba.getchannel("A"))
        return background
    return image.convert("RGB")


def crop_to_fill(image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest centred part of the target's aspect, resized to the target."""
    scale = min(image.width / width, image.height / height)
    crop_width, crop_height = round(width * scale), round(height * scale)
    left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
    return resize(image.crop((left, top, left + crop_width, top + crop_height)), width, height)


def letterbox(image: Image.Image, width: int, height: int) -> Image.Image:
    """The whole picture, as large as fits, centred on grey."""
    scale = min(width / image.width, height / image.height)
    inner = resize(image, max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (width, height), NEUTRAL)
    canvas.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    return canvas


def to_pixels(image: Image.Image) -> Tensor:
    """8-bit RGB -> (1, 3, H, W) in -1..1."""
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = flat.view(1, image.height, image.width, 3).permute(0, 3, 1, 2)  # (1, H, W, 3) -> (1, 3, H, W)
    return (pixels.float() / 255 - 0.5) / 0.5


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Upstream's filter: Pillow's antialiased bilinear."""
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _deep_grey_to_rgb(image: Image.Image, where: str) -> Image.Image:
    """16-bit integer or floating-point grey -> 8-bit RGB. Floats may run 0..1 or 0..255."""

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
