"""wav2vec2 of any size on the host's layers, in the three parts that the voice front-end calls.

The host's own class has the published sizes built in; the demo's audio encoder is smaller. This is the base
architecture (group norm on the first convolution, norm after attention), the one that MEMO was trained with.
Parameter names are those of Hugging Face's Wav2Vec2Model. Legend: S samples, T frames, C conv width, D width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from ..memo_avatar.torch_ops import sdpa_attention
from ..memo_avatar.weights_file import CheckpointError
from .host_weights import check_state, read_state

UNUSED = ("lm_head.", "project_hid.", "project_q.", "quantizer.", "masked_spec_embed")
_OLD_NAMES = {
    ".conv.weight_g": ".conv.parametrizations.weight.original0",
    ".conv.weight_v": ".conv.parametrizations.weight.original1",
}


class _ConvLayer(nn.Module):
    def __init__(
        self, in_dim: int, config: Mapping[str, Any], index: int, *, operations: Any, **factory: Any
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
    def __init__(self, config: Mapping[str, Any], **factory: Any) -> None:
        super().__init__()
        widths = [1, *config["conv_dim"]]
        self.conv_layers = nn.ModuleList(
            [_ConvLayer(widths[i], config, i, **factory) for i in range(len(widths) - 1)]
        )

    def forward(self, waveform: Tensor) -> Tensor:
        hidden_states = waveform[:, None]
        for layer in self.conv_layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class _FeatureProjection(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, operations: Any, **factory: Any) -> None:
        super().__init__()
        width = config["conv_dim"][-1]
        self.layer_norm = operations.LayerNorm(width, eps=config["layer_norm_eps"], **factory)
        self.projection = operations.Linear(width, config["hidden_size"], **factory)

    def forward(self, features: Tensor) -> Tensor:
        return self.projection(self.layer_norm(features))


class _PositionalConv(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, operations: Any, **factory: Any) -> None:
        super().__init__()
        dim, kernel = config["hidden_size"], config["num_conv_pos_embeddings"]
        groups = config["num_conv_pos_embedding_groups"]
        self.conv = operations.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups, **factory)
        self.surplus = 1 - kernel % 2  # an even kernel makes one position too many

    def forward(self, hidden_states: Tensor) -> Tensor:
        positions = self.conv(hidden_states.transpose(1, 2))
        return F.gelu(positions[..., : positions.shape[-1] - self.surplus]).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, *, operations: Any, attention: Any, **factory: Any) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.q_proj = operations.Linear(dim, dim, **factory)
        self.k_proj = operations.Linear(dim, dim, **factory)
        self.v_proj = operations.Linear(dim, dim, **factory)
        self.out_proj = operations.Linear(dim, dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(self.attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int, *, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.intermediate_dense = operations.Linear(dim, inner, **factory)
        self.output_dense = operations.Linear(inner, dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(x)))


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, operations: Any, attention: Any, **factory: Any) -> None:
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
    def __init__(self, config: Mapping[str, Any], *, operations: Any, attention: Any, **factory: Any) -> None:
        super().__init__()
        self.pos_conv_embed = _PositionalConv(config, operations=operations, **factory)
        self.layer_norm = operations.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"], **factory)
        self.layers = nn.ModuleList(
            [
                _Layer(config, operations=operations, attention=attention, **factory)
                for _ in range(config["num_hidden_layers"])
            ]
        )

    def forward(self, hidden_states: Tensor) -> list[Tensor]:
        """(1, N, D) -> the first layer's input, then every layer's output."""
        states = [self.layer_norm(hidden_states + self.pos_conv_embed(hidden_states))]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states


class Wav2Vec2(nn.Module):
    """The three callables of ``memo_avatar.audio_features.voice_features``."""

    def __init__(
        self, config: Mapping[str, Any], *, attention: Any = optimized_attention, **factory: Any
    ) -> None:
        super().__init__()
        self.feature_extractor = _FeatureExtractor(config, **factory)
        self.feature_projection = _FeatureProjection(config, **factory)
        self.encoder = _Encoder(config, attention=attention, **factory)


def open_wav2vec2(folder: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Config and checked float32 weights of a Hugging Face folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = (config.get("model_type"), config.get("feat_extract_norm"), config.get("do_stable_layer_norm"))
    if kind != ("wav2vec2", "group", False):
        raise CheckpointError(
            f"expected a wav2vec2 of the base kind (group norm, norm after attention) but got {kind} "
            f"({folder}). "
            "Use facebook/wav2vec2-base-960h."
        )
    path = folder / "model.safetensors"
    state = _plain_weights(read_state(path))
    expected = Wav2Vec2(config, attention=sdpa_attention, operations=nn, device="meta")
    check_state(expected, state, path, "wav2vec2")
    return config, state


def _plain_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published file's keys -> ours: no heads, and the weight-normed position convolution as one weight."""
    renamed = {}
    for key, tensor in state.items():
        key = key.removeprefix("wav2vec2.")
        for old, new in _OLD_NAMES.items():
            key = key.replace(old, new)
        if not key.startswith(UNUSED):
            renamed[key] = tensor.float()
    stem = "encoder.pos_conv_embed.conv."
    scale = renamed.pop(f"{stem}parametrizations.weight.original0", None)
    direction = renamed.pop(f"{stem}parametrizations.weight.original1", None)
    if scale is not None and direction is not None:
        length = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
        renamed[f"{stem}weight"] = direction * (scale / length)
    return renamed
