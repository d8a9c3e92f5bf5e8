"""What passes through the clip loop: how a video is sampled, a finished clip, what it leaves to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..inputs import GUIDANCE_SCALE
from ..model.memory import MemoryState
from .solvers import Solver, sample_euler

Past = Literal["frames", "latents"]
PASTS: tuple[Past, ...] = ("frames", "latents")
"""What a clip may leave to the next one to begin from."""


@dataclass(frozen=True)
class SamplingSettings:
    """How a video is sampled, with upstream's defaults; ``guidance_scale`` <= 1 drops the uncond branch.

    ``guard_drift`` holds the frames that condition the next clip to the portrait's colours and sharpness.
    ``past`` is what conditions it: the clip's "frames", encoded again as upstream does, or the "latents" that
    they were decoded from, which saves the encoding and is another video.
    """

    steps: int = 20
    guidance_scale: float = GUIDANCE_SCALE
    frames_per_clip: int = 16
    past_frames: int = 16
    solver: Solver = sample_euler
    guard_drift: bool = False
    past: Past = "frames"

    def __post_init__(self) -> None:
        if self.past == "latents" and self.guard_drift:
            raise ValueError(
                "expected past frames for guard_drift to hold but got past latents (sampling settings). "
                "Use one of the two."
            )
        for name in ("steps", "frames_per_clip", "past_frames"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(
                    f"{name} must be at least 1 but got {value} (sampling settings). Use a positive number."
                )

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that every evaluation computes, uncond first as upstream has it."""
        return ("uncond", "cond") if self.guidance_scale > 1 else ("cond",)


@dataclass(frozen=True)
class ClipState:
    """All that one clip leaves to the next: enough to continue a video in another process.

    ``past_frames`` (P, 3, H, W) in 0..1 float32, the last of the clip (all of them if the clip is shorter
    than P, as upstream has it); ``generator`` is the noise generator's state. ``past_latents`` (P, 4, h, w)
    float32 are those of the past frames, where the settings ask for them.
    """

    clip_index: int
    past_frames: Tensor
    memory: MemoryState
    generator: Tensor
    past_latents: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """A flat dict for safetensors; :meth:`from_tensors` reverses it."""
        memory = {f"memory.{key}": tensor for key, tensor in self.memory.tensors().items()}
        index, latents = torch.tensor([self.clip_index]), self.past_latents
        past = {"past_frames": self.past_frames, **({} if latents is None else {"past_latents": latents})}
        return {"clip_index": index, **past, "generator": self.generator, **memory}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ClipState:
        """Rebuild the state that :meth:`tensors` flattened."""
        memory = {
            key[len("memory.") :]: tensor for key, tensor in tensors.items() if key.startswith("memory.")
        }
        return cls(
            clip_index=int(tensors["clip_index"]),
            past_frames=tensors["past_frames"],
            memory=MemoryState.from_tensors(memory),
            generator=tensors["generator"],
            past_latents=tensors.get("past_latents"),
        )


@dataclass(frozen=True)
class Clip:
    """A finished clip: ``frames`` (F, 3, H, W) float32 in 0..1 on the CPU, trimmed to the voice's length.

    ``start`` is the number of its first frame in the video.
    """

    index: int
    start: int
    frames: Tensor
    state: ClipState

    @property
    def states(self) -> list[ClipState]:
        """Of the one who speaks."""
        return [self.state]


@dataclass(frozen=True)
class ClipOfMany:
    """The same clip of several who speak on one clock, finished for each."""

    clips: Sequence[Clip]

    @property
    def index(self) -> int:
        """The clip's number."""
        return self.clips[0].index

    @property
    def start(self) -> int:
        """The number of its first frame in the video."""
        return self.clips[0].start

    @property
    def frames(self) -> Tensor:
        """(F, N, 3, H, W), of N who speak."""
        return torch.stack([clip.frames for clip in self.clips], dim=1)

    @property
    def states(self) -> list[ClipState]:
        """What each leaves to its next clip."""
        return [clip.state for clip in self.clips]
