"""Step caches on the demo model, side by side at equal cost: fidelity, lip sync, seconds.

    python -m benchmarks.caching [--videos 8] [--clips 4] [--quick]

Held-out people and voices; every row makes the same videos from the same noise. Two references: the 20-step
Euler video without a cache ("the same video as before") and a 100-step one ("the right video"). Finished
rows are kept under out/, so a run that was stopped goes on where it was. Prints a table; the last line is
JSON; --write keeps both under benchmarks/results/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.caching_methods import DEFAULT, STEPS, Learned, Lessons, Method, euler, methods
from demo.evaluate import CHECKPOINT, FRAMES, Case, DemoModel, held_out_cases
from demo.meters import correlation, mouth_opening
from demo.speech import FPS
from memo_avatar.audio_features import voice_features
from memo_avatar.clip_loop import Portrait, SamplingSettings, Voice, generate_clips
from teacache_core import Calibration, Fingerprint, StepCache, StepCacheConfig

CONVERGED_STEPS = 100
CALIBRATION_VIDEOS, CALIBRATION_CLIPS = 2, 2
OTHERS_FROM = 24
"""Held-out people from here on calibrate and are never measured."""
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """What a method gave over all videos. seconds: of the processor, generation only."""

    method: str
    evaluations: float
    speedup: float
    seconds: float
    psnr: float
    psnr_converged: float
    ssim: float
    lip_sync_loss: float


@dataclass(frozen=True)
class Subject:
    """A held-out video to make, its audio already encoded."""

    case: Case
    portrait: Portrait
    voice: Voice
    seed: int


class Bench:
    """The demo model, its subjects, and the folder where finished work is kept."""

    def __init__(self, demo: DemoModel, cases: Sequence[Case], folder: Path) -> None:
        self.demo, self.folder = demo, folder
        self.subjects = [make_subject(demo, case, seed) for seed, case in enumerate(cases)]
        folder.mkdir(parents=True, exist_ok=True)

    def video(self, subject: Subject, method: Method) -> tuple[Tensor, int, int, float]:
        """(frames, evaluations asked for, computed, seconds) of one video."""
        wrap, counted = method.start()
        settings = SamplingSettings(
            steps=method.steps, guidance_scale=self.demo.guidance_scale, solver=method.solver
        )
        began = time.process_time()
        clips = generate_clips(
            self.demo.models,
            self.demo.vae,
            subject.portrait,
            subject.voice,
            settings,
            seed=subject.seed,
            wrap_denoiser=wrap,
        )
        frames = torch.cat([clip.frames for clip in clips])
        return frames, *counted(), time.process_time() - began

    def frames(self, subject: Subject, method: Method) -> tuple[Tensor, float]:
        """A reference video, made once."""
        path = self.folder / f"{slug(method.name)}_{subject.seed}.pt"
        if not path.exists():
            frames, _, _, seconds = self.video(subject, method)
            torch.save((frames, seconds), path)
        return torch.load(path)

    def row(self, method: Method, subjects: Sequence[Subject]) -> Row:
        """The row of one method, from the folder if it is there."""
        path = self.folder / f"row_{slug(method.name)}_{len(subjects)}.json"
        if path.exists():
            return Row(**json.loads(path.read_text()))
        found = [self.measure(method, subject) for subject in subjects]
        means = {key: sum(values[key] for values in found) / len(found) for key in found[0]}
        asked, computed = means.pop("asked"), means.pop("computed")
        row = Row(method.name, computed, STEPS / computed if asked else 1.0, **means)
        path.write_text(json.dumps(asdict(row)))
        return row

    def measure(self, method: Method, subject: Subject) -> dict[str, float]:
        """One video against both references; evaluations per clip."""
        reference, _ = self.frames(subject, euler(STEPS))
        converged, _ = self.frames(subject, euler(CONVERGED_STEPS))
        frames, asked, computed, seconds = self.video(subject, method)
        clips = -(-len(frames) // FRAMES)
        mouth = subject.case.mouth[: len(frames)]
        return {
            "asked": asked / clips,
            "computed": computed / clips,
            "seconds": seconds,
            "psnr": psnr(frames, reference),
            "psnr_converged": psnr(frames, converged),
            "ssim": ssim(frames, reference),
            "lip_sync_loss": correlation(mouth_opening(reference), mouth)
            - correlation(mouth_opening(frames), mouth),
        }


def make_subject(demo: DemoModel, case: Case, seed: int) -> Subject:
    """Encode the audio of a case."""
    features = voice_features(case.waveform, demo.wav2vec2, fps=FPS, frames_per_clip=FRAMES)
    emotions = torch.full((features.embeddings.shape[0],), case.emotion)
    portrait = Portrait(case.portrait[None] * 2 - 1, torch.zeros(1, 512))
    return Subject(case, portrait, Voice(features.embeddings, emotions, features.num_frames), seed)


def slug(name: str) -> str:
    """A name for files."""
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")


def psnr(frames: Tensor, reference: Tensor) -> float:
    """Decibels, over a whole video in 0..1; identical videos give 120."""
    error = (frames - reference).square().mean().clamp_min(1e-12)
    return float(-10 * error.log10())


def ssim(frames: Tensor, reference: Tensor) -> float:
    """Structural similarity of the luminance, 7x7 windows."""
    weights = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
    x, y = (frames * weights).sum(1, keepdim=True), (reference * weights).sum(1, keepdim=True)
    mean = partial(functional.avg_pool2d, kernel_size=7, stride=1)
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def learn(bench: Bench) -> Learned:
    """What other people's videos teach; recorded once."""
    path = bench.folder / "learned.pt"
    if path.exists():
        calibration, traces = torch.load(path, weights_only=False)
        return Learned(Calibration.from_json(calibration), traces)
    demo = bench.demo
    cache = StepCache(
        StepCacheConfig(calibrate=True),
        fingerprint=Fingerprint.of(demo.models.diffusion_net.state_dict()),
        guidance_scale=demo.guidance_scale,
    )
    lessons = Lessons(cache)
    others = held_out_cases(OTHERS_FROM + CALIBRATION_VIDEOS, CALIBRATION_CLIPS, demo.size)[OTHERS_FROM:]
    for index, case in enumerate(others):
        bench.video(make_subject(demo, case, 1000 + index), lessons.method())
    learned = lessons.learned()
    torch.save((learned.calibration.to_json(), learned.traces), path)
    return learned


