"""A large 4:3 picture of a cartoon person: a photograph for the demo model, which knows only cartoons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from demo.faces import People, render, sample_people, still_pose
from memo_avatar.portrait.face_crop import plan_crop
from memo_avatar.voice.sound_files import decode_audio
from tests.helpers.media import read_pictures, write_sound

WIDTH, HEIGHT = 2304, 1728
PERSON = 480  # the side of the square that the person is drawn in
LEFT, TOP = 1240, 600
FACE_BOX = (LEFT + 92, TOP + 83, LEFT + 388, TOP + 426)
MARGIN = 0.2  # the demo model was trained on faces that fill 70 % of the frame


def draw_scene(seed: int = 11) -> Tensor:
    """(3, HEIGHT, WIDTH) in 0..1: sky, sun, hills, a house, grain, and a person in front."""
    y, x = torch.meshgrid(torch.linspace(0, 1, HEIGHT), torch.linspace(0, 4 / 3, WIDTH), indexing="ij")
    canvas = _mix((0.42, 0.66, 0.90), (0.86, 0.92, 0.96), y / 0.7)
    _paint(canvas, (x - 0.28).hypot(y - 0.2) < 0.09, (1.0, 0.9, 0.6))
    hills = ((0.68, 0.72, 0.60, 3.1, 0.04), (0.74, 0.55, 0.62, 5.3, 0.03), (0.86, 0.40, 0.55, 2.2, 0.03))
    for level, red, green, waves, height in hills:
        _paint(canvas, y > level + height * torch.sin(waves * x + 9 * level), (red * 0.7, green, red * 0.6))
    _paint(canvas, ((x - 0.33).abs() < 0.13) & ((y - 0.74).abs() < 0.1), (0.80, 0.42, 0.32))
    _paint(canvas, (y > 0.52) & (y < 0.64) & ((x - 0.33).abs() < (y - 0.5) * 1.3), (0.45, 0.25, 0.22))
    _paint(canvas, ((x - 0.33).abs() < 0.035) & (y > 0.72) & (y < 0.84), (0.35, 0.22, 0.15))
    _place(canvas, seed)
    grain = torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) * 0.006
    return ((canvas + grain).clamp(0, 1) * 255).round() / 255


def _mix(top: tuple[float, ...], bottom: tuple[float, ...], share: Tensor) -> Tensor:
    high, low = torch.tensor(top)[:, None, None], torch.tensor(bottom)[:, None, None]
    return high + (low - high) * share.clamp(0, 1)


def _paint(canvas: Tensor, where: Tensor, colour: tuple[float, ...]) -> None:
    canvas[:, where] = torch.tensor(colour)[:, None]


def _place(canvas: Tensor, seed: int) -> None:
    """The person without a background: drawn over black and white, the difference is what shows through."""
    person, pose = sample_people(1, seed), still_pose(1)
    black, white = (render(_over(person, value), pose, PERSON)[0] for value in (0.0, 1.0))
    clear = (white - black).clamp(0, 1)
    part = canvas[:, TOP : TOP + PERSON, LEFT : LEFT + PERSON]
    part.mul_(clear).add_(black)
    # Below the square, the shirt goes on to the picture's edge and widens a little.
    down = torch.arange(HEIGHT - TOP - PERSON)[:, None] / PERSON
    half = (clear[:, -1].mean(0) < 0.5).sum() / 2 * (1 + 0.5 * down.sqrt())
    across = (torch.arange(WIDTH) - LEFT - PERSON / 2).abs()[None, :]
    _paint(canvas[:, TOP + PERSON :], across < half, tuple(person.shirt[0].tolist()))


def _over(person: People, value: float) -> People:
    plain = torch.full_like(person.background, value)
    return replace(person, background=plain, background_low=plain)


# Files, and what a video shows of them


def write_photo(path: Path) -> NDArray[np.uint8]:
    """The scene as a JPEG; its pixels (HEIGHT, WIDTH, 3)."""
    scene = (draw_scene() * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(scene).save(path, quality=95)
    return scene


def write_mp3(path: Path, speech: Path) -> Path:
    """The first second of a recording as a stereo MP3 at 44.1 kHz."""
    chunks = decode_audio(speech, 44_100, channels=2, limit=44_100)
    return write_sound(path, np.concatenate(list(chunks), axis=1), 44_100, "libmp3lame")


@dataclass(frozen=True)
class Pasted:
    """A video of the scene: its size, and in steps of 255 how far it is from the scene outside the crop and
    along the crop's upper edge, and how much the mouth's part changes over time.
    """

    num_frames: int
    size: tuple[int, int]
    outside: float
    edge: float
    motion: float


def read_pasted(path: Path, scene: NDArray[np.uint8]) -> Pasted:
    """Decode the video and compare."""
    frames = read_pictures(path)
    left, top, right, bottom = plan_crop(FACE_BOX, (WIDTH, HEIGHT), (96, 96), MARGIN).inside
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[top:bottom, left:right] = False
    original = scene.astype(np.float32)
    differences = [np.abs(frame - original).mean(-1) for frame in (frames[0], frames[-1])]
    mouth = [frame[FACE_BOX[3] - 120 : FACE_BOX[3], FACE_BOX[0] : FACE_BOX[2]] for frame in frames]
    return Pasted(
        num_frames=len(frames),
        size=(frames[0].shape[1], frames[0].shape[0]),
        outside=max(float(difference[outside].mean()) for difference in differences),
        edge=max(float(difference[top : top + 12, left:right].mean()) for difference in differences),
        motion=float(np.std(np.stack(mouth).astype(np.float32), axis=0).mean()),
    )
