"""What a video is made from: who speaks, and what is said."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

VAE_STRIDE = 8
"""Pixels per latent along each axis."""


@dataclass(frozen=True)
class Portrait:
    """Who speaks: ``pixel_values`` (1, 3, H, W) in -1..1; ``face_embedding`` (1, 512), zeros for none."""

    pixel_values: Tensor
    face_embedding: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.pixel_values.shape)
        if len(shape) != 4 or shape[:2] != (1, 3) or shape[2] % VAE_STRIDE or shape[3] % VAE_STRIDE:
            raise ValueError(
                f"the portrait must be (1, 3, H, W) with H and W divisible by {VAE_STRIDE} "
                f"but got {shape} (portrait). Resize or crop the image."
            )


@dataclass(frozen=True)
class Voice:
    """What is said: ``audio_embeddings`` (N, window, blocks, channels) and ``emotions`` (N,) class numbers.

    N is ``num_frames``, the video's exact length, or that length rounded up to whole clips.
    """

    audio_embeddings: Tensor
    emotions: Tensor
    num_frames: int

    def __post_init__(self) -> None:
        frames = self.audio_embeddings.shape[0]
        if self.num_frames < 1 or frames < self.num_frames or self.emotions.shape[0] != frames:
            raise ValueError(
                f"a voice must have features and emotions for its {self.num_frames} frames but got {frames} "
                f"features and {self.emotions.shape[0]} emotions (voice). Encode audio that is not empty."
            )
