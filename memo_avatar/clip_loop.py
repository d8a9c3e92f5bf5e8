"""A video clip by clip: conditions, steps, decoding, and the one value that goes from clip to clip.

The loop knows torch and the nets it is given, no file format, no user interface and no cache: a caller
watches the steps through ``on_step`` and may wrap each clip's denoiser through ``wrap_denoiser``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .clip_denoiser import ClipDenoiser, guided
from .clip_plan import ClipSpan, ReferencePlan, clip_spans, reference_plan
from .config import MemoConfig
from .context import ClipContext, MemoryState, ReferenceFeatures
from .projections import AudioProjection, ImageProjection
from .reference_unet import ReferenceUNet
from .solvers import Solver, flow_sigmas, sample_euler
from .unet3d import UNet3D

VAE_SCALE = 0.18215
"""Factor from VAE latents to model latents, fixed in upstream's ``memo/pipelines/video_pipeline.py``."""

VAE_STRIDE = 8
"""Pixels per latent along each axis."""


@dataclass(frozen=True)
class MemoModels:
    """The four nets of one checkpoint, on one device and in one dtype."""

    diffusion_net: UNet3D
    reference_net: ReferenceUNet
    image_proj: ImageProjection
    audio_proj: AudioProjection
    config: MemoConfig

    @property
    def device(self) -> torch.device:
        return self.diffusion_net.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.diffusion_net.conv_in.weight.dtype


class VAE(Protocol):
    """What the loop needs of an autoencoder; latents are unscaled, pixels -1..1."""

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4, H/8, W/8), the posterior's mean."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(N, 4, h, w) -> (N, 3, 8h, 8w)."""
        ...


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


@dataclass(frozen=True)
class SamplingSettings:
    """How a video is sampled, with upstream's defaults; ``guidance_scale`` <= 1 drops the uncond branch."""

    steps: int = 20
    guidance_scale: float = 3.5
    frames_per_clip: int = 16
    past_frames: int = 16
    solver: Solver = sample_euler

    def __post_init__(self) -> None:
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
    than P, as upstream has it); ``generator`` is the noise generator's state.
    """

    clip_index: int
    past_frames: Tensor
    memory: MemoryState
    generator: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """A flat dict for safetensors; :meth:`from_tensors` reverses it."""
        memory = {f"memory.{key}": tensor for key, tensor in self.memory.tensors().items()}
        index = torch.tensor([self.clip_index])
        return {"clip_index": index, "past_frames": self.past_frames, "generator": self.generator, **memory}

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
        )


@dataclass(frozen=True)
class Clip:
    """A finished clip: ``frames`` (F, 3, H, W) float32 in 0..1 on the CPU, trimmed to the voice's length."""

    index: int
    frames: Tensor
    state: ClipState


Denoise = Callable[[Tensor, Tensor], dict[str, Tensor]]
WrapDenoiser = Callable[[ClipDenoiser, Tensor, int], AbstractContextManager[Denoise]]
"""``wrap_denoiser(denoiser, sigmas, clip_index)``: a context manager whose value is called instead."""

DrawNoise = Callable[[int, tuple[int, ...]], Tensor]
"""``draw_noise(clip_index, shape)`` -> a clip's initial latents (1, 4, F, h, w) float32."""

RenderClip = Callable[[ClipContext, Tensor, int], Tensor]
"""``render(context, noise, clip_index)`` -> a clip's frames (F, 3, H, W) float32 in 0..1 on the CPU."""

OnStep = Callable[[int, int, Tensor], None]
"""``on_step(clip_index, step, latents)`` before each evaluation of the net."""


