"""Down, mid and up blocks of the diffusion net (upstream ``memo/models/unet_3d_blocks.py``).

A layer is ResNet -> spatial transformer -> audio transformer -> motion module; plain blocks have no
transformers. Image states are (B*F, C, H, W), audio states (B*F, A, D) and travel through all layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..torch_ops import Attention
from .attention import AudioTransformer, SpatialTransformer
from .config import UNet3DConfig
from .context import ClipContext, LayerContext
from .layers import Downsample, ResnetBlock, Upsample
from .layout import BlockSpec
from .linear_memory import MotionModule
from .memory import LayerMemory

States = tuple[Tensor, Tensor | None]
"""Image states and audio states."""

Reads = tuple[Iterator[LayerContext], Iterator[LayerMemory]]
"""What the layers read in turn, and the temporal memory that their linear attentions read in turn."""


class _Block(nn.Module):
    """The modules of one block, named as in upstream's checkpoints."""

    attentions: nn.ModuleList | None
    audio_modules: nn.ModuleList | None
    motion_modules: nn.ModuleList | None

    def __init__(
        self, config: UNet3DConfig, spec: BlockSpec, layers: int, *, attention: Attention, **factory: Any
    ) -> None:
        """``layers`` counts those with attention and motion."""
        super().__init__()
        self.layer_count = layers
        self.attentions = self.audio_modules = self.motion_modules = None
        groups = {"groups": config.norm_num_groups}
        temb_channels = 4 * config.block_out_channels[0]
        self.resnets = nn.ModuleList(
            [
                ResnetBlock(i, o, temb_channels, eps=config.norm_eps, **groups, **factory)
                for i, o in spec.resnets
            ]
        )
        if spec.attention:
            shared = {
                **groups,
                "linear_projection": config.use_linear_projection,
                "attention": attention,
                **factory,
            }
            width, heads = spec.channels, spec.heads
            self.attentions = nn.ModuleList(
                [
                    SpatialTransformer(width, heads, config.cross_attention_dim, **shared)
                    for _ in range(layers)
                ]
            )
            self.audio_modules = nn.ModuleList(
                [
                    AudioTransformer(
                        width,
                        inner,
                        config.audio_attention_dim,
                        heads,
                        config.num_emotions,
                        audio_output=not (spec.final and index == layers - 1),
                        **shared,
                    )
                    for index, inner in enumerate(spec.audio_dims)
                ]
            )
        if config.motion_levels[spec.level] or isinstance(self, MidBlock3D):
            self.motion_modules = nn.ModuleList(
                [
                    MotionModule(
                        spec.channels,
                        config.motion_num_attention_heads,
                        config.motion_num_transformer_blocks,
                        config.motion_num_attentions,
                        config.max_frames,
                        **factory,
                    )
                    for _ in range(layers)
                ]
            )

    def layer_modules(self) -> Iterator[tuple[SpatialTransformer | None, MotionModule | None]]:
        """Each layer's spatial transformer and motion module, in order."""
        for index in range(self.layer_count):
            yield (
                self.attentions[index] if self.attentions else None,  # pyright: ignore[reportReturnType]
                self.motion_modules[index] if self.motion_modules else None,
            )

    def attend(self, index: int, states: States, reads: Reads, context: ClipContext) -> States:
        """Everything of one layer after its ResNet."""
        (hidden_states, audio), (layers, memories) = states, reads
        layer = next(layers)
        if self.attentions is not None and self.audio_modules is not None:
            hidden_states = self.attentions[index](hidden_states, layer, context)
            hidden_states, audio = self.audio_modules[index](hidden_states, audio, context)
        if self.motion_modules is not None:
            hidden_states = self.motion_modules[index](hidden_states, context.frames, memories)
        return hidden_states, audio


class DownBlock3D(_Block):
    """Layers, then a downsampler unless it is the last block; every result is also a skip connection."""

    def __init__(
        self, config: UNet3DConfig, spec: BlockSpec, *, attention: Attention, **factory: Any
    ) -> None:
        super().__init__(config, spec, len(spec.resnets), attention=attention, **factory)
        self.downsamplers = nn.ModuleList([Downsample(spec.channels, **factory)]) if spec.resample else None

    def forward(
        self, states: States, temb: Tensor, reads: Reads, context: ClipContext
    ) -> tuple[States, list[Tensor]]:
        skips = []
        for index, resnet in enumerate(self.resnets):
            states = self.attend(index, (resnet(states[0], temb), states[1]), reads, context)
            skips.append(states[0])
        if self.downsamplers is not None:
            states = (self.downsamplers[0](states[0]), states[1])
            skips.append(states[0])
        return states, skips


class MidBlock3D(_Block):
    """ResNet, one layer's attention and motion, ResNet."""

    def __init__(self, config: UNet3DConfig, spec: BlockSpec, **factory: Any) -> None:
        super().__init__(config, spec, 1, **factory)

    def forward(self, states: States, temb: Tensor, reads: Reads, context: ClipContext) -> States:
        hidden_states = self.resnets[0](states[0], temb)
        hidden_states, audio = self.attend(0, (hidden_states, states[1]), reads, context)
        return self.resnets[1](hidden_states, temb), audio


class UpBlock3D(_Block):
    """Layers that each take one skip connection, then an upsampler unless it is the last block."""

    def __init__(
        self, config: UNet3DConfig, spec: BlockSpec, *, attention: Attention, **factory: Any
    ) -> None:
        super().__init__(config, spec, len(spec.resnets), attention=attention, **factory)
        self.upsamplers = nn.ModuleList([Upsample(spec.channels, **factory)]) if spec.resample else None

    def forward(
        self,
        states: States,
        temb: Tensor,
        reads: Reads,
        context: ClipContext,
        skips: list[Tensor],
    ) -> States:
        """``skips`` is consumed from its end, one per ResNet."""
        for index, resnet in enumerate(self.resnets):
            hidden_states = resnet(torch.cat([states[0], skips.pop()], dim=1), temb)
            states = self.attend(index, (hidden_states, states[1]), reads, context)
        if self.upsamplers is not None:
            height, width = skips[-1].shape[2:]
            states = (self.upsamplers[0](states[0], (height, width)), states[1])
        return states
