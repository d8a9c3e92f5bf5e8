"""One group of measurements in a process of its own: prints each as a line of JSON when it is done.

    python -m benchmarks.gpu.measure GROUP --scale real|rehearsal [--dry] [--until SECONDS] [--done NAMES]

A process has one dtype and compiles or does not, so that nothing of one group is left in the next one's peak.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch

from .clips import Bench, Phases, clip_measurements, compile_regions
from .meter import GIB, Meter, Values
from .precision import precision_measurements
from .workload import REAL, Scale, make_nets, make_vae, rehearsal

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
GROUPS = ("card", "precision", *DTYPES, *(f"{name}, compiled" for name in DTYPES))
NO_COMPILER = "aot_eager"
"""A backend that only traces: where there is no time to compile, as in a rehearsal."""


def open_device(*, dry: bool, scale_name: str) -> torch.device:
    """The card; the simulated one where nothing is to be computed; the CPU for a rehearsal."""
    if dry:
        from tests.accelerator import simulated

        simulated.install("sim").native.set_dry(True)
        return torch.device("sim")
    if scale_name == "rehearsal":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SystemExit(
            "Error: expected a CUDA card but torch sees none (benchmarks.gpu). Use --rehearse or --dry here."
        )
    return torch.device("cuda")


def card(device: torch.device) -> Values:
    """What is measured on, and with what."""
    found: Values = {"name": "CPU" if device.type == "cpu" else "simulated", "torch": torch.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"name": properties.name, "gib": properties.total_memory / GIB, "cuda": torch.version.cuda}
    return found


def run(
    measurements: Mapping[str, Callable[[], Values]],
    *,
    done: Collection[str] = (),
    until: float = float("inf"),
) -> list[str]:
    """Each that is not done yet, as long as one that takes as long as the longest so far would end in time;
    the names of the others."""
    longest, left = 0.0, list[str]()
    for name, measure in measurements.items():
        started = time.time()
        if name in done:
            continue
        if started + longest > until:
            left.append(name)
            continue
        say(name=name, values=attempted(measure))
        longest = max(longest, time.time() - started)
    return left


def say(**said: Any) -> None:
    """One line for whoever started this process."""
    print(json.dumps(said), flush=True)


def attempted(measure: Callable[[], Values]) -> Values:
    """What was found, or why not: a card too small, a compiler that is not there."""
    try:
        return measure()
    except torch.OutOfMemoryError:
        return {"failed": "out of memory"}
    except RuntimeError as error:  # whatever kernels and compilers refuse
        return {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.200}"}


@torch.inference_mode()
def measure_group(
    group: str, scale: Scale, device: torch.device, *, timed: bool = True, **limits: Any
) -> list[str]:
    """All measurements of a group, and the names of those left; ``limits`` are :func:`run`'s."""
    if group == "card":
        return run({"card": partial(card, device)}, **limits)
    if group == "precision":
        return run(precision_measurements(scale, device), **limits)
    dtype = DTYPES[group.split(",")[0]]
    bench = Bench(
        scale, make_nets(scale, device, dtype), make_vae(scale, device, dtype), Meter(device, timed=timed)
    )
    compiled = group.endswith("compiled")
    if compiled:
        compile_regions(bench.models, bench.vae, "inductor" if device.type == "cuda" else NO_COMPILER)
    # Clips first: they are what a user waits for. Compiled, one of them says what it is worth.
    clips = clip_measurements(bench)
    left = run(dict(list(clips.items())[: 1 if compiled else None]), **limits)
    return left + run(Phases(bench).measurements(), **limits)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """What a group's process is told beside its group."""
    add = parser.add_argument
    add("--scale", choices=("real", "rehearsal"), required=True)
    add("--dry", action="store_true")
    add("--until", type=float, default=float("inf"))
    add("--done", nargs="*", default=[])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("group", choices=GROUPS)
    add_limits(parser)
    given = parser.parse_args()
    scale = REAL if given.scale == "real" else rehearsal()
    device = open_device(dry=given.dry, scale_name=given.scale)
    limits = {"until": given.until, "done": given.done}
    say(left=measure_group(given.group, scale, device, timed=not given.dry, **limits))


if __name__ == "__main__":
    main()
