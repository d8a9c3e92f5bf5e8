"""MEMO Sampler: portrait and voice become frames."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.inputs import Portrait
from ..memo_avatar.timing import FPS
from ..memo_avatar.video.segments import write_video
from .host.cached_sampling import start_video
from .host.estimate import check_frames
from .host.job import VideoJob
from .host.schema import schema
from .host.sockets import (
    EncodedVoice,
    MemoNets,
    MemoReport,
)
from .host.video import generate_video
from .host.video_inputs import fps_input, job_inputs, make_delivery, make_report

UNFINISHED = "video/memo_unfinished"
"""Where the frames of a stopped run go: a file name in the output folder, without number and ending."""

logger = logging.getLogger(__name__)


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
        portrait: Portrait,
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
                shown = delivery.indices(clip.start, len(clip.frames))
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
