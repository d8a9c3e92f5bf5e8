"""MEMO at its real size in ComfyUI, dry: what a card holds and what crosses, clip by clip.

    probe_published_host.py COMFYUI [--card GIB] [--taken GIB] [--mode legacy|dynamic] [--size N] [--cfg X]
        [--clips N] [--steps N] [--memory auto|device|ram] [--no-face] [--phases]

The last line is JSON. Numbers are shapes' and the allocator's; no weight is read, no picture is made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.accelerator import dynamic_vram, published
from tests.accelerator.host import GIB, Host

NAME = "published"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("comfyui", type=Path)
    add("--card", type=float, default=24)
    add("--taken", type=float, default=1.0)
    add("--mode", choices=("legacy", "dynamic"), default="legacy")
    add("--size", type=int, default=512)
    add("--cfg", type=float, default=3.5)
    add("--clips", type=int, default=3)
    add("--steps", type=int, default=2)
    add("--memory", choices=("auto", "device", "ram"), default="auto")
    add("--no-face", action="store_true")
    add("--phases", action="store_true")
    return parser.parse_args()


class RealSize:
    """The published sizes, loaded by Load MEMO on dry cards."""

    def __init__(self, comfyui: Path, limit: int, mode: str, memory: str = "auto") -> None:
        self.host = host = Host(
            comfyui, [limit], add_models=lambda folder: published.write_checkpoint(folder / NAME)
        )
        host.cards.native.set_dry(True)
        free = host.management.get_free_memory

        def free_memory(device: Any = None, *rest: Any, **options: Any) -> Any:
            """Enough RAM: what is counted is the card."""
            in_ram = getattr(device, "type", None) == "cpu"
            return 64 * GIB if in_ram else free(device, *rest, **options)

        host.management.get_free_memory = free_memory
        if mode == "dynamic":
            dynamic_vram.enable(host)
        patchers, model = host.module("nodes.host.memory"), host.module("nodes.host.model")
        published.read_nothing(host.module("memo_avatar.checkpoint.load").Checkpoint)
        patchers.fill = model.fill = lambda _patcher, net, state: net.load_state_dict(state, assign=True)
        self.loaded = host.nodes.LoadMemo.execute(NAME, "bf16", memory=memory).args

    def job(self, size: int, clips: int, *, has_face: bool = True, **settings: Any) -> Any:
        """A video of whole clips."""
        host, torch = self.host, self.host.torch
        inputs, sockets = host.module("memo_avatar.inputs"), host.module("nodes.host.sockets")
        frames = 16 * clips
        portrait = inputs.Portrait(published.pixels(size), published.face(has_face))
        spoken = inputs.Voice(*published.voice(frames), frames)
        voice = sockets.EncodedVoice(spoken, torch.zeros(1, 1, 16_000 * frames // 30), 16_000)
        return host.video_job(self.loaded, portrait, voice, **settings)

    def clips(self, job: Any) -> Iterator[dict[str, Any]]:
        """Of each clip: peak and live GiB, and the GiB that crossed by kind and direction."""
        cards, clips = self.host.cards, self.host.clips(job)[0]
        while True:
            with cards.measured() as counted, self.host.moved() as moved:
                if next(clips, None) is None:
                    return
            levels = {name: counted[name] / GIB for name in ("peak", "live")}
            yield {**levels, "refused": counted["refused"], **{k: v / GIB for k, v in moved.items()}}


@contextmanager
def phases(real: RealSize) -> Iterator[None]:
    """Print what each phase of a clip takes."""
    host = real.host
    video, conditions = host.module("nodes.host.video"), host.module("memo_avatar.clips.conditions")

    def watched(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def inner(*args: Any, **kwargs: Any) -> Any:
            before = host.cards.live()
            with host.cards.measured() as found, host.moved() as moved:
                result = work(*args, **kwargs)
            crossed = ", ".join(f"{kind} {bytes / GIB:.2f}" for kind, bytes in sorted(moved.items()))
            levels = [level / GIB for level in (before, found["peak"], found["live"])]
            print("  {:14} before {:6.2f}  peak {:6.2f}  after {:6.2f}".format(name, *levels), "", crossed)
            return result

        setattr(owner, name, inner)

    for name in ("encode", "clip", "reference"):
        watched(conditions.VideoConditions, name)
    watched(host.module("memo_avatar.model.unet3d").UNet3D, "update_memory")
    watched(video, "sample_clip")
    watched(video, "load")
    watched(real.loaded[2], "decode")
    yield


def summary(clips: list[dict[str, Any]], steps: int) -> dict[str, float]:
    """GiB of the memory that live in RAM, and that cross for one evaluation, by what crossed."""
    later = clips[-1] if clips else {}
    stored = later.get("memory down", 0.0)
    return {
        "memory_in_ram_gib": stored,
        "evaluation_up_gib": (later.get("memory up", 0.0) - stored) / steps,
    }


def main() -> None:
    given = options()
    real = RealSize(given.comfyui, int((given.card - given.taken) * GIB), given.mode, given.memory)
    job = real.job(given.size, given.clips, cfg=given.cfg, steps=given.steps, has_face=not given.no_face)
    found: dict[str, Any] = {"clips": [], "error": None}
    with real.host.torch.inference_mode(), phases(real) if given.phases else nullcontext():
        try:
            for clip in real.clips(job):
                found["clips"].append(clip)
                print({name: round(value, 2) for name, value in clip.items()})
        except (MemoryError, real.host.torch.OutOfMemoryError) as error:
            found["error"] = f"{type(error).__name__}: {error}"
    found |= {"refused": real.host.cards.counters()["refused"], "left": real.host.unload()}
    found |= summary(found["clips"], given.steps)
    real.host.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
