"""ComfyUI's MultiGPU CFG Split with our MODEL on two simulated cards. Usage: probe_two_cards.py COMFYUI

The demo model, 64x64, two clips: plain, memory in RAM, with the step cache; beside the same on one card.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.accelerator.host import GIB, MIB, Host

SIZE, SECONDS, STEPS = 64, 0.6, 4


def split(host: Host, model: Any) -> Any:
    """What the node "MultiGPU CFG Split" makes of a MODEL."""
    import comfy.multigpu

    return comfy.multigpu.create_multigpu_deepclones(model, 2, reuse_loaded=True)


def run(host: Host, job: Any) -> tuple[Any, list[dict[str, float]]]:
    """Frames, and what each card received in the second clip in MiB."""
    clips, _ = host.clips(job)
    frames = [next(clips).frames]
    with host.cards.measured(0) as first, host.cards.measured(1) as second:
        frames.append(next(clips).frames)
    received = [{"up": card["received"] / MIB, "live": card["live"] / MIB} for card in (first, second)]
    clips.close()
    return host.torch.cat(frames), received


def main(comfyui: str) -> None:
    host = Host(Path(comfyui), [8 * GIB, 8 * GIB], ["--fp32-vae"])
    host.management.set_torch_device = host.torch.npu.set_device  # the host does it for CUDA and XPU
    found: dict[str, Any] = {}
    with host.torch.inference_mode():
        loaded = host.nodes.LoadMemo.execute(host.module("nodes.host.folders").DEMO, "fp32").args
        portrait, voice = host.speak(loaded[1], SECONDS, SIZE)
        job = host.video_job(loaded, portrait, voice, steps=STEPS, cfg=1.5)
        jobs = {
            "plain": job,
            "in RAM": replace(job, memo=replace(job.memo, memory="ram")),
            "cached": host.cached(job, step_mask="1101"),
        }
        alone = {name: run(host, kind)[0] for name, kind in jobs.items()}
        for name, kind in jobs.items():
            frames, cards = run(host, replace(kind, model=split(host, kind.model)))
            error = float((frames - alone[name]).abs().max())
            found[name] = {"error": error, "cards": cards}
        needs = host.module("nodes.host.estimate").sizes_of(job).needs()
        found |= {"memory": sum(needs.memory) / MIB, "left": host.unload()}
    host.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
