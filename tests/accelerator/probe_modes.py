"""The demo model through ComfyUI's nodes on a simulated card, in each way that ComfyUI places models.

    probe_modes.py COMFYUI

Real values, 64x64, two clips. The reference is the same process on the CPU.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.accelerator import dynamic_vram
from tests.accelerator.host import GIB, MIB, Host

SIZE, SECONDS, STEPS = 64, 0.6, 2


@dataclass(frozen=True)
class Mode:
    """A card, ComfyUI's state of its memory, and what it keeps free.

    Beside 16 MiB of weights its own 1.2 GiB would decide everything.
    """

    limit: int = 8 * GIB
    state: str = "NORMAL_VRAM"
    reserve: int | None = None
    dynamic: bool = False


MODES = {
    "fits": Mode(),
    "half": Mode(limit=86 * MIB, reserve=64 * MIB),
    "novram": Mode(state="NO_VRAM"),
    "dynamic": Mode(limit=36 * MIB, reserve=4 * MIB, dynamic=True),
}


class Scenario:
    """ComfyUI in one mode, the demo loaded in it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.management = host.management
        self.demo = host.module("nodes.host.folders").DEMO
        self.loaded = host.nodes.LoadMemo.execute(self.demo, "fp32").args
        portrait, voice = host.speak(self.loaded[1], SECONDS, SIZE)
        self.job = host.video_job(self.loaded, portrait, voice, steps=STEPS, cfg=1.5)

    def in_ram(self) -> Any:
        return replace(self.job, memo=replace(self.job.memo, memory="ram"))

    def watched(self, job: Any) -> tuple[Any, dict[str, Any]]:
        """The frames; what crosses for the second clip, in MiB; which lines wait within its steps."""
        marks: list[dict[str, int]] = []
        with self.host.cards.waits() as waited:

            def mark(clip: int, _step: int) -> None:
                if clip == 1:
                    marks.append(dict(waited))

            with self.at_step(mark):
                clips, _ = self.host.clips(job)
                frames = [next(clips).frames]
                with self.host.moved() as moved:
                    frames.append(next(clips).frames)
        first, second = marks
        waits = {line: count - first.get(line, 0) for line, count in second.items()}
        return self.host.torch.cat(frames), {
            "later clip": {kind: bytes / MIB for kind, bytes in moved.items()},
            "waits": {line: count for line, count in waits.items() if count},
        }

    def stopped(self, work: Callable[[int, int], None]) -> str:
        """What a run ends with that is broken off in its second clip."""
        with self.at_step(work):
            try:
                self.host.frames(self.job)
            except BaseException as error:
                return type(error).__name__
            finally:
                self.management.interrupt_current_processing(False)
        return "nothing"

    def interrupt(self, clip: int, _step: int) -> None:
        if clip == 1:
            self.management.interrupt_current_processing()

    def fail(self, clip: int, _step: int) -> None:
        if clip == 1:
            raise ArithmeticError("on purpose")

    @contextmanager
    def at_step(self, work: Callable[[int, int], None]) -> Iterator[None]:
        """Call `work` after every step, as a previewer would be."""
        progress = self.host.module("nodes.host.video").Progress
        original = progress.on_step

        def on_step(bar: Any, clip_index: int) -> Any:
            inner = original(bar, clip_index)

            def callback(step: int, *rest: Any) -> None:
                inner(step, *rest)
                work(clip_index, step)

            return callback

        progress.on_step = on_step
        try:
            yield
        finally:
            progress.on_step = original


@contextmanager
def entered(host: Host, mode: Mode) -> Iterator[None]:
    """ComfyUI as it is in this mode."""
    management = host.management
    names = ("vram_state", "EXTRA_RESERVED_VRAM", "minimum_inference_memory")
    before = {name: getattr(management, name) for name in names}
    host.cards.native.set_limit(0, mode.limit)
    management.vram_state = management.VRAMState[mode.state]
    if mode.reserve is not None:
        management.EXTRA_RESERVED_VRAM = mode.reserve // 3
        management.minimum_inference_memory = lambda: mode.reserve
    if mode.dynamic:
        dynamic_vram.enable(host)
    try:
        yield
    finally:
        dynamic_vram.disable(host)
        for name, value in before.items():
            setattr(management, name, value)


def check(host: Host, mode: Mode, reference: Any) -> dict[str, Any]:
    scenario = Scenario(host)
    with host.cards.measured() as run:
        frames, found = scenario.watched(scenario.job)
    stored, in_ram = scenario.watched(scenario.in_ram())
    found |= {
        "error": float((frames - reference).abs().max()),
        "refused": run["refused"],
        "same in RAM": bool(host.torch.equal(frames, stored)),
        "waits in RAM": in_ram["waits"],
        "left": host.unload(),
    }
    for name, work in (("interrupt", scenario.interrupt), ("exception", scenario.fail)):
        found[name] = scenario.stopped(work)
        gc.collect()
        found[f"left after {name}"] = host.unload()
    return found


def main(comfyui: str) -> None:
    host = Host(Path(comfyui), [8 * GIB], ["--fp32-vae"])
    found: dict[str, Any] = {}
    with host.torch.inference_mode():
        with host.on_cpu():
            reference = host.frames(Scenario(host).job)
        for name, mode in MODES.items():
            with entered(host, mode):
                found[name] = check(host, mode, reference)
    host.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
