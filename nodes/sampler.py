"""MEMO Sampler: portrait and voice become frames."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..memo_avatar.files.disk import DiskError, write_new
from ..memo_avatar.files.foreign import counted
from ..memo_avatar.inputs import Portrait
from ..memo_avatar.timing import FPS
from ..memo_avatar.video.segments import write_video
from ..memo_avatar.video.streams import Sound
from ..memo_avatar.voice.sound import MediaError
from .boundary.checks import checked, refusal_of
from .host.cached_sampling import start_video
from .host.estimate import check_frames
from .host.job import VideoJob
from .host.outputs import HIDDEN, OutputName, tags_of
from .host.schema import schema, show_text
from .host.sockets import (
    EncodedVoice,
    MemoNets,
    MemoReport,
)
from .host.video import generate_video
from .host.video_inputs import (
    check_guidance,
    fps_input,
    guard_input,
    guidance_of,
    job_inputs,
    make_delivery,
    make_meter,
    make_report,
    validate_sampler,
)

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
            inputs=[*job_inputs(), fps_input(), guard_input()],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Audio.Output(display_name="audio", tooltip="The voice, cut to the length of the frames."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the images."),
                MemoReport.Output(
                    display_name="report", tooltip="For TeaCache Report and TeaCache Calibrate."
                ),
            ],
            hidden=HIDDEN,
            essentials_category="Video Generation",
            search_aliases=["memo", "talking head", "lip sync", "audio to video", "avatar", "ksampler"],
        )

    @classmethod
    def validate_inputs(cls, sampler_name: str | None = None, cfg: float | None = None) -> bool | str:
        fits = validate_sampler(sampler_name)
        return refusal_of(cls, check_guidance, cfg=cfg) if fits is True else fits

    @classmethod
    @checked
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
        guard_drift: bool = False,
    ) -> io.NodeOutput:
        started = time.perf_counter()
        cfg = guidance_of(cfg, memo)
        model, video = start_video(model, cfg)
        job = VideoJob(
            model, memo, portrait, voice, vae, seed, steps, cfg, sampler_name, scheduler, guard_drift
        )
        delivery = make_delivery(job, fps)
        check_frames(job, delivery.total)
        meter = make_meter(job, cls, report=3)
        images, clips, done = torch.empty(delivery.total, *job.size, 3), 0, 0
        try:
            for clip in meter.watch(generate_video(job, video)):
                shown = delivery.indices(clip.start, len(clip.frames))
                images[done : done + len(shown)] = clip.frames[shown].movedim(1, -1)
                clips, done = clip.index + 1, done + len(shown)
        except BaseException:
            if done:
                file = keep_finished(images[:done], voice, delivery.fps, tags_of(cls))
                show_text(cls, stopped(clips, job.num_clips, file))
            raise
        report = make_report(video, time.perf_counter() - started, done, meter.curve)
        show_text(cls, report.first_line)
        return io.NodeOutput(images, fitted_audio(voice, done, delivery.fps), float(fps), report)


def keep_finished(
    images: Tensor, voice: EncodedVoice, fps: int = FPS, tags: Mapping[str, str] | None = None
) -> Path | None:
    """A run was cancelled or failed: its finished frames (F, H, W, 3) become a video in the output folder, or
    in the folder of what is temporary where that does not work. Where, if it does.
    """
    height, width = images.shape[1:3]

    def write(path: Path) -> None:
        sound = Sound.of_waveform(voice.waveform[0], voice.sample_rate)
        write_video(path, images.movedim(-1, 1), sound, fps, tags)

    for root in (folder_paths.get_output_directory(), folder_paths.get_temp_directory()):
        try:
            names = OutputName.of(UNFINISHED, (width, height), root).paths()
            return write_new(names, write)
        except (OSError, av.FFmpegError, MediaError, DiskError) as error:  # what stopped the run matters more
            logger.error("The %d finished frames could not be saved: %s", len(images), error)
    return None


def stopped(clips: int, all_clips: int, file: Path | None) -> str:
    """What the node says after a stop."""
    where = "they could not be saved, the log says why" if file is None else f"they are in {file.name}"
    return (
        f"Stopped after {clips} of {counted(all_clips, 'clip')}; {where}. Run starts anew; MEMO Sampler to "
        "File would go on from there."
    )


def fitted_audio(voice: EncodedVoice, frames: int, fps: int = FPS) -> dict[str, Any]:
    """The voice exactly as long as the frames: cut, or filled up with the silence of a part of a frame."""
    wanted = round(frames * voice.sample_rate / fps)
    waveform: Tensor = voice.waveform[..., :wanted]
    waveform = torch.nn.functional.pad(waveform, (0, wanted - waveform.shape[-1]))
    return {"waveform": waveform, "sample_rate": voice.sample_rate}
