"""The diffusion net: predicts the flow-matching velocity of one clip (upstream ``memo/models/unet_3d.py``).

``forward = head(body(stem(x)))``. The stem is one convolution, the body all blocks, the head norm, SiLU and
one convolution. What conditions a clip is a value (:class:`ClipContext`), so the same call gives the same
answer however often and in whatever order it is made. Legend: B branches, F frames, C channels, h w latent
height and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..torch_ops import Attention, Operations
from .attention import SpatialTransformer
from .config import UNet3DConfig
from .context import ClipContext, LayerContext, ReferenceFeatures
from .layers import ResnetBlock, TimestepEmbedding, group_norm, repeat_rows
from .layout import unet_layout
from .linear_memory import MotionModule
from .memory import LayerMemory, MemoryState
from .offload import Offload
from .unet3d_blocks import DownBlock3D, MidBlock3D, Reads, States, UpBlock3D


class UNet3D(nn.Module):
    """MEMO's diffusion net. ``operations`` builds the layers and ``attention`` computes softmax attention."""

    def __init__(
        self, config: UNet3DConfig, *, operations: Operations, attention: Attention, **factory: Any
    ) -> None:
        """``factory`` is what the layers are made with: dtype and device."""
        super().__init__()
        self.config = config
        layout, width = unet_layout(config), config.block_out_channels[0]
        block: dict[str, Any] = {"operations": operations, "attention": attention, **factory}
        self.conv_in = operations.Conv2d(config.in_channels, width, 3, padding=1, **factory)
        self.time_embedding = TimestepEmbedding(width, 4 * width, operations=operations, **factory)
        self.down_blocks = nn.ModuleList([DownBlock3D(config, spec, **block) for spec in layout.down])
        self.mid_block = MidBlock3D(config, layout.mid, **block)
        self.up_blocks = nn.ModuleList([UpBlock3D(config, spec, **block) for spec in layout.up])
        self.conv_norm_out = operations.GroupNorm(
            config.norm_num_groups, width, eps=config.norm_eps, **factory
        )
        self.conv_out = operations.Conv2d(width, config.out_channels, 3, padding=1, **factory)

    def layer_modules(self) -> Iterator[tuple[SpatialTransformer | None, MotionModule | None]]:
        """Every layer's spatial transformer and motion module, in the order of the forward pass."""
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            yield from block.layer_modules()  # pyright: ignore[reportCallIssue]

    # Conditioning, once per clip

    def prepare_context(
        self,
        face_tokens: Tensor,
        audio_tokens: Tensor,
        emotion: Tensor,
        reference: ReferenceFeatures | None,
        has_reference: tuple[bool, ...],
        memory: MemoryState,
        reference_rows: Tensor | None = None,
        offload: Offload | None = None,
    ) -> ClipContext:
        """Gather what is constant over a clip's steps.

        Args:
            face_tokens: (B, T, D) from the image projection.
            audio_tokens: (B, F, n, d) from the audio projection; zeros for uncond.
            emotion: (B,) class numbers; the last class of the table is the null class.
            reference: features of U runs of the reference image, or None if no branch has one.
            has_reference: one flag per branch; R of them are set.
            memory: from :meth:`update_memory`.
            reference_rows: (R, F) integer, which of the U runs each frame of each flagged branch attends to;
                None where run r belongs to the r-th flagged branch.
            offload: what brings the memory to the device, where it was made with one.

        Raises:
            ValueError: the batch sizes disagree, or the clip has more frames than the position table.
        """
        batch, frames = audio_tokens.shape[:2]
        sizes = (face_tokens.shape[0], emotion.shape[0], len(has_reference))
        if any(size != batch for size in sizes):
            raise ValueError(
                f"face tokens, emotions and reference flags must have a row per branch ({batch}) "
                f"but got {sizes} (prepare_context). Give every branch its own row."
            )
        if not 1 <= frames <= self.config.max_frames:
            raise ValueError(
                f"a clip must have 1 to {self.config.max_frames} frames but got {frames} (audio tokens). "
                "Make the clips shorter; a video may have any number of clips."
            )
        layers = []
        for index, (spatial, _) in enumerate(self.layer_modules()):
            face = seen = None
            if spatial is not None:
                block: Any = spatial.transformer_blocks[0]
                face = block.attn2.project(face_tokens)
                seen = block.attn1.project(reference.layers[index]) if reference is not None else None
            layers.append(LayerContext(face, seen))
        if reference is not None and reference_rows is None:
            reference_rows = torch.arange(sum(has_reference), device=emotion.device)[:, None].expand(
                -1, frames
            )
        return ClipContext(
            audio_tokens, emotion, has_reference, reference_rows, tuple(layers), memory, offload
        )

    def update_memory(
        self,
        features: ReferenceFeatures,
        rows: Tensor,
        memory: MemoryState | None = None,
        offload: Offload | None = None,
    ) -> MemoryState:
        """The temporal memory after a clip's past frames; call it once per clip.

        ``features`` come from the reference net for R distinct (frame, face) pairs; ``rows`` (M, P) integer
        says which of them is past frame p of branch m, or of all branches where M is 1. ``memory`` is that of
        the clip before, or None for the first clip; it is handed over, so that a linear attention's old
        memory is gone when the next one's new memory is made. ``offload`` says where that is to live.
        """
        before: Iterator[LayerMemory | None] = repeat(None) if memory is None else memory.hand_over()
        if memory is not None and offload is not None:
            before = offload.bring(before, ahead=0)  # pyright: ignore[reportArgumentType]
        number = count()

        def keep(made: LayerMemory) -> LayerMemory:
            return made if offload is None else offload.keep(next(number), made)

        memories: list[LayerMemory] = []
        for layer, (_, motion) in zip(features.layers, self.layer_modules(), strict=True):
            if motion is not None:
                memories += motion.update(layer, rows, before, keep)
        return MemoryState(memories)

    # One evaluation

    def embed_timestep(self, timestep: Tensor | float, batch: int, dtype: torch.dtype) -> Tensor:
        """Timestep in 0..1000, a number or (B,) -> (B, 4*width) in ``dtype``."""
        device = timestep.device if isinstance(timestep, Tensor) else None
        timestep = torch.as_tensor(timestep, dtype=torch.float32, device=device)
        return self.time_embedding(timestep.reshape(-1).expand(batch), dtype)

    def stem(self, latents: Tensor) -> Tensor:
        """(B, 4, F, h, w) -> (B*F, C, h, w)."""
        return self.conv_in(latents.transpose(1, 2).flatten(0, 1))

    def modulated_input(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        """The first ResNet's time-modulated activation (B*F, C, h, w): what step caches watch."""
        resnet: ResnetBlock = self.down_blocks[0].resnets[0]  # pyright: ignore
        return resnet.modulated_input(hidden_states, temb)

    def body(self, hidden_states: Tensor, temb: Tensor, context: ClipContext) -> Tensor:
        """All blocks: (B*F, C, h, w) -> the same."""
        reads: Reads = (iter(context.layers), context.memories())
        states: States = (hidden_states, context.audio_tokens.flatten(0, 1))
        skips = [hidden_states]
        for block in self.down_blocks:
            states, new_skips = block(states, temb, reads, context)
            skips += new_skips
        states = self.mid_block(states, temb, reads, context)
        for block in self.up_blocks:
            states = block(states, temb, reads, context, skips)
        return states[0]

    def head(self, hidden_states: Tensor, frames: int) -> Tensor:
        """(B*F, C, h, w) -> velocity (B, 4, F, h, w)."""
        velocity = self.conv_out(F.silu(group_norm(self.conv_norm_out, hidden_states)))
        return velocity.unflatten(0, (-1, frames)).transpose(1, 2)

    def forward(self, latents: Tensor, timestep: Tensor | float, context: ClipContext) -> Tensor:
        """The velocity of every branch.

        ``latents`` (B, 4, F, h, w), or (1, 4, F, h, w) for all branches alike; ``timestep`` in 0..1000, a
        number or (B,); any height and width. Returns (B, 4, F, h, w) in the latents' dtype.
        """
        latents = repeat_rows(latents, context.batch)
        temb = self.embed_timestep(timestep, context.batch, latents.dtype)
        return self.head(self.body(self.stem(latents), temb, context), context.frames)
