"""The reference net: one pass over images at timestep 0, of which only features are kept.

Upstream ``memo/models/unet_2d_condition.py``: a Stable Diffusion 1.5 UNet without output convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..torch_ops import Attention, Operations
from .attention import SpatialTransformer
from .config import ReferenceUNetConfig
from .context import ReferenceFeatures
from .layers import Downsample, ResnetBlock, TimestepEmbedding, Upsample
from .layout import BlockSpec, unet_layout


class _Block(nn.Module):
    """ResNets with or without spatial transformers; ``resample`` is a down- or upsampling class."""

    def __init__(
        self,
        config: ReferenceUNetConfig,
        spec: BlockSpec,
        layers: int,
        *,
        attention: Attention,
        feature_only: bool = False,
        **factory: Any,
    ) -> None:
        super().__init__()
        groups = {"groups": config.norm_num_groups}
        temb_channels = 4 * config.block_out_channels[0]
        self.resnets: Any = nn.ModuleList(
            [
                ResnetBlock(i, o, temb_channels, eps=config.norm_eps, **groups, **factory)
                for i, o in spec.resnets
            ]
        )
        self.attentions: Any = None
        if spec.attention:
            self.attentions = nn.ModuleList(
                [
                    SpatialTransformer(
                        spec.channels,
                        spec.heads,
                        config.cross_attention_dim,
                        linear_projection=config.use_linear_projection,
                        feature_only=feature_only and index == layers - 1,
                        attention=attention,
                        **groups,
                        **factory,
                    )
                    for index in range(layers)
                ]
            )

    def attend(self, index: int, hidden_states: Tensor, face_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """One layer after its ResNet -> (states, feature); the feature is (R, L, C)."""
        if self.attentions is None:
            return hidden_states, hidden_states.flatten(2).transpose(1, 2)
        return self.attentions[index].forward_reference(hidden_states, face_tokens)


class _DownBlock(_Block):
    def __init__(
        self, config: ReferenceUNetConfig, spec: BlockSpec, *, attention: Attention, **factory: Any
    ) -> None:
        super().__init__(config, spec, len(spec.resnets), attention=attention, **factory)
        self.downsamplers = nn.ModuleList([Downsample(spec.channels, **factory)]) if spec.resample else None


class _UpBlock(_Block):
    def __init__(
        self, config: ReferenceUNetConfig, spec: BlockSpec, *, attention: Attention, **factory: Any
    ) -> None:
        super().__init__(
            config, spec, len(spec.resnets), attention=attention, feature_only=spec.final, **factory
        )
        self.upsamplers = nn.ModuleList([Upsample(spec.channels, **factory)]) if spec.resample else None


class ReferenceUNet(nn.Module):
    """MEMO's reference net. ``operations`` builds the layers and ``attention`` computes softmax attention."""

    def __init__(
        self, config: ReferenceUNetConfig, *, operations: Operations, attention: Attention, **factory: Any
    ) -> None:
        """``factory`` is what the layers are made with: dtype and device."""
        super().__init__()
        self.config = config
        layout, width = unet_layout(config), config.block_out_channels[0]
        block: dict[str, Any] = {"operations": operations, "attention": attention, **factory}
        self.conv_in = operations.Conv2d(config.in_channels, width, 3, padding=1, **factory)
        self.time_embedding = TimestepEmbedding(width, 4 * width, operations=operations, **factory)
        self.down_blocks: Any = nn.ModuleList([_DownBlock(config, spec, **block) for spec in layout.down])
        self.mid_block = _Block(config, layout.mid, 1, **block)
        self.up_blocks: Any = nn.ModuleList([_UpBlock(config, spec, **block) for spec in layout.up])

    def forward(self, latents: Tensor, face_tokens: Tensor) -> ReferenceFeatures:
        """Features of R images: ``latents`` (R, 4, h, w), ``face_tokens`` (R, T, D)."""
        timestep = torch.zeros(1, device=latents.device)
        temb = self.time_embedding(timestep, latents.dtype)
        hidden_states = self.conv_in(latents)
        hidden_states, skips, features = self._down(hidden_states, temb, face_tokens)
        hidden_states = self.mid_block.resnets[0](hidden_states, temb)
        hidden_states, feature = self.mid_block.attend(0, hidden_states, face_tokens)
        features.append(feature)
        hidden_states = self.mid_block.resnets[1](hidden_states, temb)
        return ReferenceFeatures(tuple(features + self._up(hidden_states, temb, face_tokens, skips)))

    def _down(
        self, hidden_states: Tensor, temb: Tensor, face_tokens: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        skips, features = [hidden_states], []
        for block in self.down_blocks:
            for index, resnet in enumerate(block.resnets):
                hidden_states, feature = block.attend(index, resnet(hidden_states, temb), face_tokens)
                features.append(feature)
                skips.append(hidden_states)
            if block.downsamplers is not None:
                hidden_states = block.downsamplers[0](hidden_states)
                skips.append(hidden_states)
        return hidden_states, skips, features

    def _up(
        self, hidden_states: Tensor, temb: Tensor, face_tokens: Tensor, skips: list[Tensor]
    ) -> list[Tensor]:
        features: list[Tensor] = []
        last = (len(self.up_blocks) - 1, len(self.up_blocks[-1].resnets) - 1)
        for number, block in enumerate(self.up_blocks):
            for index, resnet in enumerate(block.resnets):
                hidden_states = resnet(torch.cat([hidden_states, skips.pop()], dim=1), temb)
                if (number, index) == last:
                    # Nothing reads this net's output: its last layer ends at the feature.
                    features.append(block.attentions[index].reference_feature(hidden_states)[0])
                    return features
                hidden_states, feature = block.attend(index, hidden_states, face_tokens)
                features.append(feature)
            if block.upsamplers is not None:
                height, width = skips[-1].shape[2:]
                hidden_states = block.upsamplers[0](hidden_states, (height, width))
        return features
