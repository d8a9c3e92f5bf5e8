"""How heads move and eyes blink: smooth random curves, and the poses of whole videos."""

import torch
from torch import Tensor
from torch.nn import functional

from .faces import FACE_FIELDS, MOTION, Pose, expression


def smooth_noise(count: int, frames: int, width: float, generator: torch.Generator) -> Tensor:
    """Gaussian curves (count, frames) of unit deviation, within two, changing over about `width` frames."""
    radius = int(3 * width)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / width).square())
    kernel /= kernel.square().sum().sqrt()
    noise = torch.randn(count, 1, frames + 2 * radius, generator=generator)
    return functional.conv1d(noise, kernel[None, None])[:, 0].clamp(-2, 2)


def blinks(count: int, frames: int, generator: torch.Generator, every: float = 75.0) -> Tensor:
    """(count, frames) eyelids, 0 open and 1 shut: short events, one in `every` frames on average."""
    starts = (torch.rand(count, 1, frames + 6, generator=generator) < 1.0 / every).float()
    shape = torch.tensor([0.45, 0.9, 1.0, 0.8, 0.35])
    return functional.conv1d(starts, shape[None, None])[:, 0, :frames].clamp(0, 1)


def video_poses(mouth: Tensor, emotions: Tensor, generator: torch.Generator) -> Pose:
    """Poses of V videos, frame after frame: `mouth` (V, T, 2), `emotions` (V, T) -> a Pose of V*T rows.

    A change of emotion takes about five frames.
    """
    videos, frames = emotions.shape
    faces = expression(emotions.flatten()).view(videos, frames, 4).transpose(1, 2)
    faces = functional.avg_pool1d(functional.pad(faces, (4, 0), mode="replicate"), 5, 1)
    curves = {
        name: (
            MOTION[name] * smooth_noise(videos, frames, 9.0 if name == "gaze" else 16.0, generator)
        ).flatten()
        for name in ("x", "y", "roll", "yaw", "gaze")
    }
    return Pose(
        **curves,
        blink=blinks(videos, frames, generator).flatten(),
        mouth_open=mouth[..., 0].flatten(),
        mouth_wide=mouth[..., 1].flatten(),
        **{name: faces[:, i].flatten() for i, name in enumerate(FACE_FIELDS)},
    )
