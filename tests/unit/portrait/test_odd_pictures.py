"""Odd pictures, faces and rates through the command's own reading: a clear line or the right result."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from memo_avatar.checkpoint.companions import Settings, read_settings
from memo_avatar.portrait.faces import FaceError
from memo_avatar.portrait.prepare import NO_BOX, PHOTO, advise
from memo_avatar.video.delivery import Delivery
from standalone.arguments import DEMO_CHECKPOINT, parse_video
from standalone.command import main
from standalone.face_inputs import read_portraits, warn_of_size
from tests.helpers.media import tone, write_sound

Make = Callable[[Path], Path]
GREY = 102


def saved(name: str, mode: str = "RGB", size: tuple[int, int] = (96, 64), **options: object) -> Make:
    """A grey picture in a pixel format."""

    def make(folder: Path) -> Path:
        Image.new("L", size, GREY).convert(mode).save(folder / name, **options)
        return folder / name

    return make


def array(name: str, pixels: np.ndarray) -> Make:
    def make(folder: Path) -> Path:
        Image.fromarray(pixels).save(folder / name)
        return folder / name

    return make


def written(name: str, data: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def deep_png(folder: Path) -> Path:
    """16 bits for each of red, green and blue, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + struct.pack(">H", GREY * 257) * (3 * 96)) * 64
    header = struct.pack(">IIBBBBB", 96, 64, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return written("deep.png", b"\x89PNG\r\n\x1a\n" + body)(folder)


def animated(name: str) -> Make:
    def make(folder: Path) -> Path:
        frames = [Image.new("RGB", (96, 64), (value,) * 3) for value in (GREY, 200, 20)]
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], lossless=True)
        return folder / name

    return make


def cut_short(name: str, share: float) -> Make:
    def make(folder: Path) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        path = array(name, pixels)(folder)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        return path

    return make


