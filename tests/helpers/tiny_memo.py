"""A MEMO of a few thousand random weights, and an autoencoder without any, for tests of behaviour."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memo_avatar.inputs import Portrait, Voice
from memo_avatar.model.config import (
    AudioProjectionConfig,
    ImageProjectionConfig,
    MemoConfig,
    ReferenceUNetConfig,
    UNet3DConfig,
)
from memo_avatar.model.nets import MemoModels
from memo_avatar.model.projections import AudioProjection, ImageProjection
from memo_avatar.model.reference_unet import ReferenceUNet
from memo_avatar.model.unet3d import UNet3D
from memo_avatar.torch_ops import sdpa_attention

WIDTHS = (32, 32, 32, 64)
FACE_DIM, AUDIO_DIM = 8, 12
WINDOW, BLOCKS, CHANNELS = 5, 2, 3


def tiny_config(*, linear_projection: bool = False) -> MemoConfig:
    """All four nets at their smallest; motion modules need widths divisible by 32."""
    shared = {
        "in_channels": 4,
        "block_out_channels": WIDTHS,
        "layers_per_block": 1,
        "attention_levels": (True, True, True, False),
        "num_attention_heads": (2, 2, 2, 2),
        "cross_attention_dim": FACE_DIM,
        "use_linear_projection": linear_projection,
        "norm_num_groups": 8,
    }
    return MemoConfig(
        diffusion_net=UNet3DConfig(**shared, audio_attention_dim=AUDIO_DIM, motion_num_attention_heads=4),
        reference_net=ReferenceUNetConfig(**shared),
        image_proj=ImageProjectionConfig(embedding_dim=512, tokens=2, dim=FACE_DIM),
        audio_proj=AudioProjectionConfig(WINDOW * BLOCKS * CHANNELS, hidden_dim=8, tokens=2, dim=AUDIO_DIM),
    )


def tiny_memo(*, linear_projection: bool = False, seed: int = 0) -> MemoModels:
    """The nets with random weights, none of them zero."""
    config = tiny_config(linear_projection=linear_projection)
    nets = {"operations": nn, "attention": sdpa_attention}
    models = MemoModels(
        diffusion_net=UNet3D(config.diffusion_net, **nets),
        reference_net=ReferenceUNet(config.reference_net, **nets),
        image_proj=ImageProjection(config.image_proj, operations=nn),
        audio_proj=AudioProjection(config.audio_proj, operations=nn),
        config=config,
    )
    generator = torch.Generator().manual_seed(seed)
    for net in (models.diffusion_net, models.reference_net, models.image_proj, models.audio_proj):
        net.requires_grad_(False).eval()
        for name, tensor in net.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1
            tensor.copy_(noise * scale + (tensor.ndim == 1 and name.endswith("weight")))
    return models


class PoolingVAE:
    """Eightfold average pooling and nearest enlargement; the fourth latent channel is the colours' mean."""

    def encode(self, pixels: Tensor) -> Tensor:
        pooled = F.avg_pool2d(pixels, 8)
        return torch.cat([pooled, pooled.mean(dim=1, keepdim=True)], dim=1) / 0.18215

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents[:, :3] * 0.18215, scale_factor=8, mode="nearest")


def tiny_portrait(height: int = 32, width: int = 32, *, face: bool = True) -> Portrait:
    """Smooth random pixels, with a random face embedding or none."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 4, 4, generator=generator)
    pixels = F.interpolate(coarse, size=(height, width), mode="bilinear")
    embedding = torch.randn(1, 512, generator=generator) if face else torch.zeros(1, 512)
    return Portrait(pixels * 2 - 1, embedding)


def tiny_voice(frames: int, emotion: int = 3) -> Voice:
    """Random audio features; a longer voice begins with the shorter one."""
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(64, WINDOW, BLOCKS, CHANNELS, generator=generator)[:frames]
    return Voice(embeddings, torch.full((frames,), emotion), frames)
