"""Frame arithmetic and the reference net's batch, as tables."""

from __future__ import annotations

import math

import pytest
import torch

from memo_avatar.clips.reference_plan import reference_plan
from memo_avatar.clips.solvers import flow_sigmas, sample_euler
from memo_avatar.timing import clip_spans, frame_count, padded_frame_count


@pytest.mark.parametrize(
    ("samples", "frames"),
    [
        (0, 0),
        (1, 1),
        (533, 1),
        (534, 2),
        (1600, 3),
        (16_000, 30),
        (16_001, 31),
        (132_800, 249),
        (9_600_000, 18_000),
    ],
)
def test_frame_count(samples: int, frames: int) -> None:
    assert frame_count(samples) == frames


def test_frame_count_is_exact_where_floats_are_not() -> None:
    assert math.ceil(132_800 / 16_000 * 30) == 250  # 8.3 s
    assert frame_count(132_800) == 249


@pytest.mark.parametrize(("frames", "padded"), [(1, 16), (16, 16), (17, 32), (32, 32)])
def test_padded_frame_count(frames: int, padded: int) -> None:
    assert padded_frame_count(frames, 16) == padded


def test_clip_spans_cover_the_video_once() -> None:
    spans = clip_spans(37, 16)
    assert [tuple(span) for span in spans] == [(0, 0, 16, 16), (1, 16, 32, 16), (2, 32, 48, 5)]


def test_first_clip_runs_the_image_once_per_face() -> None:
    plan = reference_plan((0, 1), 4, 4, first_clip=True)
    assert sorted(plan.image_faces) == [0, 1]
    assert plan.past_frames == ()


@pytest.mark.parametrize("frames", [3, 4])
@pytest.mark.parametrize("past", [3, 4])
@pytest.mark.parametrize("faces", [(0, 1), (0, 0), (0,)], ids=str)
@pytest.mark.parametrize("first", [True, False])
def test_plan_equals_upstreams_tiling(frames: int, past: int, faces: tuple[int, ...], first: bool) -> None:
    plan = reference_plan(faces, frames, past, first_clip=first)
    # Upstream: rows [image, past...] per branch; faces tiled over the rows, image features over the frames.
    stack = [
        (0 if first else p, faces[i % len(faces)]) for i, p in enumerate([*range(past + 1)] * len(faces))
    ]
    images = [stack[branch * (past + 1)] for branch in range(len(faces))]
    for branch in range(len(faces)):
        for frame in range(frames):
            seen = plan.image_faces[plan.reference_rows[branch][frame]]
            assert seen == images[(branch * frames + frame) % len(faces)][1]
        for index in range(past):
            row = plan.past_rows[branch][index]
            pair = (0, plan.image_faces[row]) if first else (plan.past_frames[row] + 1, plan.past_faces[row])
            assert pair == stack[branch * (past + 1) + 1 + index]


def test_flow_sigmas_end_at_a_thousandth_and_zero() -> None:
    sigmas = flow_sigmas(4)
    torch.testing.assert_close(sigmas, torch.tensor([1.0, 0.667, 0.334, 0.001, 0.0]))
    assert flow_sigmas(1).tolist() == [1.0, 0.0]


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1 but got 0"):
        flow_sigmas(0)


def test_euler_is_exact_on_straight_paths() -> None:
    data, noise = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])
    result = sample_euler(lambda _x, _sigma: noise - data, noise, flow_sigmas(3))
    torch.testing.assert_close(result, data)
