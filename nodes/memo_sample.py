"""MEMO Sampler: portrait and voice become frames."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import comfy.samplers
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.clip_plan import FPS
from ..memo_avatar.delivery import Delivery
from ..memo_avatar.paste import Paster
from ..memo_avatar.retime import RATES
from ..teacache_core import CalibrationError, RunReport, StepCache, StepCacheConfig
from .host_estimate import check_frames
from .host_nodes import schema
from .host_sampling import CachedVideo, start_video
from .host_segments import write_video
from .host_video import VideoJob, generate_video
from .sockets import (
    EncodedPortrait,
    EncodedVoice,
    Memo,
    MemoNets,
    MemoPortrait,
    MemoReport,
    MemoVoice,
    VideoReport,
)

UNFINISHED = "video/memo_unfinished"
"""Where the frames of a stopped run go: a file name in the output folder, without number and ending."""

logger = logging.getLogger(__name__)


def job_inputs() -> list[Any]:
    """The inputs of every node that makes a video."""
    samplers, schedulers = comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSampler.SCHEDULERS
    return [
        io.Model.Input(
            "model", tooltip="From Load MEMO, or through TeaCache for MEMO, LoRA and other model nodes."
        ),
        Memo.Input("memo", tooltip="From Load MEMO."),
        MemoPortrait.Input("portrait", tooltip="From MEMO Portrait."),
        MemoVoice.Input("voice", tooltip="From MEMO Voice."),
        io.Vae.Input("vae", tooltip="From Load MEMO."),
        io.Int.Input(
            "seed",
            default=42,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Number that the noise is drawn from. The same number gives the same video.",
        ),
        io.Int.Input(
            "steps", default=20, min=1, max=200, tooltip="Steps per clip of 16 frames. MEMO uses 20."
        ),
        io.Float.Input(
            "cfg",
            default=3.5,
            min=1.0,
            max=20.0,
            step=0.1,
            tooltip="Guidance: how closely the voice is followed. MEMO uses 3.5, its demo 1.5. 1 is off and "
            "twice as fast.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=samplers,
            default="euler",
            tooltip="How a step is taken. MEMO uses euler; deis is more exact at the same cost.",
        ),
        io.Combo.Input(
            "scheduler",
            options=schedulers,
            default="normal",
            tooltip="Where the steps lie between noise and picture. MEMO uses normal.",
        ),
    ]


def fps_input() -> Any:
    """At the end of the inputs: stored workflows keep their values by position."""
    return io.Combo.Input(
        "fps",
        options=[str(rate) for rate in RATES],
        default=str(FPS),
        optional=True,
        tooltip="Frames per second of the video. MEMO makes 30; for another rate frames are dropped or "
        "repeated, exact in time.",
    )


def make_delivery(job: VideoJob, fps: str, paster: Paster | None = None) -> Delivery:
    """How the job's frames become the video's, as long as the voice."""
    voice = job.voice
    samples = voice.waveform.shape[-1]
    return Delivery.of_voice(
        samples, int(fps), paster, sample_rate=voice.sample_rate, generated=job.num_frames
    )


class SamplerNode(io.ComfyNode):
    """Everything -> IMAGE, AUDIO, fps, report."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_Sampler",
            "MEMO Sampler",
            "Makes the talking video, clip after clip of 16 frames, as long as the voice. Connect images, "
            "audio and fps to Create Video. Cancelled, the finished clips are saved to "
            f"output/{UNFINISHED}.",
            inputs=[*job_inputs(), fps_input()],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Audio.Output(display_name="audio", tooltip="The voice, cut to the length of the frames."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the images."),
                MemoReport.Output(
                    display_name="report", tooltip="For TeaCache Report and TeaCache Calibrate."
                ),
            ],
            search_aliases=["memo", "talking head", "lip sync", "ksampler", "avatar"],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        memo: MemoNets,
        portrait: EncodedPortrait,
        voice: EncodedVoice,
        vae: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        fps: str = str(FPS),
    ) -> io.NodeOutput:
        started = time.perf_counter()
        model, video = start_video(model, cfg)
        job = VideoJob(model, memo, portrait, voice, vae, seed, steps, cfg, sampler_name, scheduler)
        delivery = make_delivery(job, fps)
        check_frames(job, delivery.total)
        images, done = torch.empty(delivery.total, *job.size, 3), 0
        try:
            for clip in generate_video(job, video):
                start = clip.index * job.settings.frames_per_clip
                shown = delivery.indices(start, len(clip.frames))
                images[done : done + len(shown)] = clip.frames[shown].movedim(1, -1)
                done += len(shown)
                del clip  # its state would stay on the device
        except BaseException:
            keep_finished(images[:done], voice, delivery.fps)
            raise
        report = make_report(video, time.perf_counter() - started, done)
        return io.NodeOutput(images, fitted_audio(voice, done, delivery.fps), float(fps), report)


def keep_finished(images: Tensor, voice: EncodedVoice, fps: int = FPS) -> None:
    """A run was cancelled or failed: its finished clips (F, H, W, 3) become a video in the output folder."""
    if not len(images):
        return
    height, width = images.shape[1:3]
    output = folder_paths.get_output_directory()
    place, name, counter, *_ = folder_paths.get_save_image_path(UNFINISHED, output, width, height)
    path = Path(place) / f"{name}_{counter:05}_.mp4"
    try:
        write_video(path, images.movedim(-1, 1), voice.waveform[0], voice.sample_rate, fps)
    except OSError as error:  # what stopped the run matters more
        logger.error("The %d finished frames could not be saved: %s", len(images), error)
    else:
        logger.warning("Stopped. The %d finished frames are in %s.", len(images), path)


def fitted_audio(voice: EncodedVoice, frames: int, fps: int = FPS) -> dict[str, Any]:
    """The voice exactly as long as the frames: cut, or filled up with the silence of a part of a frame."""
    wanted = round(frames * voice.sample_rate / fps)
    waveform: Tensor = voice.waveform[..., :wanted]
    waveform = torch.nn.functional.pad(waveform, (0, wanted - waveform.shape[-1]))
    return {"waveform": waveform, "sample_rate": voice.sample_rate}


def make_report(video: CachedVideo | None, seconds: float, frames: int) -> VideoReport:
    """What was computed and what it took."""
    if video is None:
        return VideoReport(RunReport(StepCacheConfig()), seconds, frames)
    calibration, notes = None, ()
    if video.cache.config.calibrate:
        calibration, notes = _calibration(video.cache)
    return VideoReport(video.cache.report, seconds, frames, calibration, notes)


def _calibration(cache: StepCache) -> tuple[Any, tuple[str, ...]]:
    try:
        return cache.make_calibration(), ()
    except CalibrationError as error:
        return None, (f"Nothing was learned: {error}",)
