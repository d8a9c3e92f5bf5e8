"""Two bundled people in one picture, each spoken to by a voice of their own: who speaks moves the mouth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from demo.evaluate import CHECKPOINT, DemoModel, held_out_speech
from demo.meters import mouth_opening
from memo_avatar.inputs import Crop
from memo_avatar.portrait.images import to_pixels
from memo_avatar.portrait.prepare import FaceOptions, prepare_portrait
from memo_avatar.video.paste import Paster, picture_tensor

FOLDER = CHECKPOINT.parent
SIDE = 384
MARGIN = 0.2  # the demo's faces fill 70 % of their frame
TURN = 32  # frames that each of them speaks
HAPPY = 3

pytestmark = pytest.mark.skipif(not CHECKPOINT.exists(), reason="demo/checkpoint is not there")


def both_people() -> Image.Image:
    """Side by side, on a ground of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE + 40, 2 * SIDE + 100, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    for name, left in (("portrait.png", 0), ("portrait2.png", SIDE + 100)):
        picture.paste(Image.open(FOLDER / name).convert("RGB"), (left, 0))
    return picture


def turns() -> tuple[Tensor, Tensor]:
    """One clock: the first speaks, then the second; the other is silent meanwhile."""
    speech = held_out_speech(int(21.7 * 16_000), TURN / 30)
    silence = torch.zeros_like(speech)
    return torch.cat([speech, silence]), torch.cat([silence, speech])


def square(frames: Tensor, crop: Crop) -> Tensor:
    """(F, 3, H, W) -> the part that the model drew, at its own size."""
    left, top, right, bottom = crop.inside
    return functional.interpolate(frames[..., top:bottom, left:right], (96, 96), mode="area")


@pytest.mark.slow
@torch.inference_mode()
def test_only_the_speaking_mouth_moves_and_nothing_else_does() -> None:
    picture, demo = both_people(), DemoModel.load()
    original = picture_tensor(to_pixels(picture))
    whole, crops = original.expand(2 * TURN, -1, -1, -1), []
    inside = torch.zeros(original.shape[1:], dtype=torch.bool)
    for left, waveform in zip((0, SIDE + 100), turns(), strict=True):
        box = (left + 54, 54, left + 330, 330)
        face = FaceOptions(box=box, margin=MARGIN, learned=False)
        portrait, notes = prepare_portrait(picture, (96, 96), "face", face)
        assert notes == [] and portrait.crop is not None
        frames = demo.talk(portrait.pixel_values[0] / 2 + 0.5, waveform, HAPPY, steps=4)
        paster = Paster(original, portrait.crop)
        whole = torch.stack([paster.paste(*pair) for pair in zip(frames, whole, strict=True)])
        x0, y0, x1, y1 = portrait.crop.inside
        inside[y0:y1, x0:x1] = True
        crops.append(portrait.crop)
    assert torch.equal(whole[..., ~inside], original[:, ~inside].expand(2 * TURN, -1, -1))
    first, second = (mouth_opening(square(whole, crop)) for crop in crops)
    settled = slice(8, TURN)  # a mouth takes a moment to close
    for speaking, silent in ((first[:TURN], second[:TURN]), (second[TURN:], first[TURN:])):
        assert speaking[settled].std() > 2 * silent[settled].std(), (speaking, silent)
