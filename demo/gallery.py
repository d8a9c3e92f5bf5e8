"""Pictures of the demo model at work: half a minute of held-out speech as a contact sheet, and a GIF.

python -m demo.gallery
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from memo_avatar.portrait.images import open_image
from memo_avatar.portrait.prepare import prepare_portrait

from .evaluate import FRAMES, DemoModel, contact_sheet, held_out_speech
from .meters import flicker, identity_error
from .speech import FPS, read_wav

FOLDER = Path(__file__).parent
HAPPY, SURPRISED = 3, 7


def portrait(name: str, size: int) -> Tensor:
    """A shipped portrait as the command reads it, (3, size, size) in 0..1."""
    seen, _ = prepare_portrait(open_image(FOLDER / name), (size, size))
    return seen.pixel_values[0] / 2 + 0.5


def half_minute(demo: DemoModel, seconds: float, steps: int, path: Path, every: int = 5) -> str:
    """The contact sheet of a long video, and how its first and last second compare with the portrait."""
    face = portrait("portrait.png", demo.size)
    frames = demo.talk(face, held_out_speech(0, seconds), HAPPY, steps=steps)
    contact_sheet(frames[::every], columns=20).save(path, quality=85)
    first, last = (identity_error(part, face) for part in (frames[:FPS], frames[-FPS:]))
    return (
        f"{len(frames)} frames in {-(-len(frames) // FRAMES)} clips: identity error of the first second "
        f"{first:.3f}, of the last {last:.3f}; flicker {flicker(frames):.4f}"
    )


def gif(demo: DemoModel, path: Path, steps: int, scale: float = 1.75) -> None:
    """Both portraits side by side saying `speech.wav`, at 15 frames per second."""
    speech = read_wav(FOLDER / "speech.wav")
    pairs = (("portrait.png", HAPPY), ("portrait2.png", SURPRISED))
    videos = [demo.talk(portrait(name, demo.size), speech, emotion, steps=steps) for name, emotion in pairs]
    frames = torch.cat(videos, dim=3)[::2]
    side = round(demo.size * scale)
    pixels = (frames.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    images = [Image.fromarray(frame).resize((2 * side, side), Image.Resampling.BICUBIC) for frame in pixels]
    palette = [image.quantize(64, dither=Image.Dither.NONE) for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    palette[0].save(path, save_all=True, append_images=palette[1:], duration=67, loop=0, optimize=True)


def main() -> None:
    """Write demo/contact_sheet.jpg and docs/images/demo.gif."""
    parser = argparse.ArgumentParser(description="Contact sheet and GIF of the demo model.")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path, default=FOLDER / "checkpoint")
    options = parser.parse_args()
    demo = DemoModel.load(options.checkpoint)
    gif(demo, FOLDER.parent / "docs" / "images" / "demo.gif", options.steps)
    tqdm.write(half_minute(demo, options.seconds, options.steps, FOLDER / "contact_sheet.jpg"))


if __name__ == "__main__":
    main()
