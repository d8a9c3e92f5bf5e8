"""The pictures of the pack's card in ComfyUI's registry, drawn from the demo: an icon and a banner.

python -m demo.card
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .assets import PORTRAITS
from .faces import People, render, sample_people, still_pose
from .speech import mouth_from_audio, read_wav
from .training.autoencoder import HELD_OUT_SEED

FOLDER = Path(__file__).parent
IMAGES = FOLDER.parent / "docs" / "images"
ICON_SIZE = 400  # the registry's limit
BANNER_SIZE = (1344, 576)  # 21:9, as the registry shows it
FACES = 5  # in the banner's row, each as it is in the middle of the speech below it
PAPER, INK = (247, 244, 238), (40, 34, 48)
BARS = 96


def to_picture(frame: Tensor) -> Image.Image:
    """(3, H, W) in 0..1 as an RGB picture."""
    return Image.fromarray((frame.permute(1, 2, 0) * 255).round().byte().numpy())


def speaker(name: str) -> People:
    """Who a shipped portrait shows."""
    return sample_people(1, HELD_OUT_SEED + 20_000 + PORTRAITS[name])


def icon() -> Image.Image:
    """The second portrait, in the middle of a word."""
    return to_picture(render(speaker("portrait2.png"), still_pose(1, mouth_open=0.5), ICON_SIZE)[0])


def banner() -> Image.Image:
    """The first portrait speaking, over the loudness of what it says."""
    width, height = BANNER_SIZE
    picture = Image.new("RGB", BANNER_SIZE, PAPER)
    speech = read_wav(FOLDER / "speech.wav")
    mouths = mouth_from_audio(speech)
    moments = [int((column + 0.5) * len(mouths) / FACES) for column in range(FACES)]
    margin = width // 50
    side = (width - (FACES + 1) * margin) // FACES
    for column, moment in enumerate(moments):
        pose = still_pose(1, mouth_open=float(mouths[moment, 0]))
        face = to_picture(render(speaker("portrait.png"), pose, side)[0])
        picture.paste(face, (margin + column * (side + margin), 3 * margin))
    top = 3 * margin + side + margin
    draw_loudness(ImageDraw.Draw(picture), speech, (margin, top, width - margin, height - 2 * margin))
    return picture


def draw_loudness(draw: ImageDraw.ImageDraw, speech: Tensor, box: tuple[int, int, int, int]) -> None:
    """Bars about the middle of `box` (left, top, right, bottom), one for each stretch of the sound."""
    left, top, right, bottom = box
    pieces = speech[: len(speech) // BARS * BARS].reshape(BARS, -1)
    heights = pieces.square().mean(dim=1).sqrt()
    heights = heights / heights.max() * (bottom - top) / 2
    pitch, middle = (right - left) / BARS, (top + bottom) / 2
    for bar, reach in enumerate(heights.tolist()):
        x, reach = left + bar * pitch, max(reach, 2.0)
        draw.rounded_rectangle((x, middle - reach, x + 0.6 * pitch, middle + reach), radius=3, fill=INK)


def main() -> None:
    """Write docs/images/icon.png and docs/images/banner.png."""
    with torch.inference_mode():
        icon().save(IMAGES / "icon.png", optimize=True)
        banner().save(IMAGES / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
