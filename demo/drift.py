"""How the demo model's long videos drift, without and with the guard, measured from their pixels.

python -m demo.drift --minutes 5 --people 3
"""

import argparse
import json
import multiprocessing
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from memo_avatar.clips.drift import appearance
from teacache_core import Calibration, StepCache, StepCacheConfig

from .evaluate import CHECKPOINT, DemoModel, contact_sheet, held_out_speech
from .faces import TRAINED_EMOTIONS, render, sample_people, still_pose
from .meters import correlation, identity_error, mouth_opening
from .speech import FPS, mouth_from_audio
from .training.autoencoder import HELD_OUT_SEED

STRETCH_SECONDS = 10  # what is compared: the first and the last of the video
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


def talk_for_long(job: tuple[int, bool], options: argparse.Namespace) -> tuple[Row, Tensor]:
    """One video and pictures of it (N, 3, S, S); runs in a process of one thread."""
    torch.set_num_threads(1)
    person, guard = job
    demo = DemoModel.load(CHECKPOINT)
    face = sample_people(1, HELD_OUT_SEED + 10_000 + person)
    portrait = render(face, still_pose(1), demo.size)[0]
    sound = held_out_speech(person * 100_000, 60 * options.minutes)
    cache = None
    if options.target_speedup > 1:
        calibration = Calibration.from_json(json.loads((CHECKPOINT / "calibration.json").read_text()))
        config = StepCacheConfig(target_speedup=options.target_speedup)
        cache = StepCache(config, calibration, guidance_scale=demo.guidance_scale).wrap
    frames = demo.talk(
        portrait,
        sound,
        TRAINED_EMOTIONS[person % len(TRAINED_EMOTIONS)],
        seed=person,
        guard_drift=guard,
        wrap_denoiser=cache,
    )
    stretch = STRETCH_SECONDS * FPS
    row = Row(
        person=person,
        guard=guard,
        frames=len(frames),
        first=measure(frames[:stretch], portrait),
        last=measure(frames[-stretch:], portrait),
        lip_sync=correlation(mouth_opening(frames), mouth_from_audio(sound)[: len(frames), 0]),
    )
    return row, frames[:: max(1, len(frames) // PICTURES)][:PICTURES].clone()


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
    parser.add_argument("--sheet", type=Path, default=SHEET)
    options = parser.parse_args()
    jobs = [(person, guard) for person in range(options.people) for guard in (False, True)]
    rows, pictures = [], []
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        made = pool.imap(partial(talk_for_long, options=options), jobs)
        for row, shown in tqdm(made, desc="videos", total=len(jobs)):
            tqdm.write(json.dumps(asdict(row)))
            rows.append(row)
            pictures.append(shown)
    contact_sheet(torch.cat(pictures), columns=PICTURES).save(options.sheet, quality=85)
    tqdm.write(json.dumps(summarise(rows)))


if __name__ == "__main__":
    main()
