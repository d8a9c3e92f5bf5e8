"""A video on disk while it is made: a file per clip, the state after one of them, and going on from there."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ...memo_avatar.clips.values import ClipState
from ...memo_avatar.files.disk import replacing
from ...memo_avatar.timing import FPS
from ...memo_avatar.video.delivery import Delivery
from ...memo_avatar.video.paste import ColourMatch
from ...memo_avatar.video.segments import join_segments, write_segment
from ...memo_avatar.video.streams import Sound
from ...teacache_core import StepCache
from .cached_sampling import CachedVideo
from .job import VideoJob
from .video import generate_video
from .video_inputs import make_delivery

WORK_FOLDER = "memo_unfinished"
SO_FAR = "so_far.mp4"
SAVE_SHARE = 0.1
"""A clip's state is saved when that costs at most this share of the time: after every clip where it is small,
every minute or so where it is gigabytes (MEMO at 512x512). No more than that is lost to a crash."""


_STATE_NAME = "state.safetensors"
_COLOUR_NAME = "colour.json"


@dataclass(frozen=True)
class Unfinished:
    """The folder of a video that is being made: a file per clip, and the state after one of them."""

    folder: Path

    def segment(self, index: int) -> Path:
        return self.folder / f"clip_{index:06d}.mp4"

    def segments(self, count: int) -> list[Path]:
        return [self.segment(index) for index in range(count)]

    def load(self) -> tuple[ClipState | None, Any]:
        """Where to go on: the last saved state whose clips are all there, and what its cache carried on."""
        path = self.folder / _STATE_NAME
        if not path.is_file():
            return None, None
        with safe_open(str(path), framework="pt") as stored:
            names = list(stored.keys())
            state = ClipState.from_tensors({name: stored.get_tensor(name) for name in names})
            carried = (stored.metadata() or {}).get("cache")
        if not all(segment.is_file() for segment in self.segments(state.clip_index + 1)):
            return None, None
        return state, None if carried is None else json.loads(carried)

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

    def save(self, state: ClipState, cache: StepCache | None) -> None:
        """Replace the saved state in one step."""
        tensors = {key: tensor.contiguous() for key, tensor in state.tensors().items()}
        carried = {} if cache is None else {"cache": json.dumps(cache.carry())}
        with replacing(self.folder / _STATE_NAME) as part:
            save_file(tensors, part, metadata=carried)


@torch.inference_mode()
def finish_segments(
    job: VideoJob, video: CachedVideo | None, work: Unfinished, delivery: Delivery | None = None
) -> Sequence[Path]:
    """All clips of a job as files, those of an earlier run reused. On a stop the finished ones become a
    video."""
    work.folder.mkdir(parents=True, exist_ok=True)
    delivery = make_delivery(job, str(FPS)) if delivery is None else delivery
    state, carried = work.load()
    if state is not None:
        work.load_colour(delivery)
    if video is not None and carried is not None:
        video.cache.take_up(carried)
    done, unsaved, due = 0 if state is None else state.clip_index + 1, None, 0.0
    clips = generate_video(job, video, state)
    del state  # the loop drops its memory as soon as it can
    try:
        for clip in clips:
            frames = delivery.frames(clip.frames, clip.start)
            write_segment(work.segment(clip.index), frames, delivery.fps)
            work.save_colour(delivery)
            done, unsaved = clip.index + 1, on_cpu(clip.state)
            del clip  # its state would stay on the device
            if (started := time.monotonic()) >= due:
                work.save(unsaved, None if video is None else video.cache)
                unsaved, finished = None, time.monotonic()
                due = finished + (finished - started) / SAVE_SHARE
    except BaseException:
        if unsaved is not None:
            work.save(unsaved, None if video is None else video.cache)
        if done:
            sound = Sound.of_waveform(job.voice.waveform[0], job.voice.sample_rate)
            with replacing(work.folder / SO_FAR) as part:
                join_segments(work.segments(done), part, sound, delivery.fps)
        raise
    return work.segments(done)


def on_cpu(state: ClipState) -> ClipState:
    """The same, not on the device."""
    return ClipState.from_tensors({name: tensor.cpu() for name, tensor in state.tensors().items()})
