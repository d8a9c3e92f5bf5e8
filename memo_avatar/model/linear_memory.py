"""Memory-guided linear attention over time (paper section 3.2, upstream ``memo/models/motion_module.py``).

Per pixel and head, with q = softmax over channels times scale and k = softmax over the frames of the call:
``KV = d*memory.kv + k'v``, ``Z = d*memory.z + sum k``, ``out = q KV / clamp(q Z, 1e-10)``, d = 0.9. The
memory comes from the past frames' reference features and changes once per clip. Upstream: it lives in the
attention processors, updated as a side effect of the first step, and every evaluation forms KV and Z. Here:
a value, computed by :meth:`MotionModule.update` and passed in, and ``q KV = d*(q memory.kv) + (q k')v``,
which is the same with the memory read once and nothing of its size written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..torch_ops import Operations
from .layers import FeedForward, group_norm
from .memory import LayerMemory

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
        scores = query @ key.transpose(-1, -2)  # (B*L, N, F, F)
        kv = memory.kv.flatten(0, 1)  # (M*L, N, D, D)
        z = memory.z.flatten(0, 1).unsqueeze(-1)  # (M*L, N, D, 1)
        sums = torch.add(scores.sum(dim=-1, keepdim=True), _read(query, z), alpha=DECAY).clamp(min=1e-10)
        out = torch.add(scores @ value, _read(query, kv), alpha=DECAY) / sums
        return self.to_out[0](out.transpose(1, 2).flatten(2))

    def update(self, tokens: Tensor, rows: Tensor, memory: LayerMemory | None) -> LayerMemory:
        """The memory after the past frames: ``tokens`` (R, L, C) of theirs, ``rows`` (M, P) into the R.

        ``memory`` may lie on another device.
        """
        batch, frames = rows.shape

        def past(projected: Tensor) -> Tensor:  # (R, L, C) -> (M*L, N, P, D)
            return self._split(
                projected[rows.flatten()].unflatten(0, (batch, frames)).transpose(1, 2).flatten(0, 1)
            )

        exponents = torch.arange(frames - 1, -1, -1, device=tokens.device, dtype=tokens.dtype)
        decay = (DECAY**exponents)[:, None]
        key = past(self.to_k(tokens)).softmax(dim=-2) * decay
        value = past(self.to_v(tokens)).mul_(decay)
        kv = (key.transpose(-1, -2) @ value).unflatten(0, (batch, -1))  # (M, L, N, D, D)
        z = key.sum(dim=-2).unflatten(0, (batch, -1))
        if memory is None:
            return LayerMemory(kv, z)
        fade = DECAY**frames
        return LayerMemory(kv.add_(memory.kv.to(kv), alpha=fade), z.add_(memory.z.to(z), alpha=fade))


def _read(query: Tensor, memory: Tensor) -> Tensor:
    """``query`` (B*L, N, F, D) times ``memory`` (B*L, N, D, E), or one (L, N, D, E) for all branches."""
    rows, frames = query.shape[0], query.shape[2]
    branches = rows // memory.shape[0]
    if branches == 1:
        return query @ memory
    joint = query.unflatten(0, (branches, -1)).permute(1, 2, 0, 3, 4).flatten(2, 3)  # (L, N, B*F, D)
    read = (joint @ memory).unflatten(2, (branches, frames))
    return read.permute(2, 0, 1, 3, 4).flatten(0, 1)  # (B*L, N, F, E)


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

    def forward(self, hidden_states: Tensor, frames: int, memories: Iterator[LayerMemory]) -> Tensor:
        """``hidden_states`` (B*F, C, H, W) -> the same; takes a memory for each linear attention."""
        net = self.temporal_transformer
        tokens = net.proj_in(group_norm(net.norm, hidden_states).flatten(2).transpose(1, 2))  # (B*F, L, C)
        tokens = tokens.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)  # (B*L, F, C)
        for block in net.transformer_blocks:
            for norm, attention in zip(block.norms, block.attention_blocks, strict=True):
                tokens = tokens + attention(norm(tokens), next(memories))
            tokens = tokens + block.ff(block.ff_norm(tokens))
        pixels = hidden_states.shape[2] * hidden_states.shape[3]
        tokens = net.proj_out(tokens).unflatten(0, (-1, pixels)).transpose(1, 2).flatten(0, 1)  # (B*F, L, C)
        return tokens.transpose(1, 2).reshape_as(hidden_states) + hidden_states

    def update(
        self,
        features: Tensor,
        rows: Tensor,
        before: Iterator[LayerMemory | None],
        keep: Callable[[LayerMemory], LayerMemory],
    ) -> list[LayerMemory]:
        """Memory after the past frames; ``features`` (R, L, C) of the reference net, ``rows`` (M, P) into R.

        Takes a memory from ``before`` for each linear attention; ``keep`` puts a new one where it is to live.
        Upstream: the past frames' queries are computed as well, and everything at every step. Here: keys and
        values, once per clip and once per distinct frame.
        """
        net = self.temporal_transformer
        tokens = net.proj_in(group_norm(net.norm, features.transpose(1, 2)).transpose(1, 2))
        return [
            keep(attention.update(norm(tokens), rows, next(before))) for norm, attention in self._attentions()
        ]
