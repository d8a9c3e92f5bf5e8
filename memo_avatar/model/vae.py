"""The autoencoder of Stable Diffusion at any width, with diffusers' parameter names (AutoencoderKL)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class _Resnet(nn.Module):
    def __init__(self, in_dim: int, out_dim: int, groups: int, *, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.norm1 = operations.GroupNorm(groups, in_dim, eps=1e-6, **factory)
        self.conv1 = operations.Conv2d(in_dim, out_dim, 3, padding=1, **factory)
        self.norm2 = operations.GroupNorm(groups, out_dim, eps=1e-6, **factory)
        self.conv2 = operations.Conv2d(out_dim, out_dim, 3, padding=1, **factory)
        if in_dim != out_dim:
            self.conv_shortcut = operations.Conv2d(in_dim, out_dim, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return hidden + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class _Attention(nn.Module):
    def __init__(self, dim: int, groups: int, *, operations: Any, attention: Any, **factory: Any) -> None:
        super().__init__()
        self.attention = attention
        self.group_norm = operations.GroupNorm(groups, dim, eps=1e-6, **factory)
        self.to_q = operations.Linear(dim, dim, **factory)
        self.to_k = operations.Linear(dim, dim, **factory)
        self.to_v = operations.Linear(dim, dim, **factory)
        self.to_out = nn.ModuleList([operations.Linear(dim, dim, **factory)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (N, C, h, w) -> (N, L, C)
        attended = self.attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens), 1)
        return x + self.to_out[0](attended).transpose(1, 2).reshape_as(x)


class _Resample(nn.Module):
    def __init__(self, dim: int, *, down: bool, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.down = down
        self.conv = operations.Conv2d(
            dim, dim, 3, stride=2 if down else 1, padding=0 if down else 1, **factory
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Level(nn.Module):
    """ResNets, then a resampling convolution but at the last level."""

    def __init__(self, widths: list[int], groups: int, *, down: bool, resample: bool, **factory: Any) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.resnets = nn.ModuleList([_Resnet(i, o, groups, **factory) for i, o in pairs])
        self.resampler = "downsamplers" if down else "upsamplers"  # diffusers' names
        blocks = [_Resample(widths[-1], down=down, **factory)] if resample else []
        setattr(self, self.resampler, nn.ModuleList(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for module in (*self.resnets, *getattr(self, self.resampler)):
            x = module(x)
        return x


class _Middle(nn.Module):
    def __init__(self, dim: int, groups: int, *, attention: Any, **factory: Any) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([_Attention(dim, groups, attention=attention, **factory)])
        self.resnets = nn.ModuleList([_Resnet(dim, dim, groups, **factory) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class _Encoder(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, attention: Any, operations: Any, **factory: Any) -> None:
        super().__init__()
        widths, groups = config["block_out_channels"], config["norm_num_groups"]
        shared = {"operations": operations, **factory}
        self.conv_in = operations.Conv2d(config["in_channels"], widths[0], 3, padding=1, **factory)
        self.down_blocks = nn.ModuleList()
        for index, width in enumerate(widths):
            path = [widths[max(0, index - 1)], *[width] * config["layers_per_block"]]
            last = index == len(widths) - 1
            self.down_blocks.append(_Level(path, groups, down=True, resample=not last, **shared))
        self.mid_block = _Middle(widths[-1], groups, attention=attention, **shared)
        self.conv_norm_out = operations.GroupNorm(groups, widths[-1], eps=1e-6, **factory)
        self.conv_out = operations.Conv2d(widths[-1], 2 * config["latent_channels"], 3, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class _Decoder(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, attention: Any, operations: Any, **factory: Any) -> None:
        super().__init__()
        widths, groups = list(reversed(config["block_out_channels"])), config["norm_num_groups"]
        shared = {"operations": operations, **factory}
        self.conv_in = operations.Conv2d(config["latent_channels"], widths[0], 3, padding=1, **factory)
        self.mid_block = _Middle(widths[0], groups, attention=attention, **shared)
        self.up_blocks = nn.ModuleList()
        for index, width in enumerate(widths):
            path = [widths[max(0, index - 1)], *[width] * (config["layers_per_block"] + 1)]
            last = index == len(widths) - 1
            self.up_blocks.append(_Level(path, groups, down=False, resample=not last, **shared))
        self.conv_norm_out = operations.GroupNorm(groups, widths[-1], eps=1e-6, **factory)
        self.conv_out = operations.Conv2d(widths[-1], config["out_channels"], 3, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class SmallAutoencoder(nn.Module):
    """diffusers' AutoencoderKL: pixels -1..1 to the posterior's mean and back."""

    def __init__(self, config: Mapping[str, Any], *, attention: Any, **factory: Any) -> None:
        super().__init__()
        operations, latent = factory["operations"], config["latent_channels"]
        plain = {name: value for name, value in factory.items() if name != "operations"}
        self.encoder = _Encoder(config, attention=attention, **factory)
        self.decoder = _Decoder(config, attention=attention, **factory)
        self.quant_conv = operations.Conv2d(2 * latent, 2 * latent, 1, **plain)
        self.post_quant_conv = operations.Conv2d(latent, latent, 1, **plain)

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4, H/8, W/8)."""
        return self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)[0]

    def decode(self, latents: Tensor, **_options: Any) -> Tensor:
        """(N, 4, h, w) -> (N, 3, 8h, 8w)."""
        return self.decoder(self.post_quant_conv(latents))
