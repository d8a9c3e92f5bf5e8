"""The command's own door to one video: its bar, what it says at the end, and the exit status."""

from __future__ import annotations

import time

from memo_avatar.files.foreign import counted

from .arguments import VideoOptions
from .models import ModelFiles, select_device
from .progress import ClipProgress, note
from .video.job_key import JobKeys
from .video.making import Made, Studio, Video

INTERRUPTED = 130  # what shells report for Ctrl-C


def generate(options: VideoOptions) -> int:
    """Make the video, or go on with it; the exit status."""
    started = time.monotonic()
    studio = Studio(select_device(options.device))
    files = ModelFiles.find(options.checkpoint, options.vae, options.wav2vec2)
    video = Video(studio, options, JobKeys().key(options, files))
    del studio  # and with it the voice's encoder
    if video.found:
        note(f"Going on after frame {video.found} of {video.total}; --restart begins anew.")
    progress = ClipProgress(video.num_clips, options.steps * video.num_speakers)
    with video:
        try:
            with progress:
                for clip_index, _ in enumerate(video.render(progress.on_step), start=video.num_clips_found):
                    progress.on_clip(clip_index)
            made = video.finish()
        except KeyboardInterrupt:
            note("Stopped.")
            return _stopped(options, video, time.monotonic() - started)
        except Exception:
            if video.keep_so_far():
                finished = counted(video.finished, "frame")
                note(f"What was finished before the error, {finished}, is kept in {options.output}.")
            raise
    return _finished(options, video, made)


def _finished(options: VideoOptions, video: Video, made: Made) -> int:
    for line in made.lines:
        print(line)
    _tell(options, video, made.seconds)
    return 0


def _stopped(options: VideoOptions, video: Video, seconds: float) -> int:
    if not video.keep_so_far():
        print("Stopped before the first clip was finished: no video was written.")
        return INTERRUPTED
    print(
        f"Stopped after {video.finished} of {counted(video.total, 'frame')}; what was finished is playable. "
        "The same command goes on from there."
    )
    _tell(options, video, seconds)
    return INTERRUPTED


def _tell(options: VideoOptions, video: Video, seconds: float) -> None:
    """Where the video is and what it took."""
    (width, height), frames = video.size, video.finished
    length = f"{counted(frames, 'frame')} of {width}x{height}, {frames / options.fps:.2f} s"
    print(f"Video: {options.output} ({length})")
    made = max(1, frames - video.found)
    print(f"Time: {seconds:.1f} s in all, {seconds / made:.3f} s per frame")
