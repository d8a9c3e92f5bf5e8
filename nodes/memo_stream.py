"""MEMO Sampler to File: a video of any length, written as it grows, continued where it was stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import InputImpl, io, ui
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..memo_avatar.clip_loop import ClipState
from ..memo_avatar.clip_plan import FPS
from ..memo_avatar.delivery import Delivery
from ..memo_avatar.paste import DEFAULT_FEATHER, ColourMatch
from ..memo_avatar.weights_file import replacing
from ..teacache_core import Calibration, Fingerprint
from .host_nodes import schema
from .host_sampling import KEY as CACHE_KEY
from .host_sampling import CachedVideo, CacheSettings, settings_of, start_video
from .host_segments import join_segments, write_segment
from .host_video import VideoJob, generate_video
from .memo_paste import make_paster, paste_inputs
from .memo_sample import fps_input, job_inputs, make_delivery, make_report
from .sockets import MemoReport

WORK_FOLDER = "memo_unfinished"
SO_FAR = "so_far.mp4"
SAVE_SHARE = 0.1
"""A clip's state is saved when that costs at most this share of the time: after every clip where it is small,
every minute or so where it is gigabytes (MEMO at 512x512). No more than that is lost to a crash."""

_STATE_NAME = "state.safetensors"
_COLOUR_NAME = "colour.json"
_PLAIN = (str, int, float, bool, type(None), torch.dtype)


@dataclass(frozen=True)
class Unfinished:
    """The folder of a video that is being made: a file per clip, and the state after one of them."""

    folder: Path

    def segment(self, index: int) -> Path:
        return self.folder / f"clip_{index:06d}.mp4"

    def segments(self, count: int) -> list[Path]:
        return [self.segment(index) for index in range(count)]

    def load(self) -> tuple[ClipState | None, Calibration | None]:
        """Where to go on: the last saved state whose clips are all there, and what its cache had learned."""
        path = self.folder / _STATE_NAME
        if not path.is_file():
            return None, None
        with safe_open(str(path), framework="pt") as stored:
            names = list(stored.keys())
            state = ClipState.from_tensors({name: stored.get_tensor(name) for name in names})
            learned = (stored.metadata() or {}).get("calibration")
        if not all(segment.is_file() for segment in self.segments(state.clip_index + 1)):
            return None, None
        return state, None if learned is None else Calibration.from_json(json.loads(learned))

    def save_colour(self, delivery: Delivery) -> None:
        """The colours that the first frame set, once: a continued video has to keep them."""
        path = self.folder / _COLOUR_NAME
        if delivery.paster is not None and delivery.paster.colour is not None and not path.is_file():
            path.write_text(json.dumps(asdict(delivery.paster.colour)), encoding="utf-8")

    def load_colour(self, delivery: Delivery) -> None:
        """What an earlier run saved."""
        path = self.folder / _COLOUR_NAME
        if delivery.paster is not None and path.is_file():
            delivery.paster.colour = ColourMatch(**json.loads(path.read_text(encoding="utf-8")))

    def save(self, state: ClipState, calibration: Calibration | None) -> None:
        """Replace the saved state in one step."""
        tensors = {key: tensor.contiguous() for key, tensor in state.tensors().items()}
        learned = {} if calibration is None else {"calibration": json.dumps(calibration.to_json())}
        with replacing(self.folder / _STATE_NAME) as (_stream, partial):
            save_file(tensors, partial, metadata=learned)


def job_key(job: VideoJob, settings: CacheSettings | None, delivery: Delivery | None = None) -> str:
    """The same for jobs that give the same video, in this process or the next."""
    portrait, voice = job.portrait.portrait, job.voice.voice
    options = job.model.model_options["transformer_options"]
    cache = None if settings is None else (settings.config.to_json(), settings.calibration)
    digest = hashlib.sha256()
    for value in (
        job.model.model.fingerprint.to_json(),
        job.model.model.get_dtype_inference(),
        job.model.patches,
        Fingerprint.of(job.vae.first_stage_model.state_dict()).to_json(),
        (job.seed, job.cfg, job.sampler_name, job.sigmas(), voice.num_frames),
        None if cache is None else (cache[0], None if cache[1] is None else cache[1].to_json()),
        {key: value for key, value in options.items() if not str(key).startswith(CACHE_KEY)},  # other packs'
        (portrait.pixel_values, portrait.face_embedding),
        (voice.emotions, voice.audio_embeddings[::8, 2], job.voice.waveform),
        None if delivery is None else delivery_key(delivery),
    ):
        update_digest(digest, value)
    return digest.hexdigest()[:16]


def delivery_key(delivery: Delivery) -> tuple[Any, ...]:
    """What the rate and the picture around the face add to a job's key."""
    paster = delivery.paster
    if paster is None:
        return (delivery.fps,)
    return delivery.fps, paster.crop.box, paster.mask, paster.picture, paster.match_colour


