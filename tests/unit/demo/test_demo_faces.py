"""The cartoon world is deterministic in its seed, and says what it is told to say."""

import torch

from demo.faces import EMOTIONS, TRAINED_EMOTIONS, expression, random_poses, render, sample_people, still_pose
from demo.motion import blinks, smooth_noise, video_poses
from demo.speech import FPS, SAMPLE_RATE, mouth_from_audio


def test_the_same_seed_gives_the_same_pixels() -> None:
    def frames(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return render(sample_people(3, seed), random_poses(3, generator), 48)

    assert torch.equal(frames(5), frames(5))
    assert not torch.equal(frames(5), frames(6))


def test_frames_are_pixels_of_any_size() -> None:
    for size in (48, 96, 200):
        frames = render(sample_people(2, 0), still_pose(2), size)
        assert frames.shape == (2, 3, size, size)
        assert frames.min() >= 0 and frames.max() <= 1


def test_a_person_is_the_same_at_another_size() -> None:
    person, pose = sample_people(4, 3), still_pose(4, mouth_open=0.5)
    large = torch.nn.functional.avg_pool2d(render(person, pose, 384), 4)
    assert (large - render(person, pose, 96)).abs().mean() < 0.01


def test_every_class_has_a_face_and_the_trained_ones_differ() -> None:
    faces = expression(torch.arange(len(EMOTIONS)))
    assert faces.shape == (9, 4)
    trained = faces[list(TRAINED_EMOTIONS)]
    assert torch.pdist(trained).min() > 0.15


def test_motion_is_bounded_and_smooth() -> None:
    generator = torch.Generator().manual_seed(0)
    curves = smooth_noise(8, 100, 16.0, generator)
    assert curves.shape == (8, 100) and curves.abs().max() <= 2
    assert (curves[:, 1:] - curves[:, :-1]).abs().max() < 0.3
    lids = blinks(50, 200, generator)
    assert 0.01 < lids.mean() < 0.15


def test_an_emotion_changes_within_five_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[4] * 10 + [3] * 10])
    poses = video_poses(torch.zeros(1, 20, 2), labels, generator)
    assert torch.isclose(poses.corners[9], expression(torch.tensor([4]))[0, 2])
    assert torch.isclose(poses.corners[14], expression(torch.tensor([3]))[0, 2])


def test_the_mouth_follows_loudness_and_ignores_hiss() -> None:
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    voice = sum(torch.sin(6.2832 * 140 * k * time) / k for k in range(1, 25)) * (time % 0.5 < 0.25)
    mouth = mouth_from_audio(voice)
    assert mouth.shape == (FPS, 2)
    loud = (torch.arange(FPS) / FPS) % 0.5 < 0.25
    assert mouth[loud, 0].mean() > 0.6 and mouth[~loud, 0].mean() < 0.25
    hiss = mouth_from_audio(torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(0)))
    assert hiss[:, 0].max() < 0.2
    assert mouth_from_audio(torch.zeros(SAMPLE_RATE))[:, 0].max() == 0
