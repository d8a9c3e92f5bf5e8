"""A video clip by clip: conditions, steps, decoding, and the one value that goes from clip to clip.

The loop knows torch and the nets it is given, no file format, no user interface and no cache: a caller
watches the steps through ``on_step`` and may wrap each clip's denoiser through ``wrap_denoiser``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..inputs import Portrait, Voice
from ..model.context import ClipContext
from ..model.nets import MemoModels
from ..model.offload import Offload
from ..timing import ClipSpan, clip_spans
from .conditions import VAE, VAE_SCALE, VideoConditions
from .denoiser import ClipDenoiser, guided
from .drift import GuardPast, guard_past
from .placement import Placement
from .solvers import flow_sigmas
from .values import Clip, ClipState, SamplingSettings

Denoise = Callable[[Tensor, Tensor], dict[str, Tensor]]
WrapDenoiser = Callable[[ClipDenoiser, Tensor, int], AbstractContextManager[Denoise]]
"""``wrap_denoiser(denoiser, sigmas, clip_index)``: a context manager whose value is called instead."""

DrawNoise = Callable[[int, tuple[int, ...]], Tensor]
"""``draw_noise(clip_index, shape)`` -> a clip's initial latents (1, 4, F, h, w) float32."""

RenderClip = Callable[[ClipContext, Tensor, int], tuple[Tensor, Tensor]]
"""``render(context, noise, clip_index)`` -> a clip's frames (F, 3, H, W) float32 in 0..1 on the CPU, and the
model latents (1, 4, F, h, w) that they were decoded from."""

OnStep = Callable[[int, int, Tensor], None]
"""``on_step(clip_index, step, latents)`` before each evaluation of the net."""


@torch.inference_mode()
def generate_clips(
    models: MemoModels,
    vae: VAE,
    portrait: Portrait,
    voice: Voice,
    settings: SamplingSettings | None = None,
    *,
    seed: int = 42,
    state: ClipState | None = None,
    placement: Placement | None = None,
    on_step: OnStep | None = None,
    wrap_denoiser: WrapDenoiser | None = None,
    draw_noise: DrawNoise | None = None,
) -> Iterator[Clip]:
    """Generate a video, yielding each clip when it is done.

    One noise generator, seeded with ``seed``, continues across clips (upstream does the same); ``draw_noise``
    replaces it. Give the ``state`` of a finished clip to continue after it: the result is that of an
    uninterrupted run, and the state is used up. ``placement`` says where the memory lives; None: on the
    device. The frames of all clips together are exactly ``voice.num_frames``.
    """
    settings = settings or SamplingSettings()
    placement = placement or Placement()
    offload = Offload(models.device, placement.in_ram) if any(placement.in_ram) else None
    conditions = VideoConditions(models, vae, portrait, settings, offload)

    def render(context: ClipContext, noise: Tensor, clip_index: int) -> tuple[Tensor, Tensor]:
        denoiser = ClipDenoiser(
            models.diffusion_net, context, settings.branches, models.dtype, apart=placement.apart
        )
        latents = _sample(denoiser, noise.to(models.device), settings, clip_index, on_step, wrap_denoiser)
        return decode_frames(vae, latents, models.dtype), latents

    yield from render_clips(conditions, voice, render, seed=seed, state=state, draw_noise=draw_noise)


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

    ``prepare(clip_index)`` is called before the nets run. The memory in a clip's state goes into the next
    clip's when that is asked for, and with it into the state given here.
    """
    settings = conditions.settings
    channels = conditions.models.config.diffusion_net.in_channels
    shape = (1, channels, settings.frames_per_clip, *conditions.image_latents.shape[2:])
    generator = torch.Generator().manual_seed(seed)
    if state is not None:
        generator.set_state(state.generator)
    guard = guard_past(conditions.portrait_appearance()) if settings.guard_drift else None
    first = 0 if state is None else state.clip_index + 1
    for span in clip_spans(voice.num_frames, settings.frames_per_clip)[first:]:
        # 1. What the clip before left: its last frames, which condition this one, and its memory.
        past_latents, memory = None, None
        if state is not None:
            past_latents, memory = _past_latents(conditions, state, guard), state.memory
        # 2. The nets, on the device.
        if prepare is not None:
            prepare(span.index)
        # 3. Reference features, the old memory made the new one, and what else the steps read.
        context = conditions.clip(past_latents, memory, *clip_voice(voice, span))
        # 4. Noise becomes frames.
        noise = draw_noise(span.index, shape) if draw_noise else torch.randn(shape, generator=generator)
        frames, latents = render(context, noise, span.index)
        # 5. What this clip leaves to the next.
        # In one layout whatever the VAE's, or a state that went through a file would give other roundings.
        past_frames = frames[-settings.past_frames :].clone(memory_format=torch.contiguous_format)
        kept = None
        if settings.past == "latents":
            kept = latents[0, :, -settings.past_frames :].transpose(0, 1).float().cpu().contiguous()
        state = ClipState(span.index, past_frames, context.memory, generator.get_state(), kept)
        yield Clip(span.index, span.start, frames[: span.keep], state)


def _past_latents(conditions: VideoConditions, state: ClipState, guard: GuardPast | None) -> Tensor:
    """What a clip begins from: latents (P, 4, h, w) where the nets are and in their dtype."""
    if conditions.settings.past == "frames":
        seen = state.past_frames if guard is None else guard(state.past_frames)
        return conditions.encode(seen * 2 - 1)
    if state.past_latents is None:
        raise ValueError(
            "expected the latents of the clip before but its state has frames alone (state). Go on with the "
            "settings that the video was begun with."
        )
    return state.past_latents.to(conditions.models.device, conditions.models.dtype)


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
