"""What conditions the clips of one video: what is constant over it, and the context of each clip."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..inputs import Portrait
from ..model.context import ClipContext, ReferenceFeatures, join_features
from ..model.memory import MemoryState
from ..model.nets import MemoModels
from ..model.offload import Offload
from ..model.sizes import runs_per_part
from .drift import Appearance, appearance
from .reference_plan import ReferencePlan, face_ids, reference_plan
from .values import SamplingSettings

VAE_SCALE = 0.18215
"""Factor from VAE latents to model latents, fixed in upstream's ``memo/pipelines/video_pipeline.py``."""


class VAE(Protocol):
    """What the loop needs of an autoencoder; latents are unscaled, pixels -1..1."""

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) float32, wherever they are -> (N, 4, H/8, W/8), the posterior's mean.

        It brings a few pictures at a time to its device, in its own dtype.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(N, 4, h, w) -> (N, 3, 8h, 8w)."""
        ...


class VideoConditions:
    """What stays constant over a video: branches, face tokens, the reference image's latents and features."""

    def __init__(
        self,
        models: MemoModels,
        vae: VAE,
        portrait: Portrait,
        settings: SamplingSettings,
        offload: Offload | None = None,
    ) -> None:
        """``offload`` keeps memory in RAM; without one all of it is on the nets' device."""
        self.models, self.settings, self.offload = models, settings, offload
        face = portrait.face_embedding.to(models.device, models.dtype)
        cond = models.image_proj(face)
        tokens = (
            [cond] if settings.branches == ("cond",) else [models.image_proj(torch.zeros_like(face)), cond]
        )
        self.face_tokens = torch.cat(tokens)  # (B, T, D)
        self.face_ids = face_ids(len(tokens), has_face=bool(portrait.face_embedding.any()))
        self.vae = vae
        self.image_latents = self.encode(portrait.pixel_values)
        self.image_features: dict[int, ReferenceFeatures] = {}  # by face id

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in -1..1 -> scaled latents (N, 4, h, w) where the nets are and in their dtype."""
        return self.vae.encode(pixels).to(self.models.device, self.models.dtype) * VAE_SCALE

    def portrait_appearance(self) -> Appearance:
        """What the portrait looks like after the VAE, as every frame does."""
        pixels = self.vae.decode((self.image_latents / VAE_SCALE).to(self.models.dtype))
        return appearance((pixels.float() / 2 + 0.5).clamp(0, 1))

    def plan(self, past_latents: Tensor | None) -> ReferencePlan:
        """What the reference net has to run for one clip; ``past_latents`` is None for the first."""
        past_frames = self.settings.past_frames if past_latents is None else past_latents.shape[0]
        frames = self.settings.frames_per_clip
        return reference_plan(self.face_ids, frames, past_frames, first_clip=past_latents is None)

    def reference(
        self, plan: ReferencePlan, past_latents: Tensor | None
    ) -> tuple[ReferenceFeatures, ReferenceFeatures]:
        """Features of the reference image (a run per face, kept for the video) and of the past frames."""
        for face in plan.image_faces:
            if face not in self.image_features:
                tokens = self.face_tokens[face : face + 1]
                self.image_features[face] = self.models.reference_net(self.image_latents, tokens)
        runs = [self.image_features[face].layers for face in plan.image_faces]
        image = ReferenceFeatures(tuple(torch.cat(layer) for layer in zip(*runs, strict=True)))
        if past_latents is None:
            return image, image
        latents, tokens = past_latents[list(plan.past_frames)], self.face_tokens[list(plan.past_faces)]
        return image, self._run_in_parts(latents, tokens)

    def _run_in_parts(self, latents: Tensor, face_tokens: Tensor) -> ReferenceFeatures:
        """The reference net over R images, no more of them at once than need be."""
        count = runs_per_part(*latents.shape[-2:])
        parts = zip(latents.split(count), face_tokens.split(count), strict=True)
        return join_features((self.models.reference_net(*part) for part in parts), latents.shape[0])

    def clip(
        self, past_latents: Tensor | None, memory: MemoryState | None, audio: Tensor, emotion: int
    ) -> ClipContext:
        """The context of one clip, with the memory that it leaves; ``memory`` goes into it.

        ``past_latents`` (P, 4, h, w) and ``memory`` are None in the first clip; ``audio`` (F, window, blocks,
        channels).
        """
        models, branches = self.models, self.settings.branches
        plan = self.plan(past_latents)
        image, past = self.reference(plan, past_latents)
        past_rows = torch.tensor(plan.memory_rows, device=models.device)
        memory = models.diffusion_net.update_memory(past, past_rows, memory, self.offload)
        audio_tokens = models.audio_proj(audio[None].to(models.device, models.dtype))
        null_emotion = models.config.diffusion_net.num_emotions - 1
        emotions = [emotion]
        if len(branches) > 1:
            audio_tokens = torch.cat([torch.zeros_like(audio_tokens), audio_tokens])
            emotions = [null_emotion, emotion]
        return models.diffusion_net.prepare_context(
            face_tokens=self.face_tokens,
            audio_tokens=audio_tokens,
            emotion=torch.tensor(emotions, device=models.device),
            reference=image,
            has_reference=tuple(branch == "cond" for branch in branches),
            memory=memory,
            reference_rows=torch.tensor(plan.reference_rows[-1:], device=models.device),
            offload=self.offload,
        )
