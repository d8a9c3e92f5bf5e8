"""Spatial and audio transformers of MEMO (upstream ``memo/models/attention.py``, ``transformer_3d.py``).

Shapes: B branches, F frames, C channels, H W, L = H*W image tokens, A audio tokens. Frames are folded into
the batch. Parameter names are upstream's, so a checkpoint loads without mapping.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..torch_ops import Attention, Operations
from .context import ClipContext, KeyValue, LayerContext
from .layers import FeedForward, group_norm, repeat_rows


class MultiHeadAttention(nn.Module):
    """Projections around the attention function; keys and values may be projected ahead of time."""

    def __init__(
        self,
        query_dim: int,
        inner_dim: int,
        heads: int,
        *,
        context_dim: int | None = None,
        attention: Attention,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__()
        context_dim = context_dim or query_dim
        self.heads, self.attention = heads, attention
        self.to_q = operations.Linear(query_dim, inner_dim, bias=False, **factory)
        self.to_k = operations.Linear(context_dim, inner_dim, bias=False, **factory)
        self.to_v = operations.Linear(context_dim, inner_dim, bias=False, **factory)
        self.to_out = nn.ModuleList([operations.Linear(inner_dim, query_dim, **factory)])

    def project(self, tokens: Tensor) -> KeyValue:
        """Keys and values of ``tokens`` (rows, L, context_dim)."""
        return KeyValue(self.to_k(tokens), self.to_v(tokens))

    def forward(self, hidden_states: Tensor, key_value: KeyValue | None, options: dict[str, Any]) -> Tensor:
        """(rows, L, query_dim) -> the same; ``key_value`` None is self-attention."""
        kv = key_value or self.project(hidden_states)
        query = self.to_q(hidden_states)
        return self.to_out[0](self.attention(query, kv.key, kv.value, self.heads, **options))

    def with_reference(
        self, hidden_states: Tensor, reference: KeyValue | None, context: ClipContext
    ) -> Tensor:
        """Self-attention (B*F, L, C); flagged branches also see the reference image's keys and values.

        ``reference`` is (U, L, C). Upstream: attention with the reference runs for every branch and is thrown
        away for uncond. Here: each branch runs once.
        """
        options = dict(context.attention_options)
        if reference is None or context.reference_rows is None:
            return self(hidden_states, None, options)
        query, own = self.to_q(hidden_states), self.project(hidden_states)
        outputs, start, used = [], 0, 0
        for flag, group in groupby(context.has_reference):
            count = len(list(group))
            rows = slice(start * context.frames, (start + count) * context.frames)
            key, value = own.key[rows], own.value[rows]
            if flag:
                seen = context.reference_rows[used : used + count].flatten()  # (count*F,)
                key = torch.cat([key, reference.key[seen]], dim=1)
                value = torch.cat([value, reference.value[seen]], dim=1)
                used += count
            outputs.append(self.attention(query[rows], key, value, self.heads, **options))
            start += count
        return self.to_out[0](outputs[0] if len(outputs) == 1 else torch.cat(outputs))


class ProjectedTransformer(nn.Module):
    """GroupNorm and projection to tokens, one transformer block, projection back and a residual."""

    def __init__(
        self,
        channels: int,
        inner_dim: int,
        *,
        groups: int,
        linear_projection: bool,
        block: nn.Module,
        with_output: bool = True,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.linear_projection = linear_projection
        self.norm = operations.GroupNorm(groups, channels, eps=1e-6, **factory)
        if linear_projection:
            self.proj_in = operations.Linear(channels, inner_dim, **factory)
        else:
            self.proj_in = operations.Conv2d(channels, inner_dim, 1, **factory)
        self.transformer_blocks: Any = nn.ModuleList([block])
        if with_output and linear_projection:
            self.proj_out = operations.Linear(inner_dim, channels, **factory)
        elif with_output:
            self.proj_out = operations.Conv2d(inner_dim, channels, 1, **factory)

    def tokens(self, hidden_states: Tensor) -> Tensor:
        """(rows, C, H, W) -> (rows, L, inner)."""
        hidden_states = group_norm(self.norm, hidden_states)
        if self.linear_projection:
            return self.proj_in(hidden_states.flatten(2).transpose(1, 2))
        return self.proj_in(hidden_states).flatten(2).transpose(1, 2)

    def output(self, tokens: Tensor, residual: Tensor) -> Tensor:
        """(rows, L, inner) -> (rows, C, H, W), added to ``residual``."""
        if self.linear_projection:
            return self.proj_out(tokens).transpose(1, 2).reshape_as(residual) + residual
        image = tokens.transpose(1, 2).unflatten(2, residual.shape[2:])
        return self.proj_out(image.contiguous()) + residual


class _SpatialBlock(nn.Module):
    def __init__(
        self,
        dim: int,
        heads: int,
        cross_attention_dim: int,
        *,
        feature_only: bool,
        attention: Attention,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.norm1 = operations.LayerNorm(dim, **factory)
        if feature_only:
            return
        shared = {"attention": attention, "operations": operations, **factory}
        self.attn1 = MultiHeadAttention(dim, dim, heads, **shared)
        self.norm2 = operations.LayerNorm(dim, **factory)
        self.attn2 = MultiHeadAttention(dim, dim, heads, context_dim=cross_attention_dim, **shared)
        self.norm3 = operations.LayerNorm(dim, **factory)
        self.ff = FeedForward(dim, operations=operations, **factory)

    def after_self_attention(self, tokens: Tensor, face: KeyValue, options: dict[str, Any]) -> Tensor:
        rows = tokens.shape[0]
        face = KeyValue(repeat_rows(face.key, rows), repeat_rows(face.value, rows))
        tokens = tokens + self.attn2(self.norm2(tokens), face, options)
        return tokens + self.ff(self.norm3(tokens))


class SpatialTransformer(ProjectedTransformer):
    """Self-attention (with or without the reference), cross-attention to the face tokens, feed-forward.

    ``feature_only`` is the reference net's last layer, of which only the norm before self-attention is used.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        cross_attention_dim: int,
        *,
        groups: int,
        linear_projection: bool,
        feature_only: bool = False,
        attention: Attention,
        operations: Operations,
        **factory: Any,
    ) -> None:
        block = _SpatialBlock(
            channels,
            heads,
            cross_attention_dim,
            feature_only=feature_only,
            attention=attention,
            operations=operations,
            **factory,
        )
        super().__init__(
            channels,
            channels,
            groups=groups,
            linear_projection=linear_projection,
            block=block,
            with_output=not feature_only,
            operations=operations,
            **factory,
        )

    def reference_feature(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """The normalised input of self-attention, and the tokens before that norm, both (rows, L, C)."""
        tokens = self.tokens(hidden_states)
        return self.transformer_blocks[0].norm1(tokens), tokens

    def forward(self, hidden_states: Tensor, layer: LayerContext, context: ClipContext) -> Tensor:
        """(B*F, C, H, W) -> the same, for the diffusion net."""
        block, options = self.transformer_blocks[0], dict(context.attention_options)
        normed, tokens = self.reference_feature(hidden_states)
        tokens = tokens + block.attn1.with_reference(normed, layer.reference, context)
        assert layer.face is not None
        return self.output(block.after_self_attention(tokens, layer.face, options), hidden_states)

    def forward_reference(self, hidden_states: Tensor, face_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, H, W) -> the same and the (R, L, C) feature, for the reference net."""
        block, options = self.transformer_blocks[0], {}
        feature, tokens = self.reference_feature(hidden_states)
        tokens = tokens + block.attn1(feature, None, options)
        tokens = block.after_self_attention(tokens, block.attn2.project(face_tokens), options)
        return self.output(tokens, hidden_states), feature


class _LabelEmbedding(nn.Module):
    def __init__(self, rows: int, dim: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.embedding_table = operations.Embedding(rows, dim, **factory)


class EmotionAdaLayerNorm(nn.Module):
    """Layer norm without weights, then a scale and shift read off the emotion class."""

    def __init__(self, dim: int, num_emotions: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.class_embedder: Any = _LabelEmbedding(num_emotions, dim, operations=operations, **factory)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), operations.Linear(dim, 2 * dim, **factory))

    def forward(self, x: Tensor, emotion: Tensor) -> Tensor:
        """``x`` (B*F, L, C), ``emotion`` (B,)."""
        embedding = self.class_embedder.embedding_table(emotion).to(x.dtype)
        modulation = repeat_rows(self.adaLN_modulation(embedding), x.shape[0])[:, None]  # (B*F, 1, 2C)
        shift, scale = modulation.chunk(2, dim=-1)
        return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class _JointAttention(nn.Module):
    """One attention over image and audio tokens, each with its own projections (as in Stable Diffusion 3)."""

    def __init__(
        self,
        dim: int,
        audio_dim: int,
        heads: int,
        *,
        audio_output: bool,
        attention: Attention,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.to_q = operations.Linear(dim, dim, bias=False, **factory)
        self.to_k = operations.Linear(dim, dim, bias=False, **factory)
        self.to_v = operations.Linear(dim, dim, bias=False, **factory)
        self.add_q_proj = operations.Linear(audio_dim, dim, **factory)
        self.add_k_proj = operations.Linear(audio_dim, dim, **factory)
        self.add_v_proj = operations.Linear(audio_dim, dim, **factory)
        self.to_out = nn.ModuleList([operations.Linear(dim, dim, **factory)])
        self.to_add_out = operations.Linear(dim, audio_dim, **factory) if audio_output else None

    def forward(self, image: Tensor, audio: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        query = torch.cat([self.to_q(image), self.add_q_proj(audio)], dim=1)  # (B*F, L+A, C)
        key = torch.cat([self.to_k(image), self.add_k_proj(audio)], dim=1)
        value = torch.cat([self.to_v(image), self.add_v_proj(audio)], dim=1)
        if self.to_add_out is None:
            # Upstream: the last layer attends for the audio tokens too. Here: not, since nobody reads them.
            query = query[:, : image.shape[1]]
        joint = self.attention(query, key, value, self.heads, **options)
        image_out = self.to_out[0](joint[:, : image.shape[1]])
        return image_out, None if self.to_add_out is None else self.to_add_out(joint[:, image.shape[1] :])


class _AudioBlock(nn.Module):
    def __init__(
        self,
        dim: int,
        audio_dim: int,
        heads: int,
        num_emotions: int,
        *,
        audio_output: bool,
        attention: Attention,
        operations: Operations,
        **factory: Any,
    ) -> None:
        super().__init__()
        factory = {"operations": operations, **factory}
        self.norm1 = EmotionAdaLayerNorm(dim, num_emotions, **factory)
        self.attn1 = MultiHeadAttention(dim, dim, heads, attention=attention, **factory)
        self.audio_norm1 = EmotionAdaLayerNorm(audio_dim, num_emotions, **factory)
        self.audio_attn1 = MultiHeadAttention(audio_dim, dim, heads, attention=attention, **factory)
        self.norm2 = EmotionAdaLayerNorm(dim, num_emotions, **factory)
        self.audio_norm2 = EmotionAdaLayerNorm(audio_dim, num_emotions, **factory)
        self.attn2 = _JointAttention(
            dim, audio_dim, heads, audio_output=audio_output, attention=attention, **factory
        )
        self.ff = FeedForward(dim, **factory)
        self.norm3 = _layer_norm(dim, **factory)
        if audio_output:
            self.audio_ff = FeedForward(audio_dim, **factory)
            self.audio_norm3 = _layer_norm(audio_dim, **factory)

    def forward(
        self, image: Tensor, audio: Tensor, emotion: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        image = image + self.attn1(self.norm1(image, emotion), None, options)
        audio = audio + self.audio_attn1(self.audio_norm1(audio, emotion), None, options)
        image_out, audio_out = self.attn2(
            self.norm2(image, emotion), self.audio_norm2(audio, emotion), options
        )
        image = image + image_out
        image = image + self.ff(self.norm3(image))
        if audio_out is None:
            return image, None
        audio = audio + audio_out
        return image, audio + self.audio_ff(self.audio_norm3(audio))


def _layer_norm(dim: int, *, operations: Operations, **factory: Any) -> nn.Module:
    return operations.LayerNorm(dim, **factory)


class AudioTransformer(ProjectedTransformer):
    """Emotion-adaptive joint attention of image and audio tokens; the audio tokens are updated and passed on.

    ``inner_dim`` differs from ``channels`` where upstream builds the module with the block's input width.
    """

    def __init__(
        self,
        channels: int,
        inner_dim: int,
        audio_dim: int,
        heads: int,
        num_emotions: int,
        *,
        groups: int,
        linear_projection: bool,
        audio_output: bool,
        attention: Attention,
        operations: Operations,
        **factory: Any,
    ) -> None:
        shared = {"operations": operations, **factory}
        block = _AudioBlock(
            inner_dim,
            audio_dim,
            heads,
            num_emotions,
            audio_output=audio_output,
            attention=attention,
            **shared,
        )
        super().__init__(
            channels, inner_dim, groups=groups, linear_projection=linear_projection, block=block, **shared
        )

    def forward(
        self, hidden_states: Tensor, audio: Tensor, context: ClipContext
    ) -> tuple[Tensor, Tensor | None]:
        """``hidden_states`` (B*F, C, H, W), ``audio`` (B*F, A, D) -> both updated; audio None at the end."""
        tokens, updated = self.transformer_blocks[0](
            self.tokens(hidden_states), audio, context.emotion, dict(context.attention_options)
        )
        return self.output(tokens, hidden_states), None if updated is None else updated + audio
