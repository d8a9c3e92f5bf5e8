"""How the demo model's long videos drift, without and with the guard, measured from their pixels.

    python -m demo.drift --minutes 5 --people 3

Prints a table; the last line is JSON; --write keeps both under benchmarks/results/ and the contact sheet in
docs/images/. The videos grow in turn, half a minute at a time, under out/drift/ (250 MB for five minutes), so
a run that was stopped goes on where it was, and --finished measures what there is without making more. Empty
that folder after a change of the code.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from memo_avatar.clips.drift import appearance
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import ClipState, SamplingSettings
from memo_avatar.files.disk import replacing
from memo_avatar.inputs import Portrait, Voice
from teacache_core import Calibration, StepCache, StepCacheConfig

from .evaluate import CHECKPOINT, DemoModel, contact_sheet, held_out_speech
from .faces import TRAINED_EMOTIONS, render, sample_people, still_pose
from .meters import correlation, identity_error, mouth_opening
from .speech import FPS, SAMPLE_RATE, mouth_from_audio
from .training.autoencoder import HELD_OUT_SEED

ROOT = Path(__file__).parent.parent
STRETCH = 10 * FPS  # frames that are compared: the first and the last ten seconds
METERS = ("identity_error", "colour", "sharpness")
PART_CLIPS = 56  # clips that a video grows by, half a minute
PICTURES = 20  # of each video, on the contact sheet
_STATE = "state."  # before the names of the tensors that the next part goes on from


@dataclass(frozen=True)
class Job:
    """One video: who speaks, for how long, at which speed-up."""

    person: int
    guard: bool
    minutes: float
    target_speedup: float

    def folder(self, root: Path) -> Path:
        """Where its parts are kept."""
        guard = "with" if self.guard else "without"
        return root / f"person{self.person}_{guard}_{self.minutes:g}min_x{self.target_speedup:g}"

    def portrait(self, size: int) -> Tensor:
        """Of somebody that training never drew, (3, S, S) in 0..1."""
        return render(sample_people(1, HELD_OUT_SEED + 10_000 + self.person), still_pose(1), size)[0]

    def speech(self) -> Tensor:
        """What is said, (N,) at 16 kHz; from twenty seconds on, its last ten are its first ten, said again.

        Identity error depends on what is said: only equal words tell drift from words.
        """
        speech = held_out_speech(self.person * 100_000, 60 * self.minutes)
        repeated = STRETCH * SAMPLE_RATE // FPS
        if len(speech) < 2 * repeated:
            return speech
        return torch.cat([speech[:-repeated], speech[:repeated]])

    def cache(self, guidance_scale: float) -> StepCache:
        """Its step cache; off at a speed-up of 1."""
        calibration = Calibration.from_json(json.loads((CHECKPOINT / "calibration.json").read_text()))
        speedup = self.target_speedup if self.target_speedup > 1 else None
        return StepCache(StepCacheConfig(target_speedup=speedup), calibration, guidance_scale=guidance_scale)


@dataclass(frozen=True)
class Stretch:
    """How a stretch of a video looks; ``colour`` is the middle colour's mean over the channels."""

    identity_error: float
    colour: float
    sharpness: float


@dataclass(frozen=True)
class Row:
    """One video: its stretches of ten seconds, and how well the lips follow the voice all along."""

    person: int | None  # None: the mean over people
    guard: bool
    frames: int
    stretches: Sequence[Stretch]
    lip_sync: float

    def changes(self) -> dict[str, float]:
        """The last stretch against the first; 0 is unchanged, 0.1 is a tenth more."""
        first, last = self.stretches[0], self.stretches[-1]
        return {name: getattr(last, name) / getattr(first, name) - 1 for name in METERS}

    def values(self, meter: str) -> Tensor:
        """One meter, stretch by stretch."""
        return torch.tensor([getattr(stretch, meter) for stretch in self.stretches])

    def trend(self, meter: str) -> float:
        """How far a line through all stretches rises from the first to the last, against the mean."""
        values = self.values(meter)
        times = torch.linspace(-0.5, 0.5, len(values))
        return float((times @ values) / (times @ times) / values.mean())

    def spread(self, meter: str) -> float:
        """The standard deviation over the stretches, against the mean: each says other words."""
        values = self.values(meter)
        return float(values.std() / values.mean())