class VideoConditions:
    """What stays constant over a video: branches, face tokens, the reference image's latents and features."""

    def __init__(self, models: MemoModels, vae: VAE, portrait: Portrait, settings: SamplingSettings) -> None:
        self.models, self.settings = models, settings
        face = portrait.face_embedding.to(models.device, models.dtype)
        cond = models.image_proj(face)
        tokens = (
            [cond] if settings.branches == ("cond",) else [models.image_proj(torch.zeros_like(face)), cond]
        )
        self.face_tokens = torch.cat(tokens)  # (B, T, D)
        same = len(tokens) > 1 and not portrait.face_embedding.any()  # no face: cond has uncond's zeros
        self.face_ids = (0,) * len(tokens) if same else tuple(range(len(tokens)))
        self.vae = vae
        self.image_latents = self.encode(portrait.pixel_values)
        self.image_features: dict[int, ReferenceFeatures] = {}  # by face id

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in -1..1 -> scaled latents (N, 4, h, w) where the nets are and in their dtype."""
        latents = self.vae.encode(pixels.to(self.models.device))
        return latents.to(self.models.device, self.models.dtype) * VAE_SCALE

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
        return image, self.models.reference_net(latents, tokens)

    def clip(
        self, past_latents: Tensor | None, memory: MemoryState | None, audio: Tensor, emotion: int
    ) -> tuple[ClipContext, MemoryState]:
        """The context of one clip and the memory it leaves. ``audio`` (F, window, blocks, channels)."""
        models, branches = self.models, self.settings.branches
        plan = self.plan(past_latents)
        image, past = self.reference(plan, past_latents)
        past_rows = torch.tensor(plan.past_rows, device=models.device)
        memory = models.diffusion_net.update_memory(past, past_rows, memory)
        audio_tokens = models.audio_proj(audio[None].to(models.device, models.dtype))
        null_emotion = models.config.diffusion_net.num_emotions - 1
        emotions = [emotion]
        if len(branches) > 1:
            audio_tokens = torch.cat([torch.zeros_like(audio_tokens), audio_tokens])
            emotions = [null_emotion, emotion]
        context = models.diffusion_net.prepare_context(
            face_tokens=self.face_tokens,
            audio_tokens=audio_tokens,
            emotion=torch.tensor(emotions, device=models.device),
            reference=image,
            has_reference=tuple(branch == "cond" for branch in branches),
            memory=memory,
            reference_rows=torch.tensor(plan.reference_rows[-1:], device=models.device),
        )
        return context, memory


def generate_clips(
    models: MemoModels,
    vae: VAE,
    portrait: Portrait,
    voice: Voice,
    settings: SamplingSettings | None = None,
    *,
    seed: int = 42,
    state: ClipState | None = None,
    on_step: OnStep | None = None,
    wrap_denoiser: WrapDenoiser | None = None,
    draw_noise: DrawNoise | None = None,
) -> Iterator[Clip]:
    """Generate a video, yielding each clip when it is done.

    One noise generator, seeded with ``seed``, continues across clips (upstream does the same); ``draw_noise``
    replaces it. Give the ``state`` of a finished clip to continue after it: the result is that of an
    uninterrupted run. The frames of all clips together are exactly ``voice.num_frames``.
    """
    settings = settings or SamplingSettings()
    with torch.inference_mode():
        conditions = VideoConditions(models, vae, portrait, settings)

    def render(context: ClipContext, noise: Tensor, clip_index: int) -> Tensor:
        denoiser = ClipDenoiser(models.diffusion_net, context, settings.branches, models.dtype)
        latents = _sample(denoiser, noise.to(models.device), settings, clip_index, on_step, wrap_denoiser)
        return decode_frames(vae, latents, models.dtype)

    clips = render_clips(conditions, voice, render, seed=seed, state=state, draw_noise=draw_noise)
    state = None
    while True:
        with torch.inference_mode():  # as a decorator it would keep each clip while the next one is made
            clip = next(clips, None)
        if clip is None:
            return
        yield clip
        del clip


def render_clips(
    conditions: VideoConditions,
    voice: Voice,
    render: RenderClip,
    *,
    seed: int,
    state: ClipState | None = None,
    prepare: Callable[[int], None] | None = None,
    draw_noise: DrawNoise | None = None,
) -> Iterator[Clip]:
    """The loop over the clips, whoever samples and decodes them: what passes from one clip to the next.

    ``prepare(clip_index)`` is called before the nets run. Whoever keeps a clip's state while the next clip is
    made keeps its memory on the device: gigabytes at 512x512.
    """
    settings = conditions.settings
    channels = conditions.models.config.diffusion_net.in_channels
    shape = (1, channels, settings.frames_per_clip, *conditions.image_latents.shape[2:])
    generator = torch.Generator().manual_seed(seed)
    if state is not None:
        generator.set_state(state.generator)
    first = 0 if state is None else state.clip_index + 1
    for span in clip_spans(voice.num_frames, settings.frames_per_clip)[first:]:
        past_latents, memory = None, None
        if state is not None:
            past_latents, memory = conditions.encode(state.past_frames * 2 - 1), state.memory
        if prepare is not None:
            prepare(span.index)
        context, memory = conditions.clip(past_latents, memory, *clip_voice(voice, span))
        state = None  # and with it the memory before this clip, which sampling has no use for
        noise = draw_noise(span.index, shape) if draw_noise else torch.randn(shape, generator=generator)
        frames = render(context, noise, span.index)
        past_frames = frames[-settings.past_frames :].clone()
        state = ClipState(span.index, past_frames, memory, generator.get_state())
        yield Clip(span.index, frames[: span.keep], state)


def clip_voice(voice: Voice, span: ClipSpan) -> tuple[Tensor, int]:
    """A clip's audio features, the last repeated past the voice's end, and its most frequent emotion."""
    index = torch.arange(span.start, span.stop).clamp(max=voice.audio_embeddings.shape[0] - 1)
    return voice.audio_embeddings[index], int(voice.emotions[index].mode().values)


def _sample(
    denoiser: ClipDenoiser,
    noise: Tensor,
    settings: SamplingSettings,
    clip_index: int,
    on_step: OnStep | None,
    wrap_denoiser: WrapDenoiser | None,
) -> Tensor:
    sigmas = flow_sigmas(settings.steps)  # on the CPU: a solver reads them without waiting for the device
    wrapped: AbstractContextManager[Any] = nullcontext(denoiser)
    if wrap_denoiser is not None:
        wrapped = wrap_denoiser(denoiser, sigmas, clip_index)
    evaluations = 0

    def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
        nonlocal evaluations
        if on_step is not None:
            on_step(clip_index, evaluations, latents)
        evaluations += 1
        return guided(denoise(latents, sigma * 1000.0), settings.guidance_scale)

    with wrapped as denoise:
        return settings.solver(velocity, noise, sigmas)


def decode_frames(vae: VAE, latents: Tensor, dtype: torch.dtype) -> Tensor:
    """Model latents (1, 4, F, h, w) -> frames (F, 3, H, W) float32 in 0..1 on the CPU."""
    frames = vae.decode((latents[0].transpose(0, 1) / VAE_SCALE).to(dtype))
    return (frames.float() / 2 + 0.5).clamp(0, 1).cpu()
