"""Two videos compared: levels of 255, the worst frame, and what a picture of it shows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memo_avatar.video.difference import GAIN, measure, side_by_side


def video(frames: int = 3) -> Tensor:
    return torch.rand(frames, 4, 6, 3, generator=torch.Generator().manual_seed(0)) / 2


def test_equal_videos_differ_by_nothing() -> None:
    found = measure(video(), video())
    assert (found.mean, found.most) == (0, 0)


def test_it_counts_in_levels_and_names_the_frame_that_differs_most() -> None:
    other = video()
    other[0, 0, 0, 0] += 51 / 255  # the largest single difference
    other[1] += 2 / 255
    found = measure(video(), other)
    assert found.most == pytest.approx(51, abs=1e-3)
    assert found.mean == pytest.approx((51 / (4 * 6 * 3) + 2) / 3, abs=1e-3)
    assert found.frame == 1


def test_the_difference_is_shown_enlarged_beside_both() -> None:
    other = video() + 2 / 255
    one, two, difference = side_by_side(video(), other).split(6, dim=2)
    assert one.equal(video()) and two.equal(other)
    torch.testing.assert_close(difference, torch.full_like(one, 2 * GAIN / 255))


@pytest.mark.parametrize("other", [video(2), video()[:, :2], torch.zeros(0, 4, 6, 3)])
def test_videos_of_other_sizes_are_refused(other: Tensor) -> None:
    with pytest.raises(ValueError, match="Connect two samplers with the same portrait and voice"):
        measure(video(), other)
