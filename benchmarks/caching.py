"""Step caches on the demo model, side by side at equal cost: fidelity, lip sync, seconds.

    python -m benchmarks.caching [--videos 8] [--clips 4] [--quick]

Held-out people and voices; every row makes the same videos from the same noise. Two references: the 20-step
Euler video without a cache ("the same video as before") and a 100-step one ("the converged video"). What is
finished is kept under out/, so a run that was stopped goes on where it was. Prints a table; the last line is
JSON; --write keeps both under benchmarks/results/, --finished writes what there is without making more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benchmarks import flops
from benchmarks.caching_bench import (
    CALIBRATION_CLIPS,
    CALIBRATION_VIDEOS,
    CONVERGED_STEPS,
    ROOT,
    Bench,
    Run,
    make_reference,
    measure,
    method_names,
    slug,
    start_worker,
)
from benchmarks.caching_methods import DEFAULT, STEPS, euler
from benchmarks.flops import clip_factor
from demo.evaluate import CHECKPOINT, FRAMES

GUIDANCE = 1.5


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

    @classmethod
    def mean(cls, method: str, found: Sequence[dict[str, float]]) -> Row:
        """Over a method's videos."""
        means = {key: sum(values[key] for values in found) / len(found) for key in found[0]}
        asked, computed = means.pop("asked"), means.pop("computed")
        return cls(method, computed, STEPS / computed if asked else 1.0, **means)


def make_rows(options: argparse.Namespace, run: Run) -> Iterator[Row]:
    """Row after row, the videos spread over the workers."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, start_worker, (run,)) as pool:
        subjects = range(options.videos)
        references = [(subject, steps) for steps in (CONVERGED_STEPS, STEPS) for subject in subjects]
        pool.map(make_reference, references, chunksize=1)
        names = pool.apply(method_names)
        wanted = [
            number
            for number, name in enumerate(names)
            if re.search(options.rows, name) or name == euler(STEPS).name
        ]
        tasks = [(number, subject) for number in wanted for subject in subjects]
        results = pool.imap(measure, tasks, chunksize=1)
        for number in wanted:
            yield Row.mean(names[number], [next(results) for _ in subjects])


def table(rows: Sequence[Row], seconds: float, counts: Mapping[str, Any]) -> str:
    """Markdown: how many times fewer steps are computed, and how many times less work a whole clip is."""
    lines = [
        "| method | evaluations | steps | clip | seconds ratio "
        "| PSNR, 20 Euler steps | PSNR, converged | SSIM | lip-sync loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.method} | {row.evaluations:.1f} | {row.speedup:.2f} "
        f"| {clip_factor(counts, row.evaluations):.2f} | {row.seconds / seconds:.2f} "
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


def card(options: argparse.Namespace) -> str:
    """What was measured, on what."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{options.videos} held-out videos x {options.clips} clips of {FRAMES} frames, "
        f"guidance {options.guidance:g}, {STEPS} Euler steps as reference, {CONVERGED_STEPS} as converged; "
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
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help="default: %(default)s, the demo's")
    parser.add_argument("--finished", action="store_true", help="only what is measured already")
    parser.add_argument("--rows", default="", help="only methods whose name has this pattern")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--write", action="store_true", help="keep table and JSON in benchmarks/results/")
    options = parser.parse_args(arguments)
    if options.quick:
        options.videos = options.clips = 2
    return options


def finished_rows(run: Run) -> Iterator[Row]:
    """The rows of which every video is measured already, in the order of their names' costs."""
    bench = Bench(run)
    for method in bench.methods:
        paths = [bench.rows / f"{slug(method.name)}_{subject.seed}.json" for subject in bench.subjects]
        if all(path.is_file() for path in paths):
            yield Row.mean(method.name, [json.loads(path.read_text()) for path in paths])


def main() -> None:
    """Make every row, print the table and the JSON."""
    options = parse()
    run = Run(options.checkpoint, options.videos, options.clips, options.guidance, options.folder)
    counts = flops.measure()
    rows: list[Row] = []
    for row in finished_rows(run) if options.finished else make_rows(options, run):
        rows.append(row)
        print(table(rows[-1:], rows[0].seconds, counts).splitlines()[-1], flush=True)
    text = f"{card(options)}\n\n{table(rows, rows[0].seconds, counts)}\n"
    print(f"\n{text}")
    result = json.dumps(document(rows, rows[0].seconds))
    if options.write:
        machine = slug(torch.cuda.get_device_name()) if torch.cuda.is_available() else f"cpu{os.cpu_count()}"
        name = f"caching_guidance{options.guidance:g}_{machine}_{datetime.now(timezone.utc):%Y%m%d}"
        results = ROOT / "benchmarks" / "results"
        results.mkdir(exist_ok=True)
        (results / f"{name}.json").write_text(result + "\n")
        (results / f"{name}.md").write_text(text)
    print(result)


if __name__ == "__main__":
    main()
