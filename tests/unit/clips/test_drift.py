"""A video that fades is measured as such, and its past is brought back before it conditions the next clip."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from memo_avatar.clips.drift import (
    appearance,
    eye_contrast,
    face_region,
    guard_past,
    hold_colour,
    hold_sharpness,
    without_blinks,
)
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import SamplingSettings
from tests.helpers.tiny_memo import PoolingVAE, tiny_memo, tiny_portrait, tiny_voice

SIZE = 64


def textured(frames: int = 16, seed: int = 0) -> Tensor:
    """Frames (F, 3, S, S) of a soft pattern with detail, each a little different."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(1, 3, SIZE, SIZE, generator=generator) * 0.4 + 0.3
    return (base + 0.01 * torch.randn(frames, 3, SIZE, SIZE, generator=generator)).clamp(0, 1)


def faded(frames: Tensor, gain: float = 0.9, offset: float = 0.06) -> Tensor:
    return (frames * gain + offset).clamp(0, 1)


def blurred(frames: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(frames, (1, 1, 1, 1), mode="replicate")
    return 0.5 * frames + 0.5 * torch.nn.functional.avg_pool2d(padded, 3, stride=1)


def test_the_middle_half_of_each_side_is_the_face() -> None:
    assert face_region(torch.zeros(2, 3, 64, 96)).shape == (2, 3, 32, 48)
    assert face_region(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 4, 4)


def test_faded_frames_get_the_wanted_colours_back() -> None:
    wanted = appearance(textured())
    held = appearance(hold_colour(faded(textured()), wanted))
    assert held.colour == pytest.approx(wanted.colour, abs=1e-3)
    assert held.spread == pytest.approx(wanted.spread, rel=1e-3)


def test_one_clip_is_stretched_within_bounds() -> None:
    flat = faded(textured(), gain=0.3, offset=0.35)
    held = appearance(hold_colour(flat, appearance(textured())))
    assert sum(held.spread) == pytest.approx(1.25 * sum(appearance(flat).spread), rel=1e-2)


def test_frames_of_one_colour_stay_finite() -> None:
    held = hold_colour(torch.full((4, 3, 16, 16), 0.5), appearance(textured()))
    assert torch.isfinite(held).all()


def test_soft_frames_are_sharpened_towards_the_wanted_and_sharp_ones_left_alone() -> None:
    sharp = textured()
    wanted, soft = appearance(sharp).sharpness, appearance(blurred(sharp)).sharpness
    again = appearance(hold_sharpness(blurred(sharp), wanted)).sharpness
    assert soft < again <= 1.05 * wanted
    assert again - soft > 0.5 * (wanted - soft)
    assert hold_sharpness(sharp, wanted) is sharp


def test_a_blink_gives_way_to_the_last_open_frame_and_a_leading_one_to_the_first_open() -> None:
    frames = textured()
    closed = frames.clone()
    rows = slice(round(0.34 * SIZE), round(0.5 * SIZE))
    for index in (0, 14, 15):
        closed[index, :, rows] = 0.5
    assert (eye_contrast(closed)[[0, 14, 15]] < 0.5 * eye_contrast(closed).median()).all()
    seen = without_blinks(closed)
    assert torch.equal(seen[1:14], closed[1:14])
    assert torch.equal(seen[0], closed[1]) and torch.equal(seen[15], closed[13])


def test_the_guard_leaves_what_it_was_given_untouched() -> None:
    past = faded(textured())
    before = past.clone()
    guard_past(appearance(textured()))(past)
    assert torch.equal(past, before)


def test_the_guard_changes_what_follows_the_first_clip_and_a_resumed_video_keeps_it() -> None:
    models, inputs = tiny_memo(), (PoolingVAE(), tiny_portrait(), tiny_voice(12))
    plain = SamplingSettings(steps=2, guidance_scale=2.0, frames_per_clip=4, past_frames=4)
    guarded = replace(plain, guard_drift=True)
    without, whole = (list(generate_clips(models, *inputs, settings)) for settings in (plain, guarded))
    assert torch.equal(without[0].frames, whole[0].frames)
    assert not torch.equal(without[1].frames, whole[1].frames)
    first = next(generate_clips(models, *inputs, guarded))
    rest = list(generate_clips(models, *inputs, guarded, state=first.state))
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(whole[1:], rest, strict=True))
