"""One video from start to end: inputs checked, models loaded, clips written as they are ready."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from memo_avatar.checkpoint.load import open_checkpoint
from memo_avatar.clips.conditions import VAE
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.solvers import SOLVERS
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import Portrait, Voice
from memo_avatar.model.config import MemoConfig
from memo_avatar.model.nets import MemoModels
from memo_avatar.timing import clip_spans
from memo_avatar.video.delivery import Delivery
from memo_avatar.video.streams import expected_bytes
from memo_avatar.video.writer import VideoWriter, check_output
from memo_avatar.voice.listen import Sources
from memo_avatar.voice.sound_files import load_audio
from teacache_core import StepCache

from .arguments import VideoOptions
from .caching import build_cache, plan_cache, save_results
from .face_inputs import read_portrait, warn_of_size
from .models import ModelFiles, load_models, select_device, select_dtype
from .progress import ClipProgress, byte_progress, note
from .voice import encode_voice, read_voice

INTERRUPTED = 130  # what shells report for Ctrl-C


@dataclass(frozen=True)
class Inputs:
    """The user's files, read and found good."""

    portrait: Portrait
    voice: Sources
    guidance_scale: float
    delivery: Delivery

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the video."""
        height, width = self.portrait.pixel_values.shape[-2:]
        return self.delivery.size(width, height)


@torch.inference_mode()
def generate(options: VideoOptions) -> int:
    """Make the video; the exit status."""
    started = time.monotonic()
    device = select_device(options.device)
    files = ModelFiles.find(options.checkpoint, options.vae, options.wav2vec2)
    cache_settings = plan_cache(options, files)
    config = open_checkpoint(files.checkpoint).config
    inputs = read_inputs(options, files, config)
    voice = encode_voice(inputs.voice, files.wav2vec2, device, config.audio_proj.input_dim)
    with byte_progress("loading") as progress:
        models, vae = load_models(files, select_dtype(options.dtype, device), device, progress)
    observe = options.cache_report is not None
    cache = build_cache(cache_settings, models, inputs.guidance_scale, observe=observe)
    finished = render(models, vae, inputs, voice, options, cache)
    for line in save_results(cache, options):
        print(line)
    return report(options.output, inputs, finished, time.monotonic() - started)


def read_inputs(options: VideoOptions, files: ModelFiles, config: MemoConfig) -> Inputs:
    """Everything that a user can get wrong, before any work."""
    sources = (options.image, options.audio, options.face_embedding, options.vocals)
    used = [path for path in sources if path is not None]
    check_output(options.output, used)
    size = options.size or (files.settings.size, files.settings.size)
    portrait, paster = read_portrait(options, files.settings, size, config.image_proj.embedding_dim)
    waveform = load_audio(options.audio, max_seconds=options.max_seconds)
    delivery = Delivery.of_voice(waveform.shape[0], options.fps, paster)
    nbytes = expected_bytes(delivery.total, *delivery.size(*size))
    check_output(options.output, used, nbytes=nbytes)
    warn_of_size(delivery)
    given = options.guidance_scale
    guidance_scale = files.settings.guidance_scale if given is None else given
    voice = read_voice(options, waveform)
    return Inputs(portrait, voice, guidance_scale, delivery)


def render(
    models: MemoModels,
    vae: VAE,
    inputs: Inputs,
    voice: Voice,
    options: VideoOptions,
    cache: StepCache,
) -> int:
    """Write clip after clip; the number of frames written, fewer than the voice's if the user stopped it."""
    settings = SamplingSettings(
        steps=options.steps, guidance_scale=inputs.guidance_scale, solver=SOLVERS[options.solver]
    )
    progress = ClipProgress(len(clip_spans(voice.num_frames, settings.frames_per_clip)), options.steps)
    width, height = inputs.size
    writer = VideoWriter(options.output, width=width, height=height, fps=options.fps, audio=options.audio)
    try:
        with progress, writer:
            for clip in generate_clips(
                models,
                vae,
                inputs.portrait,
                voice,
                settings,
                seed=options.seed,
                on_step=progress.on_step,
                wrap_denoiser=partial(cache.wrap, euler=options.solver == "euler"),
            ):
                for frames in inputs.delivery.frames(clip.frames, clip.start):
                    writer.write(frames)
                progress.on_clip(clip.index)
                del clip  # and with it the memory before the next clip
    except KeyboardInterrupt:
        note("Stopped.")
    except Exception:
        if writer.kept is not None:
            note(f"The {writer.num_frames} frames finished before the error are kept in {writer.kept}.")
        raise
    return writer.num_frames


def report(output: Path, inputs: Inputs, finished: int, seconds: float) -> int:
    """Where the video is and what it took; the exit status."""
    (width, height), total, fps = inputs.size, inputs.delivery.total, inputs.delivery.fps
    if not finished:
        print("Stopped before the first clip was finished: no video was written.")
        return INTERRUPTED
    if finished < total:
        print(f"Stopped after {finished} of {total} frames; what was finished is playable.")
    print(f"Video: {output} ({finished} frames of {width}x{height}, {finished / fps:.2f} s)")
    print(f"Time: {seconds:.1f} s in all, {seconds / finished:.3f} s per frame")
    return 0 if finished == total else INTERRUPTED
