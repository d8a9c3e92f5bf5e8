"""A video in the host: the clip loop over its own sampling, its placing of models, one progress bar."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import comfy.model_management as management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...memo_avatar.clips.conditions import VAE_SCALE, VideoConditions
from ...memo_avatar.clips.loop import render_clips
from ...memo_avatar.clips.placement import describe_placement
from ...memo_avatar.clips.values import Clip, ClipState
from ...memo_avatar.model.context import ClipContext
from ...memo_avatar.model.nets import MemoModels
from ...memo_avatar.timing import clip_spans
from .cached_sampling import CachedVideo
from .estimate import plan_memory
from .job import VideoJob
from .memory import HostOffload, load
from .model import ClipShares, conditioning
from .schema import decoration, show_progress

logger = logging.getLogger(__name__)

PREVIEW_SIZE = 512
_MAX_SEED = 2**64
NOT_FOR_FLOW = frozenset(
    {"ddpm", "dpmpp_2s_ancestral_cfg_pp", "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp"}
)
"""The host's samplers whose latents leave (1 - sigma) * answer + sigma * noise; the tests find them with a
net that knows the answer."""


@dataclass(frozen=True)
class HostModels(MemoModels):
    """The nets where the host keeps them: device and dtype are its own, wherever the weights lie now."""

    load_device: torch.device
    compute_dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        return self.load_device

    @property
    def dtype(self) -> torch.dtype:
        return self.compute_dtype


class HostVAE:
    """The host's VAE (channels last, 0..1) as the clip loop's (channels first, -1..1)."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 4, h, w)."""
        return self.vae.encode((pixels.float() / 2 + 0.5).movedim(1, -1))

    def decode(self, latents: Tensor) -> Tensor:
        """(N, 4, h, w) -> (N, 3, H, W)."""
        return self.vae.decode(latents).movedim(-1, 1) * 2 - 1


