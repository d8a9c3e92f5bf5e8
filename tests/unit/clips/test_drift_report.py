"""What a video's drift looks like to its user, and that measuring it can end no run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from memo_avatar.clips.drift_report import Drift, DriftMeter, drift_sentence
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.portrait.faces import likeness_to
from memo_avatar.video.drift_picture import add_curve
from tests.helpers.tiny_memo import PoolingVAE, tiny_memo, tiny_portrait, tiny_voice
from tests.unit.clips.test_drift import blurred, faded, textured

PICTURE = Image.new("RGB", (960, 300), "white")


def measured(*clips: Tensor, first: int = 0) -> list[Drift]:
    meter = DriftMeter()
    for index, frames in enumerate(clips):
        meter.add(first + index, frames)
    return meter.curve


def test_a_video_that_stays_as_it_is_shows_no_drift() -> None:
    curve = measured(*[textured()] * 3)
    assert curve == [Drift(index, 0.0, 1.0, 1.0) for index in range(3)]
    assert drift_sentence(curve) == (
        "Drift of the face, the last clip against the first: sharpness 100 %, contrast 100 %, "
        "colour off by 0 of 255."
    )


def test_a_fade_and_a_blur_are_measured() -> None:
    _, faint, soft = measured(textured(), faded(textured()), blurred(textured()))
    assert faint.contrast == pytest.approx(0.9, abs=0.01)
    assert faint.colour == pytest.approx(0.06 - 0.1 * 0.5, abs=0.005)
    assert soft.sharpness < 0.7


def test_one_clip_alone_or_none_says_and_draws_nothing() -> None:
    for curve in ([], measured(textured()), measured(textured(), textured(0))):
        assert drift_sentence(curve) == ""
        assert add_curve(PICTURE, curve) is PICTURE


def test_of_a_continued_video_it_says_what_the_first_clip_is() -> None:
    assert "against the first made now:" in drift_sentence(measured(textured(), textured(), first=7))


def test_frames_that_are_not_numbers_are_left_out() -> None:
    curve = measured(textured(), textured() * torch.nan, textured())
    assert [drift.clip_index for drift in curve] == [0, 2]


def test_a_meter_that_fails_is_logged_and_the_clips_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_frame: Tensor) -> float:
        raise ZeroDivisionError("onnx")

    models, inputs = tiny_memo(), (PoolingVAE(), tiny_portrait(), tiny_voice(12))
    settings = SamplingSettings(steps=2, guidance_scale=2.0, frames_per_clip=4, past_frames=4)
    plain, watched = DriftMeter(), DriftMeter(broken)
    runs = [
        [clip.frames for clip in meter.watch(generate_clips(models, *inputs, settings))]
        for meter in (plain, watched)
    ]
    assert torch.equal(torch.cat(runs[0]), torch.cat(runs[1]))
    assert len(plain.curve) == 3 and watched.curve == []
    assert "The drift of clip 1 could not be measured: onnx" in caplog.text


def lines_of(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    """Pixels of a curve's colour under the report's picture."""
    return int((np.asarray(picture)[PICTURE.height + 30 :] == colour).all(axis=-1).sum())


@pytest.mark.parametrize("clips", [2, 600])
def test_the_curves_are_drawn_under_the_picture(clips: int) -> None:
    shares = [index / (clips - 1) for index in range(clips)]
    curve = [Drift(index, 0.04 * done, 1 + 0.05 * done, 1 - 0.1 * done) for index, done in enumerate(shares)]
    whole = add_curve(PICTURE, curve)
    assert whole.width == PICTURE.width and whole.height > PICTURE.height + 200
    assert whole.crop((0, 0, *PICTURE.size)).tobytes() == PICTURE.tobytes()
    for colour in ((38, 84, 158), (40, 140, 96), (207, 92, 36)):
        assert lines_of(whole, colour) > 300
    assert lines_of(whole, (130, 70, 150)) == 0, "no likeness is known"


def test_the_likeness_is_told_and_drawn_where_it_is_known() -> None:
    def curve(likeness: Sequence[float | None]) -> list[Drift]:
        return [replace(Drift(index, 0.0, 1.0, 1.0), likeness=value) for index, value in enumerate(likeness)]

    known = curve([0.8, None, 0.6, 0.5])
    assert drift_sentence(known).endswith(", likeness to the portrait 0.50 after 0.80.")
    assert lines_of(add_curve(PICTURE, known), (130, 70, 150)) > 300
    assert "likeness" not in drift_sentence(curve([0.8, None]))


def test_nobodys_likeness_is_not_measured() -> None:
    assert likeness_to(torch.zeros(1, 512), []) is None
    assert likeness_to(torch.ones(1, 512), []) is None, "nothing to find faces with"
