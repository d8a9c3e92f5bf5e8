"""How many numbers MEMO's values hold, from the nets' sizes alone: what a video takes, before it is made.

``height`` and ``width`` are those of the latents.
"""

from __future__ import annotations

from collections.abc import Iterator

from .config import UNet3DConfig
from .layout import BlockSpec, unet_layout

EVALUATION_TENSORS = 30
"""An evaluation of one branch takes as much as this many tensors of the first level's width, one number per
latent pixel, frame and channel; a run of the reference net as much as one of its frames. Counted at 512x512
(`python -m benchmarks.device_memory`) it is some 26; kernels need room besides."""

RUNS_PER_PART = 4
"""Images of the trained size that go through the reference net at once; smaller ones more at a time."""

UPDATE_FEATURES = 0.9
"""The update of the memory takes this many times the features of all past frames beside them; counted 0.8."""

_TRAINED_PIXELS = 64 * 64


def memory_sizes(config: UNet3DConfig, height: int, width: int) -> tuple[int, ...]:
    """Numbers in one branch's temporal memory, of each linear attention in the order of the forward pass: per
    pixel C²/N + C."""
    sizes: list[int] = []
    for spec, remembers in _layers(config):
        numbers = spec.channels * spec.channels // config.motion_num_attention_heads + spec.channels
        attentions = config.motion_num_transformer_blocks * config.motion_num_attentions if remembers else 0
        sizes += [_pixels(spec, height, width) * numbers] * attentions
    return tuple(sizes)


def features_size(config: UNet3DConfig, height: int, width: int) -> int:
    """Numbers that the reference net keeps of one image."""
    return sum(_pixels(spec, height, width) * spec.channels for spec, _ in _layers(config))


def evaluation_size(config: UNet3DConfig, frames: int, height: int, width: int) -> int:
    """Numbers that an evaluation of one branch takes beside weights, context and memory."""
    return EVALUATION_TENSORS * config.block_out_channels[0] * frames * height * width


def runs_per_part(height: int, width: int) -> int:
    """Images of this size that go through the reference net at once."""
    return max(1, RUNS_PER_PART * _TRAINED_PIXELS // (height * width))


def conditions_size(config: UNet3DConfig, runs: int, height: int, width: int) -> int:
    """Numbers that a clip's context takes while it is made: the features of all ``runs`` of past frames, and
    the reference net on some of them or the update of the memory, beside the memory itself."""
    features, at_once = features_size(config, height, width), min(runs, runs_per_part(height, width))
    part = evaluation_size(config, at_once, height, width)
    return runs * features + max(part, round(UPDATE_FEATURES * runs * features))


def context_size(config: UNet3DConfig, faces: int, height: int, width: int) -> int:
    """Numbers that condition a clip beside its memory: the reference image's features, keys and values."""
    return 3 * faces * features_size(config, height, width)


def _layers(config: UNet3DConfig) -> Iterator[tuple[BlockSpec, bool]]:
    """The block of every layer with attention and motion, and whether the layer has motion."""
    layout = unet_layout(config)
    for spec in (*layout.down, layout.mid, *layout.up):
        remembers = spec is layout.mid or config.motion_levels[spec.level]
        yield from [(spec, remembers)] * len(spec.audio_dims)


def _pixels(spec: BlockSpec, height: int, width: int) -> int:
    return -(-height // 2**spec.level) * -(-width // 2**spec.level)
