"""The block layout that both UNets share (Stable Diffusion 1.5's), as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from .config import UNetConfig


@dataclass(frozen=True)
class BlockSpec:
    """One down, mid or up block.

    ``resnets`` holds (in, out) channels per ResNet; ``channels`` is the block's width; ``audio_dim`` the
    inner width of each layer's audio transformer (upstream builds it from the block's *input* width);
    ``resample`` says whether a down- or upsampler ends the block; ``level`` counts resolutions from the top;
    ``final`` marks the last up block.
    """

    channels: int
    resnets: tuple[tuple[int, int], ...]
    audio_dims: tuple[int, ...]
    heads: int
    attention: bool
    resample: bool
    level: int
    final: bool


@dataclass(frozen=True)
class UNetLayout:
    """All blocks of one UNet, in the order of the forward pass."""

    down: tuple[BlockSpec, ...]
    mid: BlockSpec
    up: tuple[BlockSpec, ...]


def unet_layout(config: UNetConfig) -> UNetLayout:
    """Channels of every ResNet, skip connections included."""
    widths, count = config.block_out_channels, config.layers_per_block
    last = len(widths) - 1
    down = []
    for level, width in enumerate(widths):
        entry = widths[max(level - 1, 0)]
        inputs = (entry,) + (width,) * (count - 1)
        down.append(_spec(config, level, tuple((i, width) for i in inputs), inputs, resample=level < last))
    up = []
    for position, level in enumerate(range(last, -1, -1)):
        width, below, above = widths[level], widths[min(level + 1, last)], widths[max(level - 1, 0)]
        inputs = (below,) + (width,) * count
        skips = (width,) * count + (above,)
        resnets = tuple((i + skip, width) for i, skip in zip(inputs, skips, strict=True))
        final = position == last
        up.append(_spec(config, level, resnets, (above,) * (count + 1), resample=not final, final=final))
    mid = _spec(config, last, ((widths[-1], widths[-1]),) * 2, (widths[-1],), resample=False, attention=True)
    return UNetLayout(tuple(down), mid, tuple(up))


def _spec(
    config: UNetConfig,
    level: int,
    resnets: tuple[tuple[int, int], ...],
    audio_inputs: tuple[int, ...],
    *,
    resample: bool,
    attention: bool | None = None,
    final: bool = False,
) -> BlockSpec:
    heads = config.num_attention_heads[level]
    return BlockSpec(
        channels=config.block_out_channels[level],
        resnets=resnets,
        audio_dims=tuple(width // heads * heads for width in audio_inputs),
        heads=heads,
        attention=config.attention_levels[level] if attention is None else attention,
        resample=resample,
        level=level,
        final=final,
    )
