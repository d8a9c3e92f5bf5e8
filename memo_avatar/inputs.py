"""What a video is made from: who speaks, and what is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

SIZE, GUIDANCE_SCALE = 512, 3.5
"""What MEMO was published with: pixels along each side, and how closely the voice is followed."""

VAE_STRIDE = 8
"""Pixels per latent along each axis."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels of the upright picture."""


@dataclass(frozen=True)
class Crop:
    """A rectangle in a picture, in pixels; all of it even. It may reach beyond the picture."""

    left: int
    top: int
    width: int
    height: int
    picture_width: int
    picture_height: int

    @property
    def box(self) -> Box:
        """The whole rectangle."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    @property
    def inside(self) -> Box:
        """The part of the box that lies in the picture."""
        left, top, right, bottom = self.box
        return max(0, left), max(0, top), min(self.picture_width, right), min(self.picture_height, bottom)


@dataclass(frozen=True)
class Portrait:
    """Who speaks: ``pixel_values`` (1, 3, H, W) in -1..1; ``face_embedding`` (1, 512), zeros for none.

    ``crop`` is where they were cut out of a picture, None for a whole one; ``picture`` (3, H', W') in 0..1 is
    that picture where the face is to be pasted back into it.
    """

    pixel_values: Tensor
    face_embedding: Tensor
    crop: Crop | None = None
    picture: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.pixel_values.shape)
        if len(shape) != 4 or shape[:2] != (1, 3) or shape[2] % VAE_STRIDE or shape[3] % VAE_STRIDE:
            raise ValueError(
                f"the portrait must be (1, 3, H, W) with H and W divisible by {VAE_STRIDE} "
                f"but got {shape} (portrait). Resize or crop the image."
            )


class FrameFeatures(Protocol):
    """(N, window, blocks, channels), indexed with frames: a tensor, or the file of a long voice."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class Voice:
    """What is said: ``audio_embeddings`` (N, window, blocks, channels) and ``emotions`` (N,) class numbers.

    N is ``num_frames``, the video's exact length, or that length rounded up to whole clips.
    """

    audio_embeddings: FrameFeatures
    emotions: Tensor
    num_frames: int

    def __post_init__(self) -> None:
        frames = self.audio_embeddings.shape[0]
        if self.num_frames < 1 or frames < self.num_frames or self.emotions.shape[0] != frames:
            raise ValueError(
                f"a voice must have features and emotions for its frames ({self.num_frames}) but got "
                f"{frames} features and {self.emotions.shape[0]} emotions (voice). Encode audio that is not "
                "empty."
            )
