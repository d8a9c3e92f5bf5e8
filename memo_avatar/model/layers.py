"""The convolutional half of MEMO's nets: ResNet blocks, resampling, time embedding, feed-forward.

Frames are folded into the batch: every tensor is (B*F, C, H, W), so one class serves the per-frame
("inflated") layers of the diffusion net and the two-dimensional reference net. ``temb`` is (B, T) and is
repeated over frames.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..torch_ops import Operations


def timestep_embedding(timestep: Tensor, channels: int) -> Tensor:
    """Sinusoids (B,) -> (B, channels) in float32, cosines first (diffusers ``flip_sin_to_cos``)."""
    half = channels // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timestep.device) * (-math.log(10000.0) / half)
    angles = timestep.float()[:, None] * exponent.exp()[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def repeat_rows(x: Tensor, rows: int) -> Tensor:
    """(B, ...) -> (rows, ...): each row repeated ``rows // B`` times, in order."""
    return x if x.shape[0] == rows else x.repeat_interleave(rows // x.shape[0], dim=0)


def group_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a GroupNorm; torch refuses one row with one value per group (64 pixels, deepest level)."""
    if x.numel() == norm.num_groups:
        return norm(torch.cat([x, x]))[:1]
    return norm(x)


class TimestepEmbedding(nn.Module):
    """Two linear layers over the sinusoidal embedding."""

    def __init__(self, channels: int, embed_dim: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = operations.Linear(channels, embed_dim, **factory)
        self.linear_2 = operations.Linear(embed_dim, embed_dim, **factory)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        embedding = timestep_embedding(timestep, self.channels).to(dtype)
        return self.linear_2(F.silu(self.linear_1(embedding)))


class ResnetBlock(nn.Module):
    """Norm, SiLU, conv, + time, norm, SiLU, conv, + shortcut (upstream ``memo/models/resnet.py``)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        *,
        groups: int,
        eps: float,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm1 = operations.GroupNorm(groups, in_channels, eps=eps, **factory)
        self.conv1 = operations.Conv2d(in_channels, out_channels, 3, padding=1, **factory)
        self.time_emb_proj = operations.Linear(temb_channels, out_channels, **factory)
        self.norm2 = operations.GroupNorm(groups, out_channels, eps=eps, **factory)
        self.conv2 = operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory)
        self.conv_shortcut = None
        if in_channels != out_channels:
            self.conv_shortcut = operations.Conv2d(in_channels, out_channels, 1, **factory)

    def modulated_input(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        """The time-modulated activation: everything up to and including the second norm."""
        hidden_states = self.conv1(F.silu(group_norm(self.norm1, hidden_states)))
        shift = repeat_rows(self.time_emb_proj(F.silu(temb)), hidden_states.shape[0])
        return group_norm(self.norm2, hidden_states + shift[:, :, None, None])

    def forward(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        residual = hidden_states if self.conv_shortcut is None else self.conv_shortcut(hidden_states)
        return residual + self.conv2(F.silu(self.modulated_input(hidden_states, temb)))


class Downsample(nn.Module):
    """A 3x3 convolution with stride 2: (H, W) -> (ceil(H/2), ceil(W/2))."""

    def __init__(self, channels: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **factory)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.conv(hidden_states)


class Upsample(nn.Module):
    """Nearest resize to ``size`` (height, width), then a 3x3 convolution.

    The size is that of the skip connection to come, so heights and widths that are no multiple of 8 latents
    work.
    """

    def __init__(self, channels: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, **factory)

    def forward(self, hidden_states: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(hidden_states, size=size, mode="nearest"))


class _GEGLU(nn.Module):
    def __init__(self, dim: int, hidden_dim: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(dim, 2 * hidden_dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)  # in place: the largest tensors of an evaluation


class FeedForward(nn.Module):
    """GEGLU to four times the width and back; ``net.1`` is upstream's dropout, which does nothing here."""

    def __init__(self, dim: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.net: Any = nn.ModuleList(
            [
                _GEGLU(dim, 4 * dim, operations=operations, **factory),
                nn.Identity(),
                operations.Linear(4 * dim, dim, **factory),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))
