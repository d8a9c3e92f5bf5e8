"""A video of a job that goes to the disk clip by clip, and on from where it was stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import folder_paths
import torch

from ...memo_avatar.clips.drift_report import DriftMeter
from ...memo_avatar.clips.values import Clip
from ...memo_avatar.files.disk import DiskError, replacing
from ...memo_avatar.files.foreign import counted
from ...memo_avatar.files.json_file import parse_json
from ...memo_avatar.video.delivery import Delivery
from ...memo_avatar.video.left_over import DAY, NODES_ROOT, Left, left_in
from ...memo_avatar.video.streams import Sound
from ...memo_avatar.video.unfinished import SO_FAR, Notes, Unfinished
from ...memo_avatar.voice.sound import MediaError
from .cached_sampling import CachedVideo
from .job import VideoJob
from .schema import decoration
from .video import generate_video

OLD_DAYS = 7

_CACHE = "cache"  # the note of what a step cache carries on

logger = logging.getLogger(__name__)


def open_work(key: str, name: str = "") -> Unfinished:
    """The folder of a video in the output folder. What others have left there long ago is told in the log."""
    root = Path(folder_paths.get_output_directory()) / NODES_ROOT
    with decoration("What is unfinished"):
        if told := tell_old(left_in(root), key):
            logger.info(told)
    return Unfinished.open(root, key, name)


def tell_old(left: Sequence[Left], key: str) -> str:
    """Of videos that nobody went on with for days, this one apart, how many there are and how they go."""
    old = [one for one in left if one.seconds > OLD_DAYS * DAY and not one.folder.name.startswith(key)]
    if not old:
        return ""
    size = sum(one.nbytes for one in old) / 1e6
    return (
        f"Unfinished videos older than {OLD_DAYS} days: {len(old)}, {size:.0f} MB of output/{NODES_ROOT}. "
        "`python teacache_memo.py unfinished`, in the pack's folder, lists them and removes them when told."
    )


@torch.inference_mode()
def make_clips(
    job: VideoJob,
    video: CachedVideo | None,
    work: Unfinished,
    delivery: Delivery,
    meter: DriftMeter,
    grown: Callable[[int], object],
) -> int:
    """All clips of a job as files; how many of them an earlier run had made. ``grown`` is told after each
    how many there are, and shows them: its pictures take the place of those of the steps.
    """

    def take_up(notes: Notes) -> None:
        if video is not None:
            video.cache.take_up(parse_json(notes[_CACHE], "unfinished video"))

    def notes() -> Notes:
        return {} if video is None else {_CACHE: json.dumps(video.cache.carry())}

    state = work.load(delivery, take_up)
    kept = work.done
    clips = meter.watch(generate_video(job, video, state, grows=True))
    work.fill(_told(clips, lambda: grown(work.done)), delivery, notes)
    return kept


def _told(clips: Iterable[Clip], told: Callable[[], object]) -> Iterator[Clip]:
    """The same clips; ``told`` is called when each has been taken and stored."""
    for clip in clips:
        yield clip
        told()


def sound_of(job: VideoJob) -> Sound:
    """The voice as the video's sound, from its start on."""
    return Sound.of_waveform(job.voice.waveform[0], job.voice.sample_rate)


def keep_so_far(job: VideoJob, work: Unfinished, delivery: Delivery, tags: dict[str, str]) -> str:
    """A run was stopped: its finished clips become a video in their folder. What to tell about it, if any."""
    if not work.done:
        return ""
    told = f"Stopped after {work.done} of {counted(job.num_clips, 'clip')}. Run continues"
    path = work.folder / SO_FAR
    try:
        with replacing(path) as part:
            work.join(part, sound_of(job), delivery, tags=tags)
    except (DiskError, MediaError) as error:
        if not isinstance(error, DiskError) or error.kept is None:
            logger.error("The finished clips are kept, but could not be joined: %s", error)
            return f"{told}."
        path = error.kept  # a player has the one before open
    where = path.relative_to(work.folder.parents[1]).as_posix()
    logger.warning("%s; so far: %s", told, path)
    return f"{told}; so far: {where}"