# Results


def table(rows: Sequence[Row], seconds: float) -> str:
    """Markdown."""
    lines = [
        "| method | evaluations | times fewer | seconds ratio "
        "| PSNR, 20 Euler steps | PSNR, converged | SSIM | lip-sync loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.method} | {row.evaluations:.1f} | {row.speedup:.2f} | {row.seconds / seconds:.2f} "
        f"| {'-' if row.psnr > 100 else f'{row.psnr:.1f}'} | {row.psnr_converged:.1f} | {row.ssim:.4f} "
        f"| {row.lip_sync_loss:+.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


def document(rows: Sequence[Row], seconds: float) -> dict[str, Any]:
    """The last line."""
    names = ("psnr", "psnr_converged", "ssim", "lip_sync_loss")
    return {
        "rows": [
            {
                "method": row.method,
                "evaluations": round(row.evaluations, 2),
                "seconds_ratio": round(row.seconds / seconds, 3),
                **{name: round(getattr(row, name), 4) for name in names},
            }
            for row in rows
        ],
        "default": DEFAULT,
    }


def card(options: argparse.Namespace, guidance_scale: float) -> str:
    """What was measured, on what."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{options.videos} held-out videos x {options.clips} clips of {FRAMES} frames, "
        f"guidance {guidance_scale}, {STEPS} Euler steps as reference, {CONVERGED_STEPS} as converged; "
        f"{platform.machine()}, {os.cpu_count()} cores, {gpu}, torch {torch.__version__}; seconds are the "
        f"processor's. Thresholds and schedules come from {CALIBRATION_VIDEOS} other people x "
        f"{CALIBRATION_CLIPS} clips."
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description="Compare step caches on the demo model at equal cost.")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="2 videos x 2 clips")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "caching", help="finished rows")
    parser.add_argument("--rows", default="", help="only methods whose name has this pattern")
    parser.add_argument("--write", action="store_true", help="keep table and JSON in benchmarks/results/")
    options = parser.parse_args(arguments)
    if options.quick:
        options.videos = options.clips = 2
    return options


def main() -> None:
    """Make every row, print the table and the JSON."""
    options = parse()
    demo = DemoModel.load(options.checkpoint)
    weights = Fingerprint.of(demo.models.diffusion_net.state_dict())
    key = hashlib.sha256(json.dumps([weights.to_json(), options.clips]).encode()).hexdigest()[:10]
    cases = held_out_cases(options.videos, options.clips, demo.size)
    bench = Bench(demo, cases, options.folder / key)
    learned = learn(bench)
    rows = []
    for method in methods(learned):
        if re.search(options.rows, method.name) or method.name == euler(STEPS).name:
            rows.append(bench.row(method, bench.subjects))
            print(table(rows[-1:], rows[0].seconds).splitlines()[-1], flush=True)
    text = f"{card(options, demo.guidance_scale)}\n\n{table(rows, rows[0].seconds)}\n"
    print(f"\n{text}")
    result = json.dumps(document(rows, rows[0].seconds))
    if options.write:
        machine = slug(torch.cuda.get_device_name()) if torch.cuda.is_available() else f"cpu{os.cpu_count()}"
        name = f"caching_{machine}_{datetime.now(timezone.utc):%Y%m%d}"
        results = ROOT / "benchmarks" / "results"
        results.mkdir(exist_ok=True)
        (results / f"{name}.json").write_text(result + "\n")
        (results / f"{name}.md").write_text(text)
    print(result)


if __name__ == "__main__":
    main()
