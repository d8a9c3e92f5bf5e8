"""A video as both front doors make it, but for the model: what each clip shows depends on all before it.

    python -m tests.helpers.fake_video FOLDER [SECONDS_PER_CLIP]

makes `FOLDER/video/talk_00001_.mp4`, or the next number, and says `made NAME` or `failed REASON`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from safetensors import SafetensorError

from memo_avatar.clips.values import Clip, ClipState
from memo_avatar.files.disk import DiskError, place_new
from memo_avatar.inputs import Crop
from memo_avatar.model.memory import LayerMemory, MemoryState
from memo_avatar.timing import SAMPLE_RATE, clip_spans
from memo_avatar.video.delivery import Delivery
from memo_avatar.video.job_key import key_of
from memo_avatar.video.paste import Paster
from memo_avatar.video.streams import Sound
from memo_avatar.video.unfinished import Unfinished
from memo_avatar.voice.sound import MediaError
from tests.helpers.media import tone

CLIP_FRAMES = 16
WORK_FOLDER = "memo_unfinished"


@dataclass(frozen=True)
class FakeVideo:
    """What is made: five clips, the last of one frame. ``numbers`` is the size of their state."""

    frames: int = 65
    fps: int = 30
    numbers: int = 4096
    pasted: bool = False
    seconds_per_clip: float = 0.0

    @property
    def key(self) -> str:
        return key_of((self.frames, self.fps, self.numbers, self.pasted))

    def delivery(self) -> Delivery:
        paster = None
        if self.pasted:
            picture = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(1))
            paster = Paster(picture, Crop(16, 8, 48, 48, 96, 64))
        samples = self.frames * SAMPLE_RATE // 30
        return Delivery.of_voice(samples, self.fps, paster)

    def sound(self) -> Sound:
        return Sound.of_waveform(torch.from_numpy(tone(self.frames / 30, SAMPLE_RATE)), SAMPLE_RATE)

    def clips(self, state: ClipState | None = None) -> Iterator[Clip]:
        """From the first one on, or after the one that left ``state``."""
        generator = torch.Generator().manual_seed(7)
        memory, first = torch.zeros(self.numbers), 0
        if state is not None:
            generator.set_state(state.generator)
            memory, first = state.memory.memories[0].kv, state.clip_index + 1
        for span in clip_spans(self.frames, CLIP_FRAMES)[first:]:
            time.sleep(self.seconds_per_clip)
            memory = 0.5 * memory + torch.randn(self.numbers, generator=generator)
            colours = torch.sigmoid(memory[: CLIP_FRAMES * 3]).view(CLIP_FRAMES, 3, 1, 1)
            noise = torch.rand(CLIP_FRAMES, 3, 48, 48, generator=generator)
            frames = 0.7 * colours + 0.3 * noise
            kept = MemoryState([LayerMemory(memory, memory[:2].clone())])
            state = ClipState(span.index, frames[-4:].clone(), kept, generator.get_state())
            yield Clip(span.index, span.start, frames[: span.keep], state)


def stopped(
    video: FakeVideo, output: Path, clips: int, error: type[BaseException] = KeyboardInterrupt
) -> Path:
    """The folder of a video that was stopped after so many clips."""

    def some() -> Iterator[Clip]:
        for clip in video.clips():
            if clip.index == clips:
                raise error
            yield clip

    with Unfinished.open(output / WORK_FOLDER, video.key) as work, suppress(error):
        work.fill(some(), video.delivery(), lambda: {"learned": "a thing"})
        raise AssertionError(f"expected {error.__name__} to come through")
    return work.folder


def make(video: FakeVideo, output: Path) -> Path:
    """The finished file, going on where an earlier process stopped."""
    delivery, folder = video.delivery(), output / "video"
    folder.mkdir(parents=True, exist_ok=True)
    with Unfinished.open(output / WORK_FOLDER, video.key) as work:
        work.fill(video.clips(work.load(delivery)), delivery, lambda: {"learned": "a thing"})
        part = work.new_part(folder)
        work.join(part, video.sound(), delivery, whole=True)
        path = place_new(part, (folder / f"talk_{number:05}_.mp4" for number in count(1)))
        work.remove()
    return path


def main(folder: str, seconds_per_clip: str = "0") -> None:
    torch.set_num_threads(1)
    try:
        path = make(FakeVideo(seconds_per_clip=float(seconds_per_clip)), Path(folder))
    except (DiskError, MediaError, SafetensorError, OSError) as error:
        print(f"failed {error}")
    else:
        print(f"made {path.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
