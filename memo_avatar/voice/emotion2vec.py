"""emotion2vec: speech to frame features that tell emotions apart, and MEMO's small classifier on top of them.

In the order of a forward: seven convolutions (50 frames per second) -> projection -> relative positions from
more convolutions -> learned extra tokens in front -> prenet blocks and blocks, whose attention is biased by
distance (ALiBi) with learned scales -> the frames' features. This is data2vec 2.0 (arXiv 2212.07525) as
emotion2vec (arXiv 2312.15185) uses it; it computes what funasr's `funasr/models/emotion2vec` computes at
inference, under the published parameter names. Sizes are read from the weights. Only inference is here.
Legend: B segments, S samples, T frames, L tokens, D width, N heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..torch_ops import Operations

STRIDES = (5, 2, 2, 2, 2, 2, 2)  # weights do not tell strides; all published sizes share these
NORM_EPS = 1e-5  # `norm_eps` of the published configs


@dataclass(frozen=True)
class Emotion2vecConfig:
    """Sizes; ``pos_*`` are those of the relative position convolutions."""

    kernels: tuple[int, ...]
    conv_width: int
    conv_layer_norm: bool
    width: int
    hidden: int
    heads: int
    alibi_scale: tuple[int, ...]
    extra_tokens: int
    pos_depth: int
    pos_kernel: int
    pos_groups: int
    prenet_depth: int
    depth: int


class _Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class _Trim(nn.Module):
    """Drop the one position too many that an even kernel makes."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.surplus = 1 - kernel % 2

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : x.shape[-1] - self.surplus]