class Progress:
    """One bar over clips × steps, with a picture of the newest frame. Nothing that fails here ends a run.

    Where the video ``grows`` on the node, it takes the pictures' place after the first clip.
    """

    def __init__(self, model: Any, clips: int, steps: int, grows: bool = False) -> None:
        self.steps, self.total, self.grows = steps, clips * steps, grows
        self.started: tuple[float, int] | None = None  # when, and after how many steps
        self.bar = comfy.utils.ProgressBar(self.total)
        self.previewer: Any = None
        with decoration("A preview of the steps"):
            self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def on_step(self, clip_index: int) -> Callable[[int, Tensor, Tensor, int], None]:
        """The host's sampler callback for one clip."""

        def callback(step: int, denoised: Tensor, _latents: Tensor, _total: int) -> None:
            done = clip_index * self.steps + min(step + 1, self.steps)
            show_progress(self.describe(done, time.monotonic()))
            self._show(done, self._preview(denoised))

        return callback

    def describe(self, done: int, now: float) -> str:
        """`Clip 2 of 8, about 40 s left`, counted from the first step of this run."""
        clips = self.total // self.steps
        text = f"Clip {min(clips, (done - 1) // self.steps + 1)} of {clips}"
        if self.started is None:
            self.started = now, done
        start, before = self.started
        if done == before:
            return text
        left = (now - start) / (done - before) * (self.total - done)
        return f"{text}, about {left:.0f} s left" if left < 100 else f"{text}, about {left / 60:.0f} min left"

    def on_clip(self, clip_index: int, frame: Tensor) -> None:
        """A finished clip: its last frame (3, H, W)."""
        preview = None
        if self.grows:
            self.previewer = None
        else:
            preview = _picture(frame)
        self._show((clip_index + 1) * self.steps, preview)

    def _preview(self, denoised: Tensor) -> Any:
        """The middle frame of (1, 4, F, h, w). Given as one picture: the host's previewers for this latent
        format know no frames.
        """
        previewer, self.previewer = self.previewer, None  # one that fails is not asked again
        if previewer is None:
            return None
        preview = None
        with decoration("A preview of the steps"):
            newest = denoised[:, :, denoised.shape[2] // 2]
            preview = previewer.decode_latent_to_preview_image("JPEG", newest)
            self.previewer = previewer
        return preview

    def _show(self, done: int, preview: Any) -> None:
        with decoration("The progress"):
            self.bar.update_absolute(done, self.total, preview)


def _picture(frame: Tensor) -> Any:
    """A frame (3, H, W) in 0..1 as the host shows previews."""
    from PIL import Image

    with decoration("A preview of the clip"):
        pixels = (frame * 255).round().to(torch.uint8).movedim(0, -1).numpy()
        return "JPEG", Image.fromarray(pixels), PREVIEW_SIZE
    return None


def generate_video(
    job: VideoJob, video: CachedVideo | None = None, state: ClipState | None = None, *, grows: bool = False
) -> Iterator[Clip]:
    """Yield each clip when it is done; ``state`` continues after a finished one; ``grows``: see Progress.

    The clip loop with the host's sampling in place of ours: equal inputs give equal videos to rounding.
    """
    check_sampler(job.sampler_name)
    needs, placement = plan_memory(job)
    logger.info(describe_placement(needs, placement))
    spans = clip_spans(job.num_frames, job.settings.frames_per_clip)
    progress = Progress(job.model, len(spans), job.steps, grows)
    load(job.memo.patchers())
    offload = HostOffload(job.model.load_device, placement.in_ram) if any(placement.in_ram) else None
    conditions = VideoConditions(_models(job), HostVAE(job.vae), job.portrait, job.settings, offload)
    sigmas, first = job.sigmas(), 0 if state is None else state.clip_index + 1

    def prepare(clip_index: int) -> None:
        management.throw_exception_if_processing_interrupted()
        # What the clip before has on the device is given back as this one's takes its place.
        there = 0 if clip_index == first else needs.stays(placement)
        load_for_clip(job, needs.making(placement) - there)
        if video is not None:
            video.clip_index = clip_index

    def render(context: ClipContext, noise: Tensor, clip_index: int) -> tuple[Tensor, Tensor]:
        latents = sample_clip(job, context, noise, sigmas, clip_index, progress.on_step(clip_index))
        frames = job.vae.decode(latents[0].transpose(0, 1))  # (1, 4, F, h, w) -> (F, 4, h, w) -> (F, H, W, 3)
        return frames.movedim(-1, 1).to("cpu", torch.float32), latents * VAE_SCALE

    seed = job.seed % _MAX_SEED
    clips = render_clips(conditions, job.voice.voice, render, seed=seed, state=state, prepare=prepare)
    for clip in clips:
        progress.on_clip(clip.index, clip.frames[-1])
        yield clip


def load_for_clip(job: VideoJob, room: float) -> None:
    """The nets on the device, as far as they fit beside ``room`` bytes for a clip's memory and context.

    The reference net runs whole and several times, so it comes first; of the diffusion net few weights are
    used before the steps, for which the host loads it again.
    """
    reference_net = job.memo.reference_net
    load([job.model], room + reference_net.model_size() - reference_net.loaded_size())
    load(job.memo.patchers(), room)
    if job.model.loaded_size() == 0:  # wholly pushed out by them, its layers would not fetch their weights
        load([job.model, *job.memo.patchers()], room)


def check_sampler(name: str) -> None:
    """Raise for a sampler that does not keep to a flow's noise levels."""
    if name in NOT_FOR_FLOW:
        raise ValueError(
            f"expected a sampler for flow models but got {name} (MEMO Sampler): the noise that it adds "
            "belongs to another kind of schedule. Use euler, or euler_ancestral for added noise."
        )


def sample_clip(
    job: VideoJob, context: ClipContext, noise: Tensor, sigmas: Tensor, clip_index: int, callback: Any
) -> Tensor:
    """One clip's latents by the host: (1, 4, F, h, w), unscaled."""
    shares = ClipShares(context)
    cond = conditioning(shares, context.batch - 1)
    latents = comfy.sample.sample_custom(
        job.model,
        noise,
        job.cfg,
        comfy.samplers.sampler_object(job.sampler_name),
        sigmas,
        cond,
        conditioning(shares, 0) if context.batch > 1 else cond,
        torch.zeros_like(noise),
        callback=callback,
        disable_pbar=True,
        seed=(job.seed + clip_index) % _MAX_SEED,
    )
    if not torch.isfinite(latents).all():
        raise RuntimeError(
            f"expected finite latents but got NaN or infinity (clip {clip_index}, {job.sampler_name}, "
            f"{job.scheduler}). Use the euler sampler with the normal scheduler; if that fails too, load "
            "MEMO in fp32."
        )
    return latents


def _models(job: VideoJob) -> HostModels:
    memo, model = job.memo, job.model.model
    return HostModels(
        diffusion_net=model.diffusion_model,
        reference_net=memo.reference_net.model,
        image_proj=memo.image_proj.model,
        audio_proj=memo.audio_proj.model,
        config=memo.config,
        load_device=job.model.load_device,
        compute_dtype=model.get_dtype_inference(),
    )
