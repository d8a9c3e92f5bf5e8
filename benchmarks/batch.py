"""What a batch costs beside rendering, what a second worker gains, and how near its schedule is to the ideal.

    python -m benchmarks.batch [--rows 6] [--seconds 10] [--write]

The first two render the bundled model in real batches: in this process, where the time outside of the videos
is the batch's own, and on Ray with one worker and with two. The third is 1,000 rows on 64 workers, some of
them lost: the loop is the batch's own (`standalone/batch/schedule.py`), the workers sleep on a simulated
clock. The ideal is work that could be cut at will, on all machines that are there at each moment.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timezone
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from standalone.batch import local
from standalone.batch.check import Job
from standalone.batch.schedule import Failed, Finished, Task, run_tasks
from standalone.batch.worker import Report
from standalone.command import main as command
from standalone.video.making import Studio

from .batch_simulation import Machine, SimulatedPool, ideal_seconds

REPOSITORY = Path(__file__).resolve().parent.parent
DEMO = REPOSITORY / "demo"
STEPS, SPEEDUP = 20, 2.5
ROWS, WORKERS, LOST = 1000, 64, 8
CLIP, OVERHEAD, BLIND = 4.0, 0.5, 5.0  # seconds: of a clip, to begin a row, until a lost machine is noticed


class Rendering:
    """Seconds inside the videos of a batch in this process."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def work(self, studio: Studio, job: Job) -> Iterator[Report]:
        """The worker's own generator, timed."""
        reports = self._work(studio, job)
        while True:
            began = time.perf_counter()
            try:
                report = next(reports)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - began
            yield report

    _work = staticmethod(local.work)


def batch_line(folder: Path, rows: int, seconds: float, *options: str) -> list[str]:
    """The command's arguments for so many videos of so many seconds."""
    jobs, speech = folder / "jobs.jsonl", folder / "speech.wav"
    with wave.open(str(DEMO / "speech.wav")) as short, wave.open(str(speech), "wb") as long:
        long.setparams(short.getparams())
        samples = short.readframes(short.getnframes())
        for _ in range(math.ceil(seconds * short.getframerate() / short.getnframes())):
            long.writeframes(samples)
    lines = (
        {"id": f"row{number}", "image": str(DEMO / "portrait.png"), "audio": str(speech),
         "seed": number, "max-seconds": seconds}
        for number in range(rows)
    )  # fmt: skip
    jobs.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    line = ["batch", str(jobs), "--output-folder", str(folder / "out"), "--device", "cpu"]
    return [*line, "--steps", str(STEPS), "--target-speedup", str(SPEEDUP), *options]


def overhead(rows: int, seconds: float) -> tuple[float, float]:
    """Seconds per row that the batch takes for itself (checks, schedule, results), and that a video takes.

    The difference of two batches, so that what is done once does not count.
    """
    outside, inside = [], []
    for count in (1, 1 + rows):
        rendering = Rendering()
        with tempfile.TemporaryDirectory() as folder, patch.object(local, "work", rendering.work):
            line = batch_line(Path(folder), count, seconds)
            began = time.perf_counter()
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                status = command(line)
            total = time.perf_counter() - began
        assert status == 0, "the batch failed"
        outside.append(total - rendering.seconds)
        inside.append(rendering.seconds)
    return (outside[1] - outside[0]) / rows, (inside[1] - inside[0]) / rows


def workers(count: int, rows: int, seconds: float) -> float:
    """Frames a second of a batch on Ray with so many workers of one thread each, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        line = batch_line(Path(folder), rows, seconds, "--ray", "--workers", str(count))
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, str(REPOSITORY / "teacache_memo.py"), *line],
            check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        total = time.perf_counter() - began
        results = (Path(folder) / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["frames"] for line in results) / total


def simulate(seed: int) -> tuple[float, float, int]:
    """Seconds of the schedule, of the ideal, and how many rows were begun again."""
    draw = random.Random(seed)  # nosec B311  of a benchmark, no secret
    costs = [draw.lognormvariate(4.5, 0.8) for _ in range(ROWS)]
    machines = [Machine() for _ in range(WORKERS - LOST)]
    for _ in range(LOST):  # each breaks at some moment, and another comes a while later
        broken = draw.uniform(100, 1500)
        machines += [Machine(until=broken), Machine(since=broken + draw.uniform(30, 300))]
    pool, again = SimulatedPool(machines, clip=CLIP, overhead=OVERHEAD, blind=BLIND), 0
    done: set[int] = set()

    def on_event(event: object) -> None:
        nonlocal again
        again += isinstance(event, Failed)
        if isinstance(event, Finished):
            done.add(event.task.number)

    run_tasks([Task(number, cost) for number, cost in enumerate(costs)], pool, on_event)
    assert len(done) == ROWS, "a row was lost"
    return pool.now(), ideal_seconds(costs, machines), again


def report(rows: int, seconds: float) -> Iterator[str]:
    """All of it, line by line."""
    yield "# A batch beside its videos"
    yield ""
    yield (
        f"`python -m benchmarks.batch`: the bundled model, videos of {seconds:g} s in {STEPS} steps at "
        f"{SPEEDUP}x; {platform.machine()}, {os.cpu_count()} cores, no GPU."
    )
    yield ""
    own, video = overhead(rows, seconds)
    yield (
        f"In one process a row takes {own * 1000:.0f} ms beside the {video:.1f} s of its video "
        f"({own / video:.2%})."
    )
    yield ""
    one, two = (workers(count, rows, seconds) for count in (1, 2))
    yield (
        f"On Ray, {rows} rows, Ray's start and the models' loading included: {one:.1f} frames a second with "
        f"one worker, {two:.1f} with two ({two / one:.2f}x)."
    )
    yield ""
    yield f"Simulated, {ROWS} rows on {WORKERS} workers, {LOST} of them lost and replaced:"
    yield ""
    yield "| seed | schedule, s | ideal, s | over | rows begun again |"
    yield "|---|---|---|---|---|"
    for seed in range(10):
        schedule, ideal, again = simulate(seed)
        yield f"| {seed} | {schedule:.0f} | {ideal:.0f} | {schedule / ideal - 1:.1%} | {again} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=6, help="videos of a batch (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each video (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="keep it in benchmarks/results/")
    options = parser.parse_args(arguments)
    lines: list[str] = []
    for line in report(options.rows, options.seconds):
        print(line, flush=True)
        lines.append(line)
    if options.write:
        name = f"batch_cpu{os.cpu_count()}_{datetime.now(timezone.utc):%Y%m%d}.md"
        (REPOSITORY / "benchmarks" / "results" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