class _LocalEncoder(nn.Module):
    """(B, S) -> (B, C, T)."""

    def __init__(self, config: Emotion2vecConfig, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        width = config.conv_width
        self.conv_layers = nn.ModuleList()
        for index, kernel in enumerate(config.kernels):
            in_width = width if index else 1
            conv = operations.Conv1d(in_width, width, kernel, stride=STRIDES[index], bias=False, **factory)
            norm: list[nn.Module] = []
            if config.conv_layer_norm:
                layer_norm = operations.LayerNorm(width, eps=NORM_EPS, **factory)
                norm = [nn.Sequential(_Transpose(), layer_norm, _Transpose())]
            elif index == 0:
                norm = [operations.GroupNorm(width, width, eps=NORM_EPS, **factory)]
            # The second place is the published net's dropout.
            self.conv_layers.append(nn.Sequential(conv, nn.Identity(), *norm, nn.GELU()))

    def forward(self, samples: Tensor) -> Tensor:
        x = samples[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = operations.Linear(width, 3 * width, **factory)
        self.proj = operations.Linear(width, width, **factory)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3 x (B, N, L, D/N)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(out.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.fc1 = operations.Linear(width, hidden, **factory)
        self.fc2 = operations.Linear(hidden, width, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    def __init__(self, config: Emotion2vecConfig, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        shared = {"operations": operations, **factory}
        self.norm1 = operations.LayerNorm(config.width, eps=NORM_EPS, **factory)
        self.attn = _Attention(config.width, config.heads, **shared)
        self.norm2 = operations.LayerNorm(config.width, eps=NORM_EPS, **factory)
        self.mlp = _Mlp(config.width, config.hidden, **shared)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm1(x + self.attn(x, bias))
        return self.norm2(x + self.mlp(x))


class _ContextEncoder(nn.Module):
    """The prenet; its norm stands before its blocks."""

    def __init__(self, config: Emotion2vecConfig, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Block(config, operations=operations, **factory) for _ in range(config.prenet_depth)
        )
        self.norm = operations.LayerNorm(config.width, eps=NORM_EPS, **factory)


class _AudioEncoder(nn.Module):
    """Samples to the tokens that the blocks see."""

    def __init__(
        self,
        config: Emotion2vecConfig,
        *,
        operations: Operations,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        shared = {"operations": operations, **factory}
        width, kernel = config.width, config.pos_kernel
        self.local_encoder = _LocalEncoder(config, **shared)
        self.project_features = nn.Sequential(
            _Transpose(),
            operations.LayerNorm(config.conv_width, eps=NORM_EPS, **factory),
            operations.Linear(config.conv_width, width, **factory),
        )
        positions = (
            nn.Sequential(
                operations.Conv1d(
                    width, width, kernel, padding=kernel // 2, groups=config.pos_groups, **factory
                ),
                _Trim(kernel),
                _Transpose(),
                nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False),
                _Transpose(),
                nn.GELU(),
            )
            for _ in range(config.pos_depth)
        )
        self.relative_positional_encoder = nn.Sequential(_Transpose(), *positions, _Transpose())
        self.extra_tokens = nn.Parameter(torch.zeros(1, config.extra_tokens, width, **factory))
        self.alibi_scale = nn.Parameter(torch.ones(config.alibi_scale, **factory))
        self.context_encoder = _ContextEncoder(config, **shared)

    def tokens(self, samples: Tensor) -> Tensor:
        """(B, S) -> (B, L, D), the extra tokens first."""
        x = self.project_features(self.local_encoder(samples))
        x = x + self.relative_positional_encoder(x)
        return torch.cat([self.extra_tokens.to(x).expand(x.shape[0], -1, -1), x], dim=1)

    def biases(self, x: Tensor, heads: int, depth: int) -> list[Tensor]:
        """The attention bias (1, N, L, L) of every block; none where an extra token takes part."""
        extra = self.extra_tokens.shape[1]
        bias = F.pad(alibi(heads, x.shape[1] - extra).to(x), (extra, 0, extra, 0))[None]
        scales = self.alibi_scale.to(x).clamp_min(0)  # (1 or depth, 1, 1 or N, 1, 1)
        return [bias * scale for scale in scales] * (depth if scales.shape[0] == 1 else 1)


class Emotion2vec(nn.Module):
    """Speech segments -> features of their frames."""

    def __init__(self, config: Emotion2vecConfig, **factory: Any) -> None:
        super().__init__()
        self.config = config
        self.modality_encoders = nn.ModuleDict({"AUDIO": _AudioEncoder(config, **factory)})
        self.blocks = nn.ModuleList(_Block(config, **factory) for _ in range(config.depth))

    def forward(self, samples: Tensor) -> Tensor:
        """(B, S) at 16 kHz, each segment with zero mean and unit variance -> (B, T, D)."""
        encoder: _AudioEncoder = self.modality_encoders["AUDIO"]  # pyright: ignore[reportAssignmentType]
        prenet, config = encoder.context_encoder, self.config
        x = encoder.tokens(samples)
        biases = encoder.biases(x, config.heads, config.prenet_depth + config.depth)
        x = prenet.norm(x)
        for block, bias in zip([*prenet.blocks, *self.blocks], biases, strict=True):
            x = block(x, bias)
        return x[:, config.extra_tokens :]


class EmotionClassifier(nn.Module):
    """A segment's mean feature -> class scores. Source: memo `memo/models/emotion_classifier.py`."""

    def __init__(self, sizes: tuple[int, ...], *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        pairs = list(pairwise(sizes))
        layers = {f"fc{index + 1}": operations.Linear(*pair, **factory) for index, pair in enumerate(pairs)}
        self.layers = layers["fc1"] if len(pairs) == 1 else nn.ModuleDict(layers)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, classes), before the softmax, which changes no winner."""
        if not isinstance(self.layers, nn.ModuleDict):
            return self.layers(features)
        *hidden, last = self.layers.values()
        for layer in hidden:
            features = F.relu(layer(features))
        return last(features)


class EmotionNet(nn.Module):
    """Both: speech segments -> class numbers."""

    def __init__(self, config: Emotion2vecConfig, sizes: tuple[int, ...], **factory: Any) -> None:
        super().__init__()
        self.emotion2vec = Emotion2vec(config, **factory)
        self.classifier = EmotionClassifier(sizes, **factory)

    def forward(self, segments: Tensor) -> Tensor:
        """(B, S) at 16 kHz, each with zero mean and unit variance -> (B,)."""
        return self.classifier(self.emotion2vec(segments).mean(dim=1)).argmax(dim=-1)


def alibi(heads: int, length: int) -> Tensor:
    """(N, T, T): minus the distance of two frames, times a slope per head (arXiv 2108.12409)."""
    position = torch.arange(length)
    distance = (position[:, None] - position).abs().float()
    return -torch.tensor(_slopes(heads))[:, None, None] * distance


def _slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), …; heads beyond a power of two take every other slope of the next power."""
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (index + 1) / power) for index in range(power)]
    return slopes if power == heads else slopes + _slopes(2 * power)[::2][: heads - power]