def grow(job: Job, root: Path) -> bool:
    """Make the next part of a video, if one is missing; runs in a process of one thread."""
    torch.set_num_threads(1)
    demo, portrait, voice = _prepared(job)
    cache, state = job.cache(demo.guidance_scale), None
    made = parts_of(job, root)
    if made:
        with safe_open(str(made[-1]), framework="pt") as last:
            names = [name for name in last.keys() if name.startswith(_STATE)]  # noqa: SIM118
            state = ClipState.from_tensors({name[len(_STATE) :]: last.get_tensor(name) for name in names})
            cache.take_up(json.loads(last.metadata()["cache"]))
    settings = SamplingSettings(guidance_scale=demo.guidance_scale, guard_drift=job.guard)
    clips = generate_clips(
        demo.models, demo.vae, portrait, voice, settings,
        seed=job.person, state=state, wrap_denoiser=cache.wrap,
    )  # fmt: skip
    new = list(islice(clips, PART_CLIPS))
    if not new:
        return False
    tensors = {f"{_STATE}{name}": tensor.contiguous() for name, tensor in new[-1].state.tensors().items()}
    frames = (torch.cat([clip.frames for clip in new]) * 255).round().byte().contiguous()
    job.folder(root).mkdir(parents=True, exist_ok=True)
    with replacing(job.folder(root) / f"{len(made):03}.safetensors") as part:
        save_file({"frames": frames, **tensors}, part, metadata={"cache": json.dumps(cache.carry())})
    return True


@lru_cache(maxsize=2)
def _prepared(job: Job) -> tuple[DemoModel, Portrait, Voice]:
    demo = DemoModel.load(CHECKPOINT)
    emotion = TRAINED_EMOTIONS[job.person % len(TRAINED_EMOTIONS)]
    return demo, *demo.inputs(job.portrait(demo.size), job.speech(), emotion)


def parts_of(job: Job, root: Path) -> list[Path]:
    """What there is of a video, in order."""
    return sorted(job.folder(root).glob("*.safetensors"))


def frames_of(job: Job, root: Path) -> Tensor:
    """What there is of a video, (T, 3, S, S) in 0..255."""
    return torch.cat([load_file(part)["frames"] for part in parts_of(job, root)])


def measure(frames: Tensor, portrait: Tensor) -> Stretch:
    """Of frames (T, 3, S, S) in 0..255 against their portrait (3, S, S) in 0..1."""
    frames = frames / 255
    look = appearance(frames)
    return Stretch(identity_error(frames, portrait), sum(look.colour) / 3, look.sharpness)


def stretches_of(frames: Tensor) -> list[Tensor]:
    """Ten seconds each; the last ends with the video, and may begin in the one before."""
    starts = [*range(0, len(frames) - STRETCH, STRETCH), max(0, len(frames) - STRETCH)]
    return [frames[start : start + STRETCH] for start in starts]


def measure_video(job: Job, frames: Tensor) -> Row:
    """Of frames (T, 3, S, S) in 0..255."""
    portrait = job.portrait(frames.shape[-1])
    mouth = torch.cat([mouth_opening(some / 255) for some in frames.split(STRETCH)])
    return Row(
        person=job.person,
        guard=job.guard,
        frames=len(frames),
        stretches=[measure(some, portrait) for some in stretches_of(frames)],
        lip_sync=correlation(mouth, mouth_from_audio(job.speech())[: len(frames), 0]),
    )


def mean_of(rows: Sequence[Row]) -> Row:
    """Of people's videos, stretch by stretch; as long as the shortest."""
    stretches = [
        Stretch(*(sum(getattr(one, name) for one in same) / len(rows) for name in METERS))
        for same in zip(*(row.stretches for row in rows), strict=False)
    ]
    lips = sum(row.lip_sync for row in rows) / len(rows)
    return Row(None, rows[0].guard, min(row.frames for row in rows), stretches, lips)


