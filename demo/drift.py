"""How the demo model's long videos drift, without and with the guard, measured from their pixels.

    python -m demo.drift --minutes 5 --people 3

Prints a table; the last line is JSON; --write keeps both under benchmarks/results/ and the contact sheet in
docs/images/. A finished video is kept under out/drift/ (250 MB for five minutes), so a run that was stopped
goes on with the next one; empty that folder after a change of the code.
"""

import argparse
import json
import multiprocessing
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from memo_avatar.clips.drift import appearance
from memo_avatar.files.disk import replacing
from teacache_core import Calibration, StepCache, StepCacheConfig

from .evaluate import CHECKPOINT, DemoModel, contact_sheet, held_out_speech
from .faces import TRAINED_EMOTIONS, render, sample_people, still_pose
from .meters import correlation, identity_error, mouth_opening
from .speech import FPS, mouth_from_audio
from .training.autoencoder import HELD_OUT_SEED

STRETCH_SECONDS = 10  # what is compared: the first and the last of the video
FOLDER = Path(__file__).parent.parent / "out" / "drift"
SHEET = Path(__file__).parent.parent / "docs" / "images" / "drift.jpg"
PICTURES = 20  # of each video, on the contact sheet


@dataclass(frozen=True)
class Stretch:
    """How a stretch of a video looks; ``colour`` is the middle colour's mean over the channels."""

    identity_error: float
    colour: float
    sharpness: float


@dataclass(frozen=True)
class Row:
    """One video: its first and last stretch, and how well the lips follow the voice all along."""

    person: int
    guard: bool
    frames: int
    first: Stretch
    last: Stretch
    lip_sync: float


def measure(frames: Tensor, portrait: Tensor) -> Stretch:
    """Of frames (T, 3, S, S) in 0..1 against their portrait (3, S, S)."""
    look = appearance(frames)
    return Stretch(identity_error(frames, portrait), sum(look.colour) / 3, look.sharpness)


def portrait_of(person: int, size: int) -> Tensor:
    """Of somebody that training never drew, (3, S, S) in 0..1."""
    return render(sample_people(1, HELD_OUT_SEED + 10_000 + person), still_pose(1), size)[0]


def speech(person: int, minutes: float) -> Tensor:
    """What a person says, (N,) at 16 kHz."""
    return held_out_speech(person * 100_000, 60 * minutes)


def talk_for_long(job: tuple[int, bool], options: argparse.Namespace) -> Path:
    """Where one video is kept, made if it is not there yet; runs in a process of one thread."""
    person, guard = job
    name = (
        f"person{person}_{'with' if guard else 'without'}_{options.minutes:g}min_x{options.target_speedup:g}"
    )
    kept = options.folder / f"{name}.safetensors"
    if kept.is_file():
        return kept
    torch.set_num_threads(1)
    demo = DemoModel.load(CHECKPOINT)
    cache = None
    if options.target_speedup > 1:
        calibration = Calibration.from_json(json.loads((CHECKPOINT / "calibration.json").read_text()))
        config = StepCacheConfig(target_speedup=options.target_speedup)
        cache = StepCache(config, calibration, guidance_scale=demo.guidance_scale).wrap
    frames = demo.talk(
        portrait_of(person, demo.size),
        speech(person, options.minutes),
        TRAINED_EMOTIONS[person % len(TRAINED_EMOTIONS)],
        seed=person,
        guard_drift=guard,
        wrap_denoiser=cache,
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as part:
        save_file({"frames": (frames * 255).round().byte().contiguous()}, part)
    return kept


def measure_video(job: tuple[int, bool], frames: Tensor, minutes: float) -> Row:
    """Of frames (T, 3, S, S) in 0..1."""
    person, guard = job
    portrait = portrait_of(person, frames.shape[-1])
    stretch = STRETCH_SECONDS * FPS
    return Row(
        person=person,
        guard=guard,
        frames=len(frames),
        first=measure(frames[:stretch], portrait),
        last=measure(frames[-stretch:], portrait),
        lip_sync=correlation(
            mouth_opening(frames), mouth_from_audio(speech(person, minutes))[: len(frames), 0]
        ),
    )


def summarise(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Means over the people, without and with the guard; changes are last against first, 1 is unchanged."""
    figures = {}
    for name, guard in (("without", False), ("with", True)):
        some = [row for row in rows if row.guard is guard]
        changes = {
            meter: sum(getattr(row.last, meter) / getattr(row.first, meter) for row in some) / len(some)
            for meter in ("identity_error", "colour", "sharpness")
        }
        lips = sum(row.lip_sync for row in some) / len(some)
        figures[name] = {key: round(value, 4) for key, value in {**changes, "lip_sync": lips}.items()}
    return figures


def main() -> None:
    """Make the videos, write the contact sheet, print a line for each video and the summary as JSON."""
    parser = argparse.ArgumentParser(description="Drift of long videos, without and with the guard.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--target-speedup", type=float, default=2.0, help="1 computes every step")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="finished videos")
    parser.add_argument("--sheet", type=Path, default=SHEET)
    options = parser.parse_args()
    jobs = [(person, guard) for person in range(options.people) for guard in (False, True)]
    rows, pictures = [], []
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        made = pool.imap(partial(talk_for_long, options=options), jobs)
        for job, kept in zip(jobs, tqdm(made, desc="videos", total=len(jobs)), strict=True):
            frames = load_file(kept)["frames"] / 255
            rows.append(measure_video(job, frames, options.minutes))
            pictures.append(frames[:: max(1, len(frames) // PICTURES)][:PICTURES])
            tqdm.write(json.dumps(asdict(rows[-1])))
    contact_sheet(torch.cat(pictures), columns=PICTURES).save(options.sheet, quality=85)
    tqdm.write(json.dumps(summarise(rows)))


if __name__ == "__main__":
    main()
