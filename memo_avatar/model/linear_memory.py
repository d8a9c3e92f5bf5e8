"""Memory-guided linear attention over time (paper section 3.2, upstream ``memo/models/motion_module.py``).

Per pixel and head, with q = softmax over channels times scale and k = softmax over the frames of the call:
``KV = d*memory.kv + k'v``, ``Z = d*memory.z + sum k``, ``out = q KV / clamp(q Z, 1e-10)``, d = 0.9. The
memory comes from the past frames' reference features and changes once per clip. Upstream: it lives in the
attention processors, updated as a side effect of the first step. Here: a value, computed by
:meth:`MotionModule.update` and passed in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..torch_ops import Operations
from .context import KeyValue, LayerMemory
from .layers import FeedForward, group_norm

DECAY = 0.9
"""Weight of one frame of distance. Fixed in upstream's code, not in the checkpoint."""

_GROUPS = 32  # fixed in upstream's motion modules, whatever norm_num_groups says


class _PositionTable(nn.Module):
    def __init__(self, dim: int, max_frames: int, **factory: Any) -> None:
        super().__init__()
        self.register_buffer("pe", torch.empty(1, max_frames, dim, **factory))


class MemoryLinearAttention(nn.Module):
    """Linear attention over the F frames of each pixel, guided by the memory of earlier frames."""

    def __init__(
        self, dim: int, heads: int, max_frames: int, *, operations: Operations, **factory: Any
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.pos_encoder: Any = _PositionTable(dim, max_frames, **factory)
        self.to_q = operations.Linear(dim, dim, bias=False, **factory)
        self.to_k = operations.Linear(dim, dim, bias=False, **factory)
        self.to_v = operations.Linear(dim, dim, bias=False, **factory)
        self.to_out = nn.ModuleList([operations.Linear(dim, dim, **factory)])

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (P, F, C) -> (P, N, F, D)

    def forward(self, hidden_states: Tensor, memory: LayerMemory) -> Tensor:
        """``hidden_states`` (B*L, F, C), frames in the middle -> the same."""
        frames = hidden_states.shape[1]
        hidden_states = hidden_states + self.pos_encoder.pe[:, :frames].to(hidden_states)
        query = self._split(self.to_q(hidden_states)).softmax(dim=-1) * self.scale
        key = self._split(self.to_k(hidden_states)).softmax(dim=-2)
        value = self._split(self.to_v(hidden_states))
        kv = DECAY * memory.kv.flatten(0, 1) + key.transpose(-1, -2) @ value  # (B*L, N, D, D)
        z = DECAY * memory.z.flatten(0, 1) + key.sum(dim=-2)  # (B*L, N, D)
        out = (query @ kv) / (query @ z.unsqueeze(-1)).clamp(min=1e-10)
        return self.to_out[0](out.transpose(1, 2).flatten(2))

    def update(self, past: KeyValue, rows: Tensor, memory: LayerMemory | None) -> LayerMemory:
        """The memory after the past frames: ``past`` (R, L, C), ``rows`` (B, P) into the R.

        ``memory`` may lie on another device.
        """
        batch, frames = rows.shape
        key, value = (
            x[rows.flatten()].unflatten(0, (batch, frames)).transpose(1, 2).flatten(0, 1)
            for x in (past.key, past.value)
        )  # (R, L, C) -> (B*L, P, C)
        exponents = torch.arange(frames - 1, -1, -1, device=key.device, dtype=key.dtype)
        decay = (DECAY**exponents)[:, None]
        key = self._split(key).softmax(dim=-2) * decay
        value = self._split(value) * decay
        kv = (key.transpose(-1, -2) @ value).unflatten(0, (batch, -1))  # (B, L, N, D, D)
        z = key.sum(dim=-2).unflatten(0, (batch, -1))
        if memory is None:
            return LayerMemory(kv, z)
        fade = DECAY**frames
        return LayerMemory(memory.kv.to(kv) * fade + kv, memory.z.to(z) * fade + z)


class _TemporalBlock(nn.Module):
    def __init__(
        self,
        dim: int,
        heads: int,
        attentions: int,
        max_frames: int,
        *,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            [
                MemoryLinearAttention(dim, heads, max_frames, operations=operations, **factory)
                for _ in range(attentions)
            ]
        )
        self.norms = nn.ModuleList([operations.LayerNorm(dim, **factory) for _ in range(attentions)])
        self.ff = FeedForward(dim, operations=operations, **factory)
        self.ff_norm = operations.LayerNorm(dim, **factory)


class _TemporalTransformer(nn.Module):
    def __init__(
        self,
        channels: int,
        heads: int,
        blocks: int,
        attentions: int,
        max_frames: int,
        *,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(_GROUPS, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        self.transformer_blocks: Any = nn.ModuleList(
            [
                _TemporalBlock(channels, heads, attentions, max_frames, operations=operations, **factory)
                for _ in range(blocks)
            ]
        )
        self.proj_out = operations.Linear(channels, channels, **factory)


class MotionModule(nn.Module):
    """The temporal transformer of one layer, with a residual around it."""

    def __init__(
        self,
        channels: int,
        heads: int,
        blocks: int,
        attentions: int,
        max_frames: int,
        *,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.temporal_transformer = _TemporalTransformer(
            channels, heads, blocks, attentions, max_frames, operations=operations, **factory
        )

    def _attentions(self) -> list[tuple[nn.Module, MemoryLinearAttention]]:
        blocks = self.temporal_transformer.transformer_blocks
        return [pair for block in blocks for pair in zip(block.norms, block.attention_blocks, strict=True)]

    def forward(self, hidden_states: Tensor, frames: int, memories: tuple[LayerMemory, ...]) -> Tensor:
        """``hidden_states`` (B*F, C, H, W) -> the same; one memory per linear attention."""
        net, remaining = self.temporal_transformer, iter(memories)
        tokens = net.proj_in(group_norm(net.norm, hidden_states).flatten(2).transpose(1, 2))  # (B*F, L, C)
        tokens = tokens.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)  # (B*L, F, C)
        for block in net.transformer_blocks:
            for norm, attention in zip(block.norms, block.attention_blocks, strict=True):
                tokens = tokens + attention(norm(tokens), next(remaining))
            tokens = tokens + block.ff(block.ff_norm(tokens))
        pixels = hidden_states.shape[2] * hidden_states.shape[3]
        tokens = net.proj_out(tokens).unflatten(0, (-1, pixels)).transpose(1, 2).flatten(0, 1)  # (B*F, L, C)
        return tokens.transpose(1, 2).reshape_as(hidden_states) + hidden_states

    def update(
        self, features: Tensor, rows: Tensor, memories: tuple[LayerMemory, ...] | None
    ) -> tuple[LayerMemory, ...]:
        """Memory after the past frames; ``features`` (R, L, C) of the reference net, ``rows`` (B, P) into R.

        Upstream: the past frames' queries are computed as well, and everything at every step. Here: keys and
        values, once per clip and once per distinct frame.
        """
        net, attentions = self.temporal_transformer, self._attentions()
        tokens = net.proj_in(group_norm(net.norm, features.transpose(1, 2)).transpose(1, 2))
        updated = []
        for index, (norm, attention) in enumerate(attentions):
            normed = norm(tokens)
            past = KeyValue(attention.to_k(normed), attention.to_v(normed))
            updated.append(attention.update(past, rows, memories[index] if memories else None))
        return tuple(updated)
