"""The meters read true frames right; what they say of generated ones is worth no more than this."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from demo.faces import TRAINED_EMOTIONS, People, render, sample_people, still_pose
from demo.meters import correlation, flicker, identity_error, mouth_opening, read_emotion
from demo.motion import smooth_noise, video_poses

FRAMES = 32


def true_video(person: People, emotion: int, seed: int) -> tuple[Tensor, Tensor]:
    """Frames of a made-up speaker and the opening they were drawn with."""
    generator = torch.Generator().manual_seed(seed)
    opening = (0.4 + 0.4 * smooth_noise(1, FRAMES, 2.0, generator)).clamp(0, 1)
    mouth = torch.stack([opening, (0.5 + 0.2 * smooth_noise(1, FRAMES, 4.0, generator)).clamp(0, 1)], dim=-1)
    pose = video_poses(mouth, torch.full((1, FRAMES), emotion), generator)
    return render(person.index(torch.zeros(FRAMES, dtype=torch.long)), pose), opening[0]


def people() -> Iterator[tuple[int, People]]:
    for seed in range(10):
        yield seed, sample_people(1, 700 + seed)


def test_the_mouth_meter_follows_the_drawn_opening() -> None:
    for seed, person in people():
        frames, opening = true_video(person, TRAINED_EMOTIONS[seed % 5], seed)
        assert correlation(mouth_opening(frames), opening) > 0.95


def test_the_emotion_meter_reads_the_drawn_emotion() -> None:
    right = []
    for seed, person in people():
        emotion = TRAINED_EMOTIONS[seed % 5]
        frames, _ = true_video(person, emotion, seed)
        right += [read_emotion(part[::4], person) == emotion for part in frames.split(16)]
    assert sum(right) / len(right) > 0.95


def test_the_identity_meter_knows_one_person_from_another() -> None:
    for seed, person in people():
        frames, _ = true_video(person, 4, seed)
        own = render(person, still_pose(1))[0]
        other = render(sample_people(1, 800 + seed), still_pose(1))[0]
        assert identity_error(frames[:8], own) < 0.25
        assert identity_error(frames[:8], own) < identity_error(frames[:8], other)


def test_flicker_is_zero_on_true_frames_and_grows_with_noise() -> None:
    frames, _ = true_video(sample_people(1, 1), 4, 0)
    assert flicker(frames) == 0
    assert flicker(frames + 0.05 * torch.randn(frames.shape)) > 0.03


@pytest.mark.parametrize(
    ("a", "b", "r"), [((0, 1, 2), (1, 3, 5), 1), ((0, 1, 2), (2, 1, 0), -1), ((1, 1), (0, 1), 0)]
)
def test_correlation(a: tuple[int, ...], b: tuple[int, ...], r: float) -> None:
    assert correlation(torch.tensor(a).float(), torch.tensor(b).float()) == pytest.approx(r, abs=1e-6)
