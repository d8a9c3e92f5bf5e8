"""wav2vec2 of any size, in the parts that the voice front-end calls.

This is the base architecture (group norm on the first convolution, norm after attention), the one that MEMO
was trained with: facebook/wav2vec2-base-960h. Parameter names are those of Hugging Face's Wav2Vec2Model; the
weight-normed position convolution is one plain weight. Legend: S samples, N frames, C conv width, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..files.foreign import CheckpointError, shown
from ..torch_ops import Attention, Operations

# Heads for training and transcription, which MEMO never runs, and the mask that only training needs.
UNUSED = ("lm_head.", "project_hid.", "project_q.", "quantizer.", "masked_spec_embed")
# torch renamed the two halves of a weight-normed layer; the published file has the old names.
_OLD_NAMES = {
    ".conv.weight_g": ".conv.parametrizations.weight.original0",
    ".conv.weight_v": ".conv.parametrizations.weight.original1",
}
_POSITION = "encoder.pos_conv_embed.conv.weight"
_SCALE, _DIRECTION = (f"encoder.pos_conv_embed.conv.parametrizations.weight.original{i}" for i in (0, 1))
_BASE_KIND = ("wav2vec2", "group", False)


class _ConvLayer(nn.Module):
    def __init__(
        self, in_dim: int, config: Mapping[str, Any], index: int, *, operations: Operations, **factory: Any
    ) -> None:
        super().__init__()
        dim, kernel, stride = (config[name][index] for name in ("conv_dim", "conv_kernel", "conv_stride"))
        self.conv = operations.Conv1d(
            in_dim, dim, kernel, stride=stride, bias=config.get("conv_bias", False), **factory
        )
        self.layer_norm = operations.GroupNorm(dim, dim, **factory) if index == 0 else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.gelu(x if self.layer_norm is None else self.layer_norm(x))


class _FeatureExtractor(nn.Module):
    """The convolutions; the voice front-end runs them in stretches (`conv_features.py`)."""

    def __init__(self, config: Mapping[str, Any], **factory: Any) -> None:
        super().__init__()
        widths = [1, *config["conv_dim"]]
        self.conv_layers = nn.ModuleList(
            [_ConvLayer(widths[i], config, i, **factory) for i in range(len(widths) - 1)]
        )


class _FeatureProjection(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        width = config["conv_dim"][-1]
        self.layer_norm = operations.LayerNorm(width, eps=config["layer_norm_eps"], **factory)
        self.projection = operations.Linear(width, config["hidden_size"], **factory)

    def forward(self, features: Tensor) -> Tensor:
        return self.projection(self.layer_norm(features))


class _PositionalConv(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        dim, kernel = config["hidden_size"], config["num_conv_pos_embeddings"]
        groups = config["num_conv_pos_embedding_groups"]
        self.conv = operations.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups, **factory)
        self.surplus = 1 - kernel % 2  # an even kernel makes one position too many

    def forward(self, hidden_states: Tensor) -> Tensor:
        positions = self.conv(hidden_states.transpose(1, 2))
        return F.gelu(positions[..., : positions.shape[-1] - self.surplus]).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(
        self, dim: int, heads: int, *, operations: Operations, attention: Attention, **factory: Any
    ) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.q_proj = operations.Linear(dim, dim, **factory)
        self.k_proj = operations.Linear(dim, dim, **factory)
        self.v_proj = operations.Linear(dim, dim, **factory)
        self.out_proj = operations.Linear(dim, dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.intermediate_dense = operations.Linear(dim, inner, **factory)
        self.output_dense = operations.Linear(inner, dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(x)))


class _Layer(nn.Module):
    def __init__(
        self, config: Mapping[str, Any], *, operations: Operations, attention: Attention, **factory: Any
    ) -> None:
        super().__init__()
        dim, eps = config["hidden_size"], config["layer_norm_eps"]
        shared = {"operations": operations, **factory}
        self.attention = _Attention(dim, config["num_attention_heads"], attention=attention, **shared)
        self.feed_forward = _FeedForward(dim, config["intermediate_size"], **shared)
        self.layer_norm = operations.LayerNorm(dim, eps=eps, **factory)
        self.final_layer_norm = operations.LayerNorm(dim, eps=eps, **factory)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(x + self.attention(x))
        return self.final_layer_norm(x + self.feed_forward(x))


class _Encoder(nn.Module):
    def __init__(
        self, config: Mapping[str, Any], *, operations: Operations, attention: Attention, **factory: Any
    ) -> None:
        super().__init__()
        shared = {"operations": operations, **factory}
        self.pos_conv_embed = _PositionalConv(config, **shared)
        self.layer_norm = operations.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"], **factory)
        self.layers = nn.ModuleList(
            [_Layer(config, attention=attention, **shared) for _ in range(config["num_hidden_layers"])]
        )

    def forward(self, hidden_states: Tensor) -> Iterator[Tensor]:
        """(1, N, D) -> the first layer's input, then every layer's output, each when it is asked for."""
        state = self.layer_norm(hidden_states + self.pos_conv_embed(hidden_states))
        yield state
        for layer in self.layers:
            state = layer(state)
            yield state


class Wav2Vec2(nn.Module):
    """What ``memo_avatar.voice.features.voice_features`` asks of an encoder."""

    def __init__(self, config: Mapping[str, Any], *, attention: Attention, **factory: Any) -> None:
        super().__init__()
        self.feature_extractor = _FeatureExtractor(config, **factory)
        self.feature_projection = _FeatureProjection(config, **factory)
        self.encoder = _Encoder(config, attention=attention, **factory)

    @property
    def conv_layers(self) -> Sequence[Any]:
        return list(self.feature_extractor.conv_layers)

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D): layers and hidden size of the states."""
        return len(self.encoder.layers), self.feature_projection.projection.out_features


def check_base_kind(config: Mapping[str, Any], where: object) -> None:
    """Refuse the config of another model or variant."""
    kind = (config.get("model_type"), config.get("feat_extract_norm"), config.get("do_stable_layer_norm"))
    if kind != _BASE_KIND:
        raise CheckpointError(
            f"expected a wav2vec2 of the base kind (group norm, norm after attention) but got "
            f"{shown(str(kind))} ({where}). Use facebook/wav2vec2-base-960h."
        )


def plain_name(key: str) -> str | None:
    """A published file's name of a weight -> ours; None for a head that is not needed."""
    key = key.removeprefix("wav2vec2.")
    for old, new in _OLD_NAMES.items():
        key = key.replace(old, new)
    return None if key.startswith(UNUSED) else key


def plain_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """By our names: what `plain_weights` will make of weights of these shapes."""
    plain = dict(shapes)
    direction = plain.get(_DIRECTION)
    if direction is not None and plain.get(_SCALE) == (1, 1, *direction[2:]):
        del plain[_SCALE], plain[_DIRECTION]
        plain[_POSITION] = direction
    return plain


def plain_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By our names: the weight-normed position convolution becomes one weight."""
    plain = dict(state)
    if _DIRECTION in plain and _SCALE in plain:
        direction, scale = plain.pop(_DIRECTION), plain.pop(_SCALE)
        length = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
        plain[_POSITION] = direction * (scale / length)
    return plain
