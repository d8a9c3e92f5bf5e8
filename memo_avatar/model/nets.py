"""The four nets of MEMO together, and building them for a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..torch_ops import Attention, Operations
from .config import MemoConfig
from .projections import AudioProjection, ImageProjection
from .reference_unet import ReferenceUNet
from .unet3d import UNet3D


@dataclass(frozen=True)
class MemoModels:
    """The four nets of one checkpoint, on one device and in one dtype."""

    diffusion_net: UNet3D
    reference_net: ReferenceUNet
    image_proj: ImageProjection
    audio_proj: AudioProjection
    config: MemoConfig

    @property
    def device(self) -> torch.device:
        return self.diffusion_net.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.diffusion_net.conv_in.weight.dtype


def build_models(
    config: MemoConfig, *, operations: Operations, attention: Attention, **factory: Any
) -> MemoModels:
    """The four nets of these sizes with unset weights; ``factory`` is what the layers are made with.

    With ``device="meta"`` they take no memory.
    """
    return MemoModels(
        diffusion_net=UNet3D(config.diffusion_net, operations=operations, attention=attention, **factory),
        reference_net=ReferenceUNet(
            config.reference_net, operations=operations, attention=attention, **factory
        ),
        image_proj=ImageProjection(config.image_proj, operations=operations, **factory),
        audio_proj=AudioProjection(config.audio_proj, operations=operations, **factory),
        config=config,
    )
