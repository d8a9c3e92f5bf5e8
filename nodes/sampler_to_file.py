"""MEMO Sampler to File: a video of any length, written as it grows, continued where it was stopped."""

from __future__ import annotations

import time
from typing import Any

from comfy_api.latest import InputImpl, io, ui

from ..memo_avatar.inputs import Portrait
from ..memo_avatar.timing import FPS
from ..memo_avatar.video.paste import DEFAULT_FEATHER
from .boundary.checks import checked, refusal_of
from .host.cached_sampling import start_video
from .host.growing import GrowingVideo
from .host.job import VideoJob, job_key
from .host.outputs import HIDDEN, OutputName, fill_in, tags_of
from .host.schema import schema, show_text
from .host.sockets import EncodedVoice, MemoNets, MemoReport
from .host.unfinished import keep_so_far, make_clips, open_work, sound_of
from .host.video_inputs import (
    check_guidance,
    fps_input,
    guard_input,
    guidance_of,
    job_inputs,
    make_delivery,
    make_meter,
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
            "Stopped and queued again, it continues after the last finished clip.",
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
                guard_input(),
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
        filename_prefix: str,
        fps: str = str(FPS),
        paste_back: bool = False,
        feather: float = DEFAULT_FEATHER,
        match_colour: bool = True,
        guard_drift: bool = False,
    ) -> io.NodeOutput:
        started = time.perf_counter()
        cfg = guidance_of(cfg, memo)
        model, video = start_video(model, cfg)
        job = VideoJob(
            model, memo, portrait, voice, vae, seed, steps, cfg, sampler_name, scheduler, guard_drift
        )
        paster = make_paster(portrait, feather, match_colour) if paste_back else None
        delivery = make_delivery(job, fps, paster)
        size = delivery.size(*reversed(job.size))
        name = OutputName.of(fill_in(filename_prefix, cls), size)
        name.try_out(delivery.total, size)
        meter = make_meter(job, cls, report=2)
        with open_work(job_key(job, delivery, cls), name.name) as work:
            growing = GrowingVideo(cls, job.num_clips, lambda path: work.join(path, sound_of(job), delivery))
            try:
                kept = make_clips(job, video, work, delivery, meter, growing.add)
            except BaseException:
                if told := keep_so_far(job, work, delivery, tags_of(cls)):
                    show_text(cls, told)
                raise
            part = work.new_part(name.folder)
            frames = work.join(part, sound_of(job), delivery, tags=tags_of(cls), whole=True)
            path = name.take(part)
            work.remove()
        old = delivery.count(kept * job.settings.frames_per_clip)
        report = make_report(video, time.perf_counter() - started, frames, meter.curve, old)
        show_text(cls, report.first_line)
        shown = ui.PreviewVideo([ui.SavedResult(path.name, name.subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), str(path), report, ui=shown)