def table(rows: Sequence[Row]) -> str:
    """For people, without and with the guard of each person side by side."""
    lines = [
        "| person | guard | minutes | identity error, first and last 10 s | its spread | its trend | colour "
        "| sharpness | lips |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    sides = [[row for row in rows if row.guard is guard] for guard in (False, True)]
    for row in [*rows, *(mean_of(side) for side in sides if len(side) > 1)]:
        identity, colour, sharpness = (
            f"{row.values(name)[0]:.3f} -> {row.values(name)[-1]:.3f} ({100 * change:+.1f} %)"
            for name, change in row.changes().items()
        )
        own = f"{100 * row.spread(METERS[0]):.1f} % | {100 * row.trend(METERS[0]):+.1f} %"
        minutes, guard = row.frames / FPS / 60, "with" if row.guard else "without"
        person = "mean" if row.person is None else row.person + 1
        lines.append(
            f"| {person} | {guard} | {minutes:.1f} | {identity} | {own} | {colour} | {sharpness} "
            f"| {row.lip_sync:.3f} |"
        )
    return "\n".join(lines)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """The largest changes without and with the guard, the mean lip sync, and every row."""
    document: dict[str, Any] = {}
    for name, guard in (("without", False), ("with", True)):
        some = [row for row in rows if row.guard is guard]
        largest = {meter: max((row.changes()[meter] for row in some), key=abs) for meter in METERS}
        lips = sum(row.lip_sync for row in some) / len(some)
        document[name] = {key: round(value, 4) for key, value in {**largest, "lip_sync": lips}.items()}
    return {**document, "rows": [asdict(row) for row in rows]}


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description="Drift of long videos, without and with the guard.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--target-speedup", type=float, default=2.0, help="1 computes every step")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "drift", help="of the videos")
    parser.add_argument("--finished", action="store_true", help="only what is made already")
    parser.add_argument("--write", action="store_true", help="keep table, JSON and contact sheet")
    options = parser.parse_args()
    if options.minutes * 60 * FPS < 2 * STRETCH:
        parser.error("--minutes: expected 20 seconds or more (0.34), so that the last ten are not the first")
    return options


def make_all(jobs: Sequence[Job], options: argparse.Namespace) -> None:
    """All videos, a part of each in turn: whenever it is stopped, they are equally long."""
    clips = -(-int(options.minutes * 60 * FPS) // 16)
    parts = -(-clips // PART_CLIPS) * len(jobs)
    there = sum(len(parts_of(job, options.folder)) for job in jobs)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers) as pool, tqdm(desc="parts", total=parts, initial=there) as bar:
        growing = list(jobs)
        while growing:
            grown = pool.map(partial(grow, root=options.folder), growing, chunksize=1)
            growing = [job for job, more in zip(growing, grown, strict=True) if more]
            bar.update(len(growing))


def main() -> None:
    """Make the videos, measure them, print a table and JSON."""
    options = parse()
    jobs = [
        Job(person, guard, options.minutes, options.target_speedup)
        for person in range(options.people)
        for guard in (False, True)
    ]
    if not options.finished:
        make_all(jobs, options)
    rows, pictures = list[Row](), list[Tensor]()
    for job in jobs:
        if not parts_of(job, options.folder):
            continue
        frames = frames_of(job, options.folder)
        rows.append(measure_video(job, frames))
        pictures.append(frames[:: max(1, len(frames) // PICTURES)][:PICTURES] / 255)
    how = (
        f"People that training never drew, held-out speech, {options.target_speedup:g} times fewer steps; "
        "the contact sheet has a row for each video. Spread: how much stretches of ten seconds differ; "
        "trend: how far a line through all of them rises from the first to the last. "
        "The last ten seconds say the words of the first."
    )
    text, document = f"{how}\n\n{table(rows)}\n", json.dumps(summarise(rows))
    if options.write:
        results = ROOT / "benchmarks" / "results"
        name = f"drift_cpu_{datetime.now(timezone.utc):%Y%m%d}"
        (results / f"{name}.json").write_text(document + "\n")
        (results / f"{name}.md").write_text(text)
        sheet = contact_sheet(torch.cat(pictures), columns=PICTURES)
        sheet.save(ROOT / "docs" / "images" / "drift.jpg", quality=80)
    tqdm.write(text)
    tqdm.write(document)


if __name__ == "__main__":
    main()
