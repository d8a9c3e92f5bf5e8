"""The work that is measured: nets of random weights, an autoencoder, a portrait, a voice, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.flops import VAE_CONFIG, WAV2VEC2_LAYERS, WAV2VEC2_WIDTH, WINDOW, real_config
from memo_avatar.checkpoint.load import uninitialized
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import SIZE, Portrait, Voice
from memo_avatar.model.config import MemoConfig
from memo_avatar.model.nets import MemoModels, build_models
from memo_avatar.model.vae import SmallAutoencoder
from memo_avatar.torch_ops import sdpa_attention

PARTS = ("diffusion_net", "reference_net", "image_proj", "audio_proj")
EMOTION = 3
SEED = 0


@dataclass(frozen=True)
class Scale:
    """Sizes of nets and clips. ``small_size`` is what precision is measured at: in float32 there is room."""

    config: MemoConfig
    vae: Mapping[str, Any]
    size: int
    small_size: int
    frames: int
    repeats: int

    def settings(self, **others: Any) -> SamplingSettings:
        return SamplingSettings(frames_per_clip=self.frames, past_frames=self.frames, **others)

    def portrait(self, size: int | None = None) -> Portrait:
        side, generator = size or self.size, torch.Generator().manual_seed(SEED)
        pixels = torch.rand(1, 3, side, side, generator=generator) * 2 - 1
        return Portrait(pixels, torch.randn(1, 512, generator=generator))

    def voice(self, clips: int) -> Voice:
        """Of whole clips."""
        frames, generator = clips * self.frames, torch.Generator().manual_seed(SEED)
        features = torch.randn(frames, WINDOW, WAV2VEC2_LAYERS, WAV2VEC2_WIDTH, generator=generator)
        return Voice(features, torch.full((frames,), EMOTION), frames)


REAL = Scale(real_config(), VAE_CONFIG, SIZE, small_size=128, frames=16, repeats=3)


def rehearsal() -> Scale:
    """The same nets, so narrow that a clip takes a moment on a CPU."""
    real = real_config()
    narrow: dict[str, Any] = {
        "block_out_channels": (32,) * 4,
        "layers_per_block": 1,
        "cross_attention_dim": 32,
    }
    config = MemoConfig(
        diffusion_net=replace(real.diffusion_net, **narrow, audio_attention_dim=32),
        reference_net=replace(real.reference_net, **narrow),
        image_proj=replace(real.image_proj, dim=32),
        audio_proj=replace(real.audio_proj, hidden_dim=32, tokens=4, dim=32),
    )
    vae = VAE_CONFIG | {"block_out_channels": [32] * 4, "layers_per_block": 1}
    return Scale(config, vae, size=64, small_size=64, frames=2, repeats=1)


class OneByOneVAE:
    """The autoencoder in the command's way: a picture of the trained size at a time."""

    def __init__(self, net: SmallAutoencoder, device: torch.device, dtype: torch.dtype) -> None:
        self.net, self.device, self.dtype = net, device, dtype

    def encode(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.net.encode(self._here(picture)) for picture in pixels.split(1)])

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([self.net.decode(self._here(latent)).to(latents) for latent in latents.split(1)])

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)


def make_nets(scale: Scale, device: torch.device, dtype: torch.dtype) -> MemoModels:
    """The four nets with the same random weights whatever the dtype, to its rounding."""
    models = build_models(
        scale.config, operations=uninitialized, attention=sdpa_attention, dtype=dtype, device="meta"
    )
    for name in PARTS:
        fill(getattr(models, name).to_empty(device=device))
    return models


def make_vae(scale: Scale, device: torch.device, dtype: torch.dtype) -> OneByOneVAE:
    """As the command loads it: in float32 beside nets in float16, in which it overflows."""
    dtype = torch.float32 if dtype is torch.float16 else dtype
    net = SmallAutoencoder(
        scale.vae, operations=uninitialized, attention=sdpa_attention, dtype=dtype, device="meta"
    )
    return OneByOneVAE(fill(net.to_empty(device=device)), device, dtype)


def fill(net: Any) -> Any:
    """Random weights, none of them zero, drawn in float32: multiplying zeros is faster than multiplying."""
    torch.manual_seed(SEED)
    tensors: Mapping[str, Tensor] = net.state_dict()
    for name, tensor in tensors.items():
        drawn = torch.randn(tensor.shape, device=tensor.device)
        drawn *= tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1
        if tensor.ndim == 1 and name.endswith("weight"):
            drawn += 1
        tensor.copy_(drawn)
    return net.requires_grad_(False).eval()


def weights_of(*nets: nn.Module) -> int:
    """Bytes."""
    return sum(tensor.nbytes for net in nets for tensor in net.state_dict().values())
