"""Two bundled people in one picture, each with a voice of their own, for 8 s: who speaks moves the mouth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.assets import BORDER, FACES, SIZE
from demo.evaluate import CHECKPOINT
from demo.two_speakers import MARGIN, PICTURE, measure, render
from memo_avatar.portrait.face_crop import plan_crop


def test_what_is_cut_out_around_each_face_is_the_portrait() -> None:
    picture = Image.open(PICTURE).convert("RGB")
    for face, name in zip(FACES, ("portrait.png", "portrait2.png"), strict=True):
        crop = plan_crop(face, picture.size, (96, 96), MARGIN)
        assert crop.inside == crop.box and (crop.width, crop.top) == (SIZE, BORDER)
        portrait = Image.open(CHECKPOINT.parent / name).convert("RGB")
        assert np.array_equal(np.asarray(picture.crop(crop.box)), np.asarray(portrait))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not CHECKPOINT.exists(), reason="demo/checkpoint is not there")
def test_only_the_speaking_mouth_moves_and_nothing_else_does(tmp_path: Path) -> None:
    render(tmp_path / "frames", steps=2)
    found = measure(tmp_path / "frames")
    assert found["seconds"] >= 8
    assert found["changed_outside"] == 0
    assert min(found["first_turn"], found["second_turn"]) > 2, found
