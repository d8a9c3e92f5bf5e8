"""Everything that a video depends on, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.samplers
from torch import Tensor

from ...memo_avatar.clips.values import SamplingSettings
from ...memo_avatar.inputs import VAE_STRIDE, Portrait
from ...memo_avatar.timing import clip_spans
from .sockets import EncodedVoice, MemoNets


@dataclass(frozen=True)
class VideoJob:
    """Everything that a video depends on. ``model`` is a MODEL from Load MEMO, ``vae`` a host VAE."""

    model: Any
    memo: MemoNets
    portrait: Portrait
    voice: EncodedVoice
    vae: Any
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str

    @property
    def settings(self) -> SamplingSettings:
        return SamplingSettings(steps=self.steps, guidance_scale=self.cfg)

    @property
    def num_frames(self) -> int:
        return self.voice.voice.num_frames

    @property
    def num_clips(self) -> int:
        return len(clip_spans(self.num_frames, self.settings.frames_per_clip))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.portrait.pixel_values.shape[-2:]
        return height, width

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """Of one clip's latents: (1, 4, F, h, w)."""
        height, width = (length // VAE_STRIDE for length in self.size)
        channels = self.memo.config.diffusion_net.in_channels
        return (1, channels, self.settings.frames_per_clip, height, width)

    def sigmas(self) -> Tensor:
        """The host's noise levels; those of "normal" are upstream's."""
        return comfy.samplers.KSampler(
            self.model,
            steps=self.steps,
            device=self.model.load_device,
            sampler=self.sampler_name,
            scheduler=self.scheduler,
            denoise=1.0,
            model_options=self.model.model_options,
        ).sigmas
