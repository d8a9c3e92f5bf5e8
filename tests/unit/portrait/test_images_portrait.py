"""Pictures of every kind become MEMO's pixels or a clear message."""

from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from memo_avatar.portrait.images import NEUTRAL, ImageError, open_image
from memo_avatar.portrait.prepare import Framing, prepare_portrait

GREY = ((torch.tensor(NEUTRAL) / 255 - 0.5) / 0.5).view(3, 1, 1)


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, blue is constant."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 60)], -1).round().astype(np.uint8))


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels_of(path: Path, width: int, height: int, fit: Framing = "crop") -> torch.Tensor:
    """(1, 3, height, width) as both front doors read a file."""
    portrait, notes = prepare_portrait(open_image(path), (width, height), fit)
    assert notes == [] and portrait.crop is None
    return portrait.pixel_values


def test_square_picture_gives_upstreams_numbers(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8))
    pixels = pixels_of(save(image, tmp_path / "a.png"), 64, 64)
    # transforms.Resize on PIL, ToTensor, Normalize([0.5], [0.5])
    resized = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR))
    expected = torch.from_numpy(resized.copy()).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
    assert pixels.shape == (1, 3, 64, 64)
    assert torch.equal(pixels[0], expected)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (64, 120)], ids=["square", "wide", "tall"])
@pytest.mark.parametrize("source", [(200, 200), (400, 100), (90, 300)], ids=["square", "wide", "tall"])
def test_crop_never_squashes(tmp_path: Path, width: int, height: int, source: tuple[int, int]) -> None:
    picture = Image.new("RGB", source, (0, 0, 0))
    side = min(source) // 2
    left, top = (source[0] - side) // 2, (source[1] - side) // 2
    picture.paste((255, 255, 255), (left, top, left + side, top + side))  # a square stays a square
    pixels = pixels_of(save(picture, tmp_path / "a.png"), width, height)
    assert pixels.shape == (1, 3, height, width)
    bright = pixels[0, 0] > 0
    assert abs(bright.any(0).sum() - bright.any(1).sum()) <= 1


def test_letterbox_keeps_the_whole_picture(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (200, 100), (255, 0, 0)), tmp_path / "a.png")
    pixels = pixels_of(path, 64, 64, "letterbox")
    assert torch.allclose(pixels[0, :, :16], GREY)
    assert torch.allclose(pixels[0, :, 48:], GREY)
    assert torch.equal(pixels[0, :, 16:48], torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1).expand(3, 32, 64))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = gradient(64, 64)
    turns = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if turns is None else upright.transpose(turns)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(stored, tmp_path / "a.png", exif=exif)
    assert torch.equal(pixels_of(path, 64, 64), pixels_of(save(upright, tmp_path / "b.png"), 64, 64))


def test_transparency_is_put_over_grey(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    picture.paste((0, 255, 0, 255), (0, 0, 64, 32))
    pixels = pixels_of(save(picture, tmp_path / "a.png"), 64, 64)
    assert torch.equal(pixels[0, :, 0, 0], torch.tensor([-1.0, 1.0, -1.0]))
    assert torch.equal(pixels[0, :, 63:, 63:], GREY)
    palette = Image.new("P", (64, 64), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    pixels = pixels_of(save(palette, tmp_path / "b.png", transparency=0), 64, 64)
    assert torch.allclose(pixels, GREY)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "YCbCr", "LA", "I;16", "I", "F"])
def test_every_pixel_format_gives_the_same_grey(tmp_path: Path, mode: str) -> None:
    value = 255 if mode == "1" else 102  # in the palette too
    grey = np.full((64, 64), value, np.uint8)
    deep = {
        "I;16": (grey.astype(np.uint16) * 257),
        "I": grey.astype(np.int32) * 257,
        "F": grey.astype(np.float32),
    }
    picture = (
        Image.fromarray(deep[mode]) if mode in deep else Image.fromarray(grey).convert("RGB").convert(mode)
    )
    path = tmp_path / ("a.png" if mode in ("L", "P", "1", "LA", "I;16") else "a.tiff")
    save(picture, path, **({"compression": "tiff_lzw"} if mode == "YCbCr" else {}))
    pixels = pixels_of(path, 64, 64)
    assert pixels.shape == (1, 3, 64, 64)
    assert torch.allclose(pixels, torch.tensor((value / 255 - 0.5) / 0.5), atol=0.02)


def test_ycbcr_without_compression_is_read_or_refused(tmp_path: Path) -> None:
    """Pillow before 13 takes such a TIFF for truncated; saved again by what reads it, it works."""
    path = save(Image.new("YCbCr", (64, 64), (102, 128, 128)), tmp_path / "a.tiff")
    if int(PIL.__version__.split(".")[0]) < 13:
        with pytest.raises(ImageError, match=r"a whole picture but got .* Save or download it again\."):
            pixels_of(path, 64, 64)
    else:
        assert torch.allclose(pixels_of(path, 64, 64), torch.tensor((102 / 255 - 0.5) / 0.5), atol=0.02)


@pytest.mark.parametrize(
    ("size", "message"),
    [((1, 1), "at least 32x32 pixels but got 1x1"), ((10_000, 4), "at least 32x32 pixels but got 10000x4")],
)
def test_pictures_too_small_for_a_face(tmp_path: Path, size: tuple[int, int], message: str) -> None:
    path = save(Image.new("RGB", size), tmp_path / "a.png")
    with pytest.raises(ImageError, match=message):
        pixels_of(path, 64, 64)


def test_a_10000_pixel_picture_works(tmp_path: Path) -> None:
    path = save(Image.new("L", (10_000, 2_000), 200), tmp_path / "a.png", compress_level=1)
    assert torch.allclose(pixels_of(path, 64, 64), torch.tensor((200 / 255 - 0.5) / 0.5))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 20000 20000 255\n")
    with pytest.raises(
        ImageError, match=r"expected a picture of at most 178 million pixels but got a larger one"
    ):
        pixels_of(path, 64, 64)


def test_nan_pixels_are_refused(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.full((64, 64), np.nan, np.float32)), tmp_path / "a.tiff")
    with pytest.raises(ImageError, match="expected finite pixel values but got NaN"):
        pixels_of(path, 64, 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a picture but got a file of another kind"),
        (b"this is no picture\n" * 50, "expected a picture but got a file of another kind"),
        (None, "expected a picture file but got no such file"),
    ],
    ids=["empty", "text", "missing"],
)
def test_files_that_are_no_pictures(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        pixels_of(path, 64, 64)
    assert str(path) in str(caught.value)


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    path = save(gradient(256, 256), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:2_000])
    with pytest.raises(ImageError, match="expected a whole picture but got"):
        pixels_of(path, 64, 64)
    with pytest.raises(ImageError, match="expected a picture file but got a folder"):
        pixels_of(tmp_path, 64, 64)


@pytest.mark.parametrize(
    ("width", "height", "nearest"), [(500, 512, "504x512"), (0, 64, "8x64"), (64, -8, "64x8")]
)
def test_sizes_the_vae_cannot_take(width: int, height: int, nearest: str) -> None:
    with pytest.raises(
        ImageError, match=rf"divisible by 8 but got {width}x{height} \(size\)\. Use {nearest}\."
    ):
        prepare_portrait(gradient(64, 64), (width, height))
