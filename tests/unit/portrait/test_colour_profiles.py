"""Pictures in other colours than sRGB come out as every viewer shows them; sRGB ones are not touched."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from memo_avatar.portrait.images import FORMATS, ImageError, open_image, to_rgb

COLOUR = (200, 90, 80)
# Columns of red, green and blue in XYZ, adapted to D50, as the profiles themselves give them.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65_536))


def profile(columns: tuple[tuple[float, ...], ...], space: bytes = b"RGB ") -> bytes:
    """An ICC profile of version 2: three colours and a gamma of 2.2, or grey with that gamma."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(2.2 * 256)) + bytes(2)
    xyz = [b"XYZ " + bytes(4) + b"".join(map(fixed, column)) for column in columns]
    white = b"XYZ " + bytes(4) + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": text, b"wtpt": white, b"cprt": b"text" + bytes(4) + b"none\0"}
    if space == b"RGB ":
        tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
        tags |= {name + b"XYZ": data for name, data in zip((b"r", b"g", b"b"), xyz, strict=True)}
    else:
        tags[b"kTRC"] = curve
    table, data, at = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(data), len(content))
        data += content
    head = bytearray(128)
    head[8:12], head[12:24] = b"\x02\x10\0\0", b"mntr" + space + b"XYZ "
    head[36:40], head[68:80] = b"acsp", b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    whole = bytes(head) + struct.pack(">I", len(tags)) + table + data
    return struct.pack(">I", len(whole)) + whole[4:]


def colour_of(path: Path) -> np.ndarray:
    return np.asarray(open_image(path))[40, 40].astype(int)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(DISPLAY_P3, (217, 80, 73)), (ADOBE_RGB, (228, 90, 78))],
    ids=["Display P3", "Adobe RGB"],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_other_colours_become_srgb(
    tmp_path: Path, columns: tuple[tuple[float, ...], ...], expected: tuple[int, ...], mode: str, name: str
) -> None:
    picture = Image.new("RGB", (64, 64), COLOUR)
    picture = picture.quantize(8) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / name, icc_profile=profile(columns))
    assert np.abs(colour_of(tmp_path / name) - expected).max() <= 2


def test_a_rotated_cut_out_keeps_its_alpha_and_gets_its_colours(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (64, 96), (*COLOUR, 255))
    picture.paste((*COLOUR, 0), (0, 0, 64, 20))
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(tmp_path / "a.png", icc_profile=profile(DISPLAY_P3), exif=exif)
    seen = np.asarray(open_image(tmp_path / "a.png")).astype(int)
    assert (seen[-10, 10] == 128).all() and np.abs(seen[10, 10] - (217, 80, 73)).max() <= 2


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_with_a_curve_of_its_own(tmp_path: Path, mode: str) -> None:
    Image.new("L", (64, 64), 20).convert(mode).save(tmp_path / "a.png", icc_profile=profile((), b"GRAY"))
    seen = colour_of(tmp_path / "a.png")
    assert seen.max() - seen.min() <= 1 and abs(seen[0] - 12) <= 1, "gamma 2.2 is darker than sRGB down there"


@pytest.mark.parametrize(
    "icc",
    [None, SRGB, b"", b"broken" * 40, SRGB[:300], profile(DISPLAY_P3)[:200]],
    ids=[
        "none",
        "sRGB",
        "empty",
        "broken",
        "half of sRGB",
        "half of Display P3",
    ],  # a profile has the time in it
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_srgb_and_what_is_no_profile_change_nothing(tmp_path: Path, icc: bytes | None, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).convert(mode)
    picture.save(tmp_path / "a.png", icc_profile=icc)
    assert open_image(tmp_path / "a.png").tobytes() == to_rgb(picture).tobytes()


def test_a_profile_of_other_channels_changes_nothing(tmp_path: Path) -> None:
    Image.new("L", (64, 64), 100).save(tmp_path / "a.jpg", icc_profile=profile(DISPLAY_P3), quality=100)
    assert (colour_of(tmp_path / "a.jpg") == 100).all()


def test_a_picture_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript under a picture's name would be run by Ghostscript."""
    import subprocess

    monkeypatch.setattr(subprocess, "Popen", None)
    endless = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n{} loop\n"
    (tmp_path / "a.png").write_bytes(endless)
    promised = ", ".join(FORMATS[:-1])
    with pytest.raises(ImageError, match=f"got a file of another kind .*Use a {promised} or PPM file"):
        open_image(tmp_path / "a.png")


def test_the_pixels_are_counted_in_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other packs lift Pillow's own bound for the whole process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "a.ppm").write_bytes(b"P6 20000 20000 255\n")
    with pytest.raises(ImageError, match="at most 178 million pixels but got a larger one"):
        open_image(tmp_path / "a.ppm")
