"""Face embedding and audio window -> tokens (upstream ``memo/models/image_proj.py``, ``audio_proj.py``)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..torch_ops import Operations
from .config import AudioProjectionConfig, ImageProjectionConfig


class ImageProjection(nn.Module):
    """(B, 512) -> (B, 4, 768): one linear layer and a layer norm."""

    def __init__(self, config: ImageProjectionConfig, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.config = config
        self.proj = operations.Linear(config.embedding_dim, config.tokens * config.dim, **factory)
        self.norm = operations.LayerNorm(config.dim, **factory)

    def forward(self, face_embedding: Tensor) -> Tensor:
        return self.norm(self.proj(face_embedding).unflatten(-1, (self.config.tokens, self.config.dim)))


class AudioProjection(nn.Module):
    """(B, F, window, blocks, channels) -> (B, F, 32, 768): three linear layers and a layer norm."""

    def __init__(self, config: AudioProjectionConfig, *, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.config = config
        self.proj1 = operations.Linear(config.input_dim, config.hidden_dim, **factory)
        self.proj2 = operations.Linear(config.hidden_dim, config.hidden_dim, **factory)
        self.proj3 = operations.Linear(config.hidden_dim, config.tokens * config.dim, **factory)
        self.norm = operations.LayerNorm(config.dim, **factory)

    def forward(self, audio_embeddings: Tensor) -> Tensor:
        """Raises ValueError when the audio encoder has another number of layers or width than in training."""
        windows = audio_embeddings.flatten(2)
        if windows.shape[-1] != self.config.input_dim:
            shape = tuple(audio_embeddings.shape[2:])
            raise ValueError(
                f"the audio features of a frame must hold {self.config.input_dim} numbers "
                f"(window x layers x width) but got {' x '.join(map(str, shape))} (audio_proj). "
                "Use the audio encoder that this checkpoint was trained with."
            )
        hidden = F.relu(self.proj2(F.relu(self.proj1(windows))))
        return self.norm(self.proj3(hidden).unflatten(-1, (self.config.tokens, self.config.dim)))