def pipe(folder: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def loop(folder: Path) -> Path:
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return folder / "loop.png"


GOOD_PICTURES: dict[str, Make] = {
    "CMYK JPEG": saved("a.jpg", "CMYK", quality=100, subsampling=0),
    "grey JPEG": saved("a.jpg", "L", quality=100),
    "16-bit RGB PNG": deep_png,
    "16-bit grey PNG": array("a.png", np.full((64, 96), GREY * 257, np.uint16)),
    "32-bit TIFF": array("a.tiff", np.full((64, 96), GREY * 257, np.int32)),
    "float TIFF": array("a.tiff", np.full((64, 96), GREY / 255, np.float32)),
    "palette GIF": saved("a.gif", "P"),
    "animated GIF": animated("a.gif"),
    "animated WebP": animated("a.webp"),
    "animated PNG": animated("a.png"),
    "PPM": saved("a.ppm"),
    "JPEG named PNG": lambda folder: saved("a.jpg", quality=100)(folder).rename(folder / "a.png"),
    "no ending": lambda folder: saved("a.png")(folder).rename(folder / "a"),
    "name with spaces": saved("me & you (1) é 图.png"),
    "as small as may be": saved("a.png", size=(32, 32)),
}


@pytest.fixture
def base(tmp_path: Path, goldens: Path) -> list[str]:
    sound = write_sound(tmp_path / "a.wav", tone(0.3))
    options = ["--audio", str(sound), "--output", str(tmp_path / "v.mp4"), "--size", "64"]
    checkpoint = goldens / "micro" / "checkpoint"
    # Everything refused here is refused before wav2vec2 is opened, so any folder stands for it.
    return [*options, "--checkpoint", str(checkpoint), "--wav2vec2", str(tmp_path), "--device", "cpu"]


@pytest.mark.parametrize("name", GOOD_PICTURES)
def test_pictures_that_work(name: str, base: list[str], tmp_path: Path) -> None:
    path = GOOD_PICTURES[name](tmp_path)
    for extra in ([], ["--fit", "letterbox"], ["--face-crop", "--face-box", "2,2,30,30"]):
        (portrait,), _ = read_portraits(
            parse_video([*base, "--image", str(path), *extra]), Settings(), (64, 64), 512
        )
        assert portrait.pixel_values.shape == (1, 3, 64, 64)
        middle = portrait.pixel_values[0, :, 32, 32]
        assert torch.allclose(middle, torch.full((3,), GREY / 127.5 - 1), atol=0.03)


BAD_PICTURES: dict[str, tuple[Make, str]] = {
    "missing": (lambda folder: folder / "none.png", "expected a picture file but got no such file"),
    "folder": (lambda folder: folder, "expected a picture file but got a folder"),
    "empty": (written("a.png", b""), "got a file of another kind"),
    "text": (written("a.jpg", b"not a picture\n" * 99), "got a file of another kind"),
    "TGA": (saved("a.tga"), "got a file of another kind"),
    "SVG": (written("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "got a file of another kind"),
    "named pipe": (pipe, "expected a picture file but got no such file"),
    "link to itself": (loop, "expected a picture file but got no such file"),
    "PNG cut short": (cut_short("a.png", 0.5), "expected a whole picture but got"),
    "JPEG cut short": (cut_short("a.jpg", 0.5), "expected a whole picture but got"),
    "header alone": (cut_short("a.png", 0.002), "expected a"),
    "one pixel": (saved("a.png", size=(1, 1)), "at least 32x32 pixels but got 1x1"),
    "a line": (saved("a.png", size=(5000, 31)), "at least 32x32 pixels but got 5000x31"),
    "too many pixels": (written("a.pgm", b"P5 20000 20000 255\n"), "at most 178 million pixels"),
    "infinite pixels": (array("a.tiff", np.full((64, 64), np.inf, np.float32)), "NaN or infinity"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_pictures_that_are_refused(
    name: str, base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD_PICTURES[name]
    assert main([*base, "--image", str(make(tmp_path))]) == 2
    check_error(capsys, message)


BAD_OPTIONS: dict[str, tuple[list[str], str]] = {
    "box outside": (["--face-crop", "--face-box", "500,500,600,600"], "inside the 96x64 picture but got 500"),
    "box too small": (["--face-crop", "--face-box", "5,5,9,9"], "a face of at least 16x16 pixels"),
    "box reversed": (["--face-box", "30,30,5,5"], "expected left < right and top < bottom"),
    "box of three": (["--face-box", "1,2,3"], "expected four whole numbers but got '1,2,3'"),
    "margin below 0": (["--face-crop=-1"], "expected a margin of 0 or more but got -1"),
    "margin too wide": (["--face-crop", "99"], "expected a margin of 0 to 3 but got 99"),
    "margin no number": (["--face-crop", "nan"], "expected a margin of 0 or more but got nan"),
    "face below 0": (["--face-index=-1"], "expected a whole number from 0 to 999 but got -1"),
    "no such mode": (["--face", "maybe"], "invalid choice: 'maybe'"),
    "no face models": (
        ["--face", "require"],
        "scrfd_10g_bnkps.onnx and glintr100.onnx but found them nowhere",
    ),
    "29 frames": (["--fps", "29"], "invalid choice"),
    "29.97 frames": (["--fps", "29.97"], "invalid int value: '29.97'"),
    "no frames": (["--fps", "0"], "invalid choice"),
    "size of 0": (["--size", "0"], "divisible by 8 but got 0x0"),
    "size of 40000": (["--size", "40000"], "up to 4096 but got 40000x40000"),
    "box of 5000 digits": (
        ["--face-box", "1,2,3," + "9" * 5_000],
        "expected four whole numbers but got '1,2,3,99",
    ),
    "box of two signs": (["--face-box=--5,0,9,9"], "expected four whole numbers but got '--5,0,9,9'"),
    "size of 100": (["--size", "100"], "divisible by 8 but got 100x100"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_options_that_are_refused(
    name: str, base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra, message = BAD_OPTIONS[name]
    assert main([*base, "--image", str(saved("a.png")(tmp_path)), *extra]) == 2
    check_error(capsys, message)


BAD_EMBEDDINGS: dict[str, tuple[object, str]] = {
    "NaN": ({"face": torch.full((512,), torch.nan)}, "expected finite weights but got NaN"),
    "of another length": ({"face": torch.zeros(128)}, "expected 512 numbers but got F32 of shape (128,)"),
    "two tensors": ({"a": torch.zeros(512), "b": torch.zeros(512)}, "expected one tensor but got 2"),
    "a pickle": (None, "expected a safetensors file but got a PyTorch pickle"),
}


@pytest.mark.parametrize("name", BAD_EMBEDDINGS)
def test_embeddings_that_are_refused(
    name: str, base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, message = BAD_EMBEDDINGS[name]
    path = tmp_path / "face.safetensors"
    if tensors is None:
        torch.save({"face": torch.zeros(512)}, path)
    else:
        save_file(tensors, path)
    arguments = [*base, "--image", str(saved("a.png")(tmp_path)), "--face-embedding", str(path)]
    assert main(arguments) == 2
    check_error(capsys, message)


def check_error(capsys: pytest.CaptureFixture[str], message: str) -> None:
    """One line, with what to do at its end, and no traceback."""
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert out == "" and len(lines) == 1 and "Traceback" not in err
    assert message in lines[0]
    assert lines[0].count(". ") >= 1 or lines[0].endswith("See --help.")


# The right result


def read(base: list[str], path: Path, *extra: str) -> tuple[object, Delivery]:
    options = parse_video([*base, "--image", str(path), *extra])
    (portrait,), paster = read_portraits(options, Settings(), (64, 64), 512)
    return portrait, Delivery.of_voice(4_800, options.fps, paster)


def test_a_rotated_photo_is_cropped_where_it_is_seen(base: list[str], tmp_path: Path) -> None:
    """The box counts in the upright picture, not in the stored one."""
    upright = Image.new("RGB", (120, 200), (10, 10, 10))
    upright.paste((250, 250, 250), (30, 120, 70, 160))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    arguments = "--face-crop", "0", "--face-box", "30,120,70,160", "--paste-back"
    portrait, delivery = read(base, tmp_path / "a.png", *arguments)
    assert portrait.pixel_values.min() > 0.9
    assert delivery.size(64, 64) == (120, 200)


def test_paste_back_alone_crops_with_the_default_margin_and_says_what_it_took(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved("a.png", size=(201, 151))(tmp_path)
    portrait, delivery = read(base, path, "--paste-back", "--fit", "letterbox", "--fps", "60")
    assert portrait.crop is not None and (portrait.crop.width, portrait.crop.height) == (150, 150)
    assert delivery.size(64, 64) == (201, 151) and (delivery.generated, delivery.total) == (9, 18)
    assert f"Warning: {NO_BOX}" in capsys.readouterr().err


def test_a_box_half_outside_is_cut_to_the_picture(base: list[str], tmp_path: Path) -> None:
    portrait, _ = read(base, saved("a.png")(tmp_path), "--face-crop", "0", "--face-box=-20,-20,40,40")
    assert portrait.crop.inside == (0, 0, 40, 40)


def test_a_face_swap_packs_file_gives_its_embedding(base: list[str], tmp_path: Path) -> None:
    face = tmp_path / "face.safetensors"
    save_file({"embedding": torch.ones(512), "bbox": torch.zeros(4), "age": torch.zeros(1)}, face)
    portrait, _ = read(base, saved("a.png")(tmp_path), "--face-embedding", str(face))
    assert torch.equal(portrait.face_embedding, torch.ones(1, 512))


def test_a_picture_too_large_for_players_is_said(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved("a.png", size=(4200, 2400))(tmp_path)
    _, delivery = read(base, path, "--paste-back", "--face-box", "100,100,140,140")
    warn_of_size(delivery)
    assert "no H.264 video larger than 4096x2304" in capsys.readouterr().err


def test_the_demo_is_not_asked_for_faces(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = read_settings(Path(os.path.relpath(DEMO_CHECKPOINT)))
    path = saved("a.png")(tmp_path)

    def told(*extra: str, settings: Settings = demo) -> str:
        read_portraits(parse_video([*base, "--image", str(path), *extra]), settings, (96, 96), 512)
        return capsys.readouterr().err

    assert told() == told("--paste-back", "--face-box", "2,2,60,60") == ""
    assert told("--paste-back").count("Warning: ") == 1, "a missing box is told, missing face models are not"
    assert "Warning: For a closer likeness, put scrfd" in told(settings=Settings(size=96))
    with pytest.raises(FaceError, match="found them nowhere"):
        told("--face", "require")


def test_a_photo_through_the_demo_and_other_sizes_are_told(base: list[str], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(90, 110, (200, 200, 3), dtype=np.uint8)
    photo, drawn = Image.fromarray(pixels), Image.open(DEMO_CHECKPOINT.parent / "portrait.png").convert("RGB")
    assert advise(photo, (96, 96), 96, photographs=False) == [PHOTO]
    assert advise(photo, (512, 512), 512, photographs=True) == []
    for size in ((96, 96), (104, 104), (96, 128)):
        assert advise(drawn, size, 96, photographs=False) == []
    (small,), (large,) = (advise(drawn, size, 96, photographs=False) for size in ((8, 8), (512, 512)))
    assert small.startswith("Use about 96x96: ") and "8x8 may come out smeared" in small
    assert "512x512 may come out smeared" in large


def test_a_picture_that_no_video_can_hold_is_refused_before_it_is_unpacked(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved("a.png", mode="L", size=(7_000, 6_000))(tmp_path)
    assert main([*base, "--image", str(path), "--paste-back", "--face-box", "100,100,400,400"]) == 2
    check_error(capsys, "expected at most 35 million pixels to paste into but got 7000x6000")
