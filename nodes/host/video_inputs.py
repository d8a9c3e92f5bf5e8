"""The inputs that several video nodes share, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.samplers
from comfy_api.latest import io
from torch import Tensor

from ...memo_avatar.clips.drift_report import Drift, DriftMeter
from ...memo_avatar.files.foreign import shown
from ...memo_avatar.inputs import Crop, Portrait
from ...memo_avatar.portrait.faces import likeness_to
from ...memo_avatar.portrait.images import ImageError
from ...memo_avatar.timing import FPS
from ...memo_avatar.video.delivery import Delivery
from ...memo_avatar.video.paste import DEFAULT_FEATHER, MAX_FEATHER, Paster
from ...memo_avatar.video.retime import RATES
from ...teacache_core import CacheReport, Calibration, CalibrationError, StepCache, StepCacheConfig
from .cached_sampling import CachedVideo
from .folders import face_places
from .job import VideoJob
from .pictures import opaque
from .schema import ADVANCED, decoration
from .sockets import Memo, MemoNets, MemoPortrait, MemoVoice, VideoReport
from .video import NOT_FOR_FLOW

RECOMMENDED = ("euler", "deis")
"""MEMO's own, and the one that came nearest to a hundred steps (`benchmarks/host_samplers.py`)."""


def job_inputs() -> list[Any]:
    """The inputs of every node that makes a video."""
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
            default=0.0,
            min=0.0,
            max=20.0,
            step=0.1,
            tooltip="Guidance: how closely the voice is followed. 0: what the checkpoint recommends (MEMO "
            "3.5, its demo 1.5). 1: off, and twice as fast.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=fitting_samplers(),
            default="euler",
            tooltip="How a step is taken; only what fits MEMO is listed. MEMO uses euler; deis is more "
            "exact at the same cost.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default="normal",
            tooltip="Where the steps lie between noise and picture. MEMO uses normal.",
        ),
    ]


def fitting_samplers() -> list[str]:
    """The host's samplers that keep to a flow's noise levels, the recommended ones first."""
    names = comfy.samplers.KSampler.SAMPLERS
    return [*RECOMMENDED, *(name for name in names if name not in (*RECOMMENDED, *NOT_FOR_FLOW))]


def validate_sampler(name: str | None) -> bool | str:
    """For the page, before the run; a linked name (None) is checked when it comes."""
    if name is None or name in fitting_samplers():
        return True
    return f"Choose {' or '.join(RECOMMENDED)}: {shown(name)} does not fit MEMO's noise schedule."


def check_guidance(cfg: float = 0.0) -> None:
    """Raise for what is neither the checkpoint's own, 0, nor a guidance."""
    if 0 < cfg < 1:
        raise ValueError(
            f"expected a guidance of 0, or 1 to 20, but got {cfg:g} (cfg). Use 0 for what the checkpoint "
            "recommends, or 1 for none."
        )


def guidance_of(cfg: float, memo: MemoNets) -> float:
    """The guidance that a widget asks for; 0 is the checkpoint's own."""
    check_guidance(cfg)
    return cfg or memo.guidance_scale


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


def guard_input() -> Any:
    """At the end of the inputs, as `fps_input` says."""
    return io.Boolean.Input(
        "guard_drift",
        default=False,
        optional=True,
        tooltip="For long videos: hold the colours and the sharpness that each clip takes over from the one "
        "before to the portrait's, so that they don't wander off. MEMO itself has no such thing: with it a "
        "video is another one from the second clip on.",
        extra_dict=ADVANCED,
    )


def make_delivery(job: VideoJob, fps: str, paster: Paster | None = None) -> Delivery:
    """How the job's frames become the video's, as long as the voice."""
    voice = job.voice
    samples = voice.waveform.shape[-1]
    return Delivery.of_voice(
        samples, int(fps), paster, sample_rate=voice.sample_rate, generated=job.num_frames
    )


def make_meter(job: VideoJob, node: type[io.ComfyNode], report: int) -> DriftMeter:
    """What watches a video's drift for its report. Faces are compared only where another node takes the
    output ``report``: that needs networks of its own.
    """
    likeness, hidden = None, node.hidden
    nodes = ((hidden.prompt if hidden else None) or {}).values()
    link = [hidden.unique_id if hidden else None, report]
    if any(value == link for one in nodes for value in one.get("inputs", {}).values()):
        with decoration("The likeness of the face"):
            likeness = likeness_to(job.portrait.face_embedding, face_places(job.memo.path))
    return DriftMeter(likeness)


def make_report(
    video: CachedVideo | None, seconds: float, frames: int, drift: Sequence[Drift], kept: int = 0
) -> VideoReport:
    """What was computed and what it took; ``kept`` frames were there before."""
    if video is None:
        return VideoReport(CacheReport(StepCacheConfig()), seconds, frames, kept=kept, drift=tuple(drift))
    calibration, why_not = _calibration(video.cache) if video.cache.config.calibrate else (None, "")
    return VideoReport(video.cache.report, seconds, frames, calibration, why_not, kept, tuple(drift))


def _calibration(cache: StepCache) -> tuple[Calibration | None, str]:
    """What a calibrating run learned, or why it learned nothing."""
    try:
        return cache.make_calibration(), ""
    except CalibrationError as error:
        steps = {record.step for record in cache.report.records}
        return None, str(one_step() if steps == {0} else error)


def one_step() -> CalibrationError:
    """Of a run in mode calibrate: what is learned is how one step follows from those before it."""
    return CalibrationError(
        "expected 2 steps or more while calibrating but got 1 (steps). Set steps of the sampler to as many "
        "as your videos will have, such as 20."
    )


def paste_inputs() -> list[Any]:
    """How the face is blended in."""
    return [
        io.Float.Input(
            "feather",
            default=DEFAULT_FEATHER,
            min=0.0,
            max=MAX_FEATHER,
            step=0.01,
            optional=True,
            tooltip="Width of the soft border, as a share of the face's square.",
        ),
        io.Boolean.Input(
            "match_colour",
            default=True,
            optional=True,
            tooltip="Bring the first frame's colours to the picture's, and all others by the same amount.",
        ),
    ]


def cut_out(portrait: Portrait) -> tuple[Tensor, Crop]:
    """The picture that a portrait was taken from, and which part of it."""
    if portrait.crop is None or portrait.picture is None:
        raise ImageError(
            "expected a portrait cut out around the face but got a whole picture (portrait). "
            "Choose fit face in MEMO Portrait."
        )
    return portrait.picture, portrait.crop


def make_paster(
    portrait: Portrait,
    feather: float = DEFAULT_FEATHER,
    match_colour: bool = True,
    original: Tensor | None = None,
) -> Paster:
    """What puts frames back into the portrait's picture, or into another version (the first of a batch)."""
    picture, crop = cut_out(portrait)
    picture = picture if original is None else opaque(original).movedim(-1, 0)
    return Paster(picture, crop, feather=feather, match_colour=match_colour)