def update_digest(digest: Any, value: Any) -> None:
    """Feed a value to a hash by its contents. Of an object (a LoRA's adapter, another node's settings), its
    class, weights and plain attributes count, never its address.
    """
    if isinstance(value, Tensor):
        digest.update(f"{tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            update_digest(digest, (str(key), value[key]))
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}".encode())
        for item in value:
            update_digest(digest, item)
    elif isinstance(value, _PLAIN):
        digest.update(repr(value).encode())
    elif callable(value):
        digest.update(getattr(value, "__qualname__", type(value).__qualname__).encode())
    else:
        named = getattr(value, "__dict__", {}).items()
        plain = {name: item for name, item in named if name == "weights" or isinstance(item, _PLAIN)}
        update_digest(digest, (type(value).__qualname__, plain))


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
            is_output_node=True,
            search_aliases=["memo", "long video", "stream", "resume", "save video"],
        )

    @classmethod
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
        settings = settings_of(inputs["model"])
        model, video = start_video(inputs["model"], inputs["cfg"])
        job = VideoJob(**{**inputs, "model": model})
        paster = make_paster(job.portrait, feather, match_colour) if paste_back else None
        delivery = make_delivery(job, fps, paster)
        width, height = delivery.size(*reversed(job.size))
        output = Path(folder_paths.get_output_directory())
        place, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, str(output), width, height
        )
        path = Path(place) / f"{name}_{counter:05}_.mp4"
        work = Unfinished(output / WORK_FOLDER / job_key(job, settings, delivery))
        segments = finish_segments(job, video, work, delivery)
        sound = job.voice.waveform[0], job.voice.sample_rate
        frames = join_segments(segments, path, *sound, delivery.fps)
        shutil.rmtree(work.folder)
        report = make_report(video, time.perf_counter() - started, frames)
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), str(path), report, ui=shown)


@torch.inference_mode()
def finish_segments(
    job: VideoJob, video: CachedVideo | None, work: Unfinished, delivery: Delivery | None = None
) -> Sequence[Path]:
    """All clips of a job as files, those of an earlier run reused. On a stop the finished ones become a
    video."""
    work.folder.mkdir(parents=True, exist_ok=True)
    delivery = make_delivery(job, str(FPS)) if delivery is None else delivery
    state, learned = work.load()
    if state is not None:
        work.load_colour(delivery)
    if video is not None and learned is not None:
        video.cache.calibration = learned
    done, unsaved, due = 0 if state is None else state.clip_index + 1, None, 0.0
    clips = generate_video(job, video, state)
    del state  # the loop drops its memory as soon as it can
    try:
        for clip in clips:
            frames = delivery.frames(clip.frames, clip.index * job.settings.frames_per_clip)
            write_segment(work.segment(clip.index), frames, delivery.fps)
            work.save_colour(delivery)
            done, unsaved = clip.index + 1, on_cpu(clip.state)
            del clip  # its state would stay on the device
            if (started := time.monotonic()) >= due:
                work.save(unsaved, None if video is None else video.cache.calibration)
                unsaved, finished = None, time.monotonic()
                due = finished + (finished - started) / SAVE_SHARE
    except BaseException:
        if unsaved is not None:
            work.save(unsaved, None if video is None else video.cache.calibration)
        if done:
            sound = job.voice.waveform[0], job.voice.sample_rate
            join_segments(work.segments(done), work.folder / SO_FAR, *sound, delivery.fps)
        raise
    return work.segments(done)


def on_cpu(state: ClipState) -> ClipState:
    """The same, not on the device."""
    return ClipState.from_tensors({name: tensor.cpu() for name, tensor in state.tensors().items()})
