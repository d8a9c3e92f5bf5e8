"""The command's clip loop at the published sizes on a dry card: what it holds, what an evaluation brings.

    probe_published_command.py [--card GIB] [--memory auto|device|ram] [--size N] [--cfg X]
        [--steps N] [--no-face] [--phases]

The last line is JSON. No weight is read, no picture is made.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.accelerator import simulated

GIB = 2**30


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--card", type=float, default=1024, help="GiB that are free")
    add("--memory", choices=("auto", "device", "ram"), default="auto")
    add("--size", type=int, default=512)
    add("--cfg", type=float, default=3.5)
    add("--steps", type=int, default=2)
    add("--no-face", action="store_true")
    add("--phases", action="store_true")
    return parser.parse_args()


given = options()
cards = simulated.install("sim", [int(given.card * GIB)])
cards.native.set_dry(True)

import torch  # noqa: E402 - after the device that it is to have

from benchmarks.gpu.workload import REAL, make_vae  # noqa: E402
from memo_avatar.checkpoint.load import Checkpoint, load_memo  # noqa: E402
from memo_avatar.clips import conditions, loop  # noqa: E402
from memo_avatar.clips.values import SamplingSettings  # noqa: E402
from memo_avatar.inputs import Portrait, Voice  # noqa: E402
from memo_avatar.model.unet3d import UNet3D  # noqa: E402
from standalone.arguments import CommandError  # noqa: E402
from standalone.room import place  # noqa: E402
from tests.accelerator import published  # noqa: E402


@contextmanager
def phases() -> Iterator[None]:
    """Print what each phase holds."""

    def watched(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def inner(*args: Any, **kwargs: Any) -> Any:
            before = cards.live()
            with cards.measured() as found:
                result = work(*args, **kwargs)
            levels = [level / GIB for level in (before, found["peak"], found["live"], found["received"])]
            line = "  {:14} before {:6.2f}  peak {:6.2f}  after {:6.2f}  up {:5.2f}"
            print(line.format(name, *levels))
            return result

        setattr(owner, name, inner)

    for name in ("encode", "reference", "clip"):
        watched(conditions.VideoConditions, name)
    watched(UNet3D, "update_memory")
    watched(loop, "_sample")
    watched(loop, "decode_frames")
    yield


def main() -> None:
    published.read_nothing(Checkpoint)
    settings = SamplingSettings(steps=given.steps, guidance_scale=given.cfg)
    frames, marks = 16 * 2, []
    found: dict[str, Any] = {"error": None}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        checkpoint = published.write_checkpoint(Path(folder) / "published")
        models = load_memo(checkpoint, dtype=torch.bfloat16, device="sim")
        vae = make_vae(REAL, torch.device("sim"), torch.bfloat16)
        portrait = Portrait(published.pixels(given.size), published.face(not given.no_face))
        voice = Voice(*published.voice(frames), frames)
        found["weights_gib"] = cards.live() / GIB
        with cards.measured() as run, phases() if given.phases else nullcontext():
            try:
                where = place(models, [portrait], settings, given.memory)
                found |= {"parts_in_ram": sum(where.in_ram), "apart": where.apart}
                mark = lambda *_step: marks.append(cards.counters()["received"])  # noqa: E731
                inputs = (models, vae, portrait, voice, settings)
                for clip in loop.generate_clips(*inputs, placement=where, on_step=mark):
                    held = clip.state.memory.tensors().values()
                    found["memory_gib"] = sum(tensor.nbytes for tensor in held) / GIB
                    del held
            except (torch.OutOfMemoryError, CommandError) as error:
                found["error"] = f"{type(error).__name__}: {error}"
    if marks:
        found["evaluation_up_gib"] = (marks[1] - marks[0]) / GIB
    found |= {"peak_gib": run["peak"] / GIB, "refused": run["refused"]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
