"""MEMO Sampler to File: a video of any length, written as it grows, continued where it was stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import InputImpl, io, ui

from ..memo_avatar.files.disk import make_part, remove
from ..memo_avatar.timing import FPS
from ..memo_avatar.video.paste import DEFAULT_FEATHER
from ..memo_avatar.video.segments import join_segments
from ..memo_avatar.video.streams import Sound
from .boundary.checks import checked
from .host.cached_sampling import start_video
from .host.job import VideoJob, job_key
from .host.outputs import HIDDEN, OutputName, fill_in, tags_of
from .host.schema import schema
from .host.sockets import MemoReport
from .host.unfinished import WORK_FOLDER, Unfinished, finish_segments
from .host.video_inputs import (
    fps_input,
    guidance_of,
    job_inputs,
    make_delivery,
    make_paster,
    make_report,
    paste_inputs,
    validate_sampler,
)


class SamplerToFileNode(io.ComfyNode):
    """Everything -> a video file, VIDEO, report."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MEMO_SamplerToFile",
            "MEMO Sampler to File",
            "MEMO Sampler for long speech: frames go to a video file clip by clip, so memory stays flat. "
            "Stopped and "
            "queued again, it continues after the last finished clip.",
            inputs=[
                *job_inputs(),
                io.String.Input(
                    "filename_prefix",
                    default="video/memo",
                    tooltip="Name of the file in ComfyUI's output folder, without number and ending.",
                ),
                fps_input(),
                io.Boolean.Input(
                    "paste_back",
                    default=False,
                    optional=True,
                    tooltip="Blend the face into the whole picture. Needs a portrait made with fit face.",
                ),
                *paste_inputs(),
            ],
            outputs=[
                io.Video.Output(display_name="video"),
                io.String.Output(display_name="path"),
                MemoReport.Output(display_name="report"),
            ],
            hidden=[*HIDDEN, io.Hidden.dynprompt],
            is_output_node=True,
            search_aliases=[
                "memo",
                "lip sync",
                "audio to video",
                "avatar",
                "long video",
                "stream",
                "resume",
                "save video",
            ],
        )

    @classmethod
    def validate_inputs(cls, sampler_name: str | None) -> bool | str:
        return validate_sampler(sampler_name)

    @classmethod
    @checked
    def execute(
        cls,
        filename_prefix: str,
        fps: str = str(FPS),
        paste_back: bool = False,
        feather: float = DEFAULT_FEATHER,
        match_colour: bool = True,
        **inputs: Any,
    ) -> io.NodeOutput:
        started = time.perf_counter()
        cfg = guidance_of(inputs["cfg"], inputs["memo"])
        model, video = start_video(inputs["model"], cfg)
        job = VideoJob(**{**inputs, "model": model, "cfg": cfg})
        paster = make_paster(job.portrait, feather, match_colour) if paste_back else None
        delivery = make_delivery(job, fps, paster)
        size = delivery.size(*reversed(job.size))
        name = OutputName.of(fill_in(filename_prefix, cls), size)
        name.try_out(delivery.total, size)
        work = Unfinished(
            Path(folder_paths.get_output_directory()) / WORK_FOLDER / job_key(job, delivery, cls)
        )
        segments = finish_segments(job, video, work, delivery)
        sound = Sound.of_waveform(job.voice.waveform[0], job.voice.sample_rate)
        part = make_part(work.folder)
        frames = join_segments(segments, part, sound, delivery.fps, tags=tags_of(cls))
        path = name.take(part)
        remove(work.folder)
        report = make_report(video, time.perf_counter() - started, frames)
        shown = ui.PreviewVideo([ui.SavedResult(path.name, name.subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), str(path), report, ui=shown)
