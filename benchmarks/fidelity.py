"""How near a video is to another: frames (T, 3, H, W) in 0..1."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional


def psnr(frames: Tensor, reference: Tensor) -> float:
    """Decibels, over a whole video in 0..1; identical videos give 120."""
    error = (frames - reference).square().mean().clamp_min(1e-12)
    return float(-10 * error.log10())


def ssim(frames: Tensor, reference: Tensor) -> float:
    """Structural similarity of the luminance, 7x7 windows."""
    weights = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
    x, y = (frames * weights).sum(1, keepdim=True), (reference * weights).sum(1, keepdim=True)
    mean = partial(functional.avg_pool2d, kernel_size=7, stride=1)
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
