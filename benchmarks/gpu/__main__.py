"""The groups one after the other, each in a process of its own, until the time is over."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import __doc__ as about
from .results import Results, Values

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CARD, PUBLISHED = "card", "published code, bf16"
GROUPS = ("bf16", PUBLISHED, "precision", "bf16, compiled", "fp16", "fp16, compiled")
"""In the order of their worth."""

SLACK = 10.0
"""Seconds kept for the table, and for a process to end."""


@dataclass(frozen=True)
class Run:
    """What was asked for, and until when."""

    mode: str
    until: float
    results: Path

    @property
    def options(self) -> list[str]:
        scale = "rehearsal" if self.mode == "rehearse" else "real"
        return ["--scale", scale, *(["--dry"] if self.mode == "dry" else [])]

    @property
    def groups(self) -> tuple[str, ...]:
        """Those that have something to say: without values there is no precision, nothing that is compiled,
        and no way through the published code's masks."""
        left_out = set(GROUPS) - {"bf16", "fp16"} if self.mode == "dry" else set[str]()
        if os.environ.get("MEMO_UPSTREAM_PATH") is None:
            left_out.add(PUBLISHED)
        return tuple(group for group in GROUPS if group not in left_out)

    def command(self, group: str, done: Sequence[str]) -> list[str]:
        """Of the process that measures a group."""
        limits = ["--until", str(self.until), "--done", *done]
        if group == PUBLISHED:
            python = os.environ.get("MEMO_UPSTREAM_PYTHON", sys.executable)
            script, checkout = "benchmarks/gpu/published.py", os.environ["MEMO_UPSTREAM_PATH"]
            return [python, script, "--checkout", checkout, *self.options, *limits]
        return [sys.executable, "-m", "benchmarks.gpu.measure", group, *self.options, *limits]

    def measure(self, group: str, done: Sequence[str] = ()) -> Iterator[Values]:
        """What its process says: {"name", "values"} of each measurement, and {"left"} when it is done.

        A process that outlasts the time is ended and says no last word.
        """
        command = self.command(group, done)
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            alarm = threading.Timer(max(0.0, self.until - time.time()), process.kill)
            alarm.start()
            try:
                yield from map(json.loads, process.stdout)
            finally:
                alarm.cancel()
                process.kill()


def measure_all(run: Run) -> tuple[Results, list[str]]:
    """What is known then, and what is left: names of measurements, or groups with something missing."""
    card = next(iter(run.measure(CARD)), None)
    if card is None:
        raise SystemExit(1)  # its process has said why
    results, left = Results.of_today(run.results, card["values"]), list[str]()
    for group in run.groups:
        ended = False
        for said in run.measure(group, results.done(group)) if time.time() < run.until else ():
            if "left" in said:
                ended = True
                left += [f"{group}: {name}" for name in said["left"]]
                continue
            results.add(group, said["name"], said["values"])
            print(f"{group}: {said['name']}: {json.dumps(said['values'])}", flush=True)
        if not ended:
            left.append(f"{group} (all that is not above)")
    return results, left


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--rehearse", action="store_true", help="small nets on the CPU: does all of it run")
    modes.add_argument("--dry", action="store_true", help="real sizes, simulated: bytes and no seconds")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop after (default: %(default)g)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER",
        help="where JSON and table go (default: benchmarks/results)")  # fmt: skip
    given = parser.parse_args()
    mode = "rehearse" if given.rehearse else "dry" if given.dry else "measure"
    run = Run(mode, time.time() + 60 * given.minutes - SLACK, given.results.resolve())
    results, left = measure_all(run)
    option = "" if mode == "measure" else f" --{mode}"
    print(results.write_table(run.groups, left, f"python -m benchmarks.gpu{option}"))
    print(f"Left: {', '.join(left)}. The same command goes on there." if left else "Everything was measured.")


if __name__ == "__main__":
    main()
