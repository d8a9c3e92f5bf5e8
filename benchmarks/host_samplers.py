"""ComfyUI's samplers with the step cache at 2x and without, at equal cost, on the demo model.

    COMFYUI/.venv/bin/python benchmarks/host_samplers.py COMFYUI [--seconds 1]

Run by ComfyUI's own Python, on the CPU. Every row makes the same videos from the same noise, by the nodes;
`normal` is the scheduler. Two references: Euler with 20 steps and no cache, and Euler with 100. Only samplers
that draw no noise and evaluate once a step can be compared like this. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests" / "helpers" / "inside")]  # last: ComfyUI has a `nodes`, too

from world import Pack, load_pack, start_host  # noqa: E402

from benchmarks.fidelity import psnr  # noqa: E402

SAMPLERS = (
    "euler",
    "ipndm",
    "ipndm_v",
    "deis",
    "lms",
    "res_multistep",
    "gradient_estimation",
    "dpmpp_2m",
    "uni_pc",
    "uni_pc_bh2",
)
SUBJECTS = (("portrait.png", "speech.wav"), ("portrait2.png", "held_out.wav"))
STEPS, SPEEDUP, CONVERGED_STEPS = 20, 2.0, 100
HEADER = (
    f"| sampler | evaluations | PSNR, {STEPS} Euler steps | PSNR, {CONVERGED_STEPS} Euler steps |\n"
    "|---|---|---|---|"
)


class Host(Pack):
    """The pack inside ComfyUI, the demo model loaded, and a job per subject."""

    def __init__(self, comfyui: Path, user: Path, seconds: float) -> None:
        start_host(comfyui, user)
        super().__init__(load_pack(ROOT))
        self.pack.comfy_entrypoint()
        self.loaded = self.nodes.LoadMemo.execute(self.module("nodes.host.folders").DEMO, "auto").args
        self.jobs = [self.make_job(portrait, voice, seconds) for portrait, voice in SUBJECTS]

    def make_job(self, portrait: str, voice: str, seconds: float) -> Any:
        """What MEMO Sampler would get from the demo's template."""
        model, memo, vae = self.loaded[:3]
        image, sound = self.nodes.DemoNode.execute(portrait, voice).args[:2]
        face = self.nodes.PortraitNode.execute(image, memo, memo.size, memo.size, "crop").args[0]
        speech = self.nodes.VoiceNode.execute(sound, memo, "neutral", 1.0, seconds).args[0]
        job = self.module("nodes.host.video").VideoJob
        return job(model, memo, face, speech, vae, 42, STEPS, memo.guidance_scale, "euler", "normal")

    def plain(self, job: Any) -> tuple[Any, float]:
        """(frames, evaluations per clip) without skipping; the cache only counts."""
        return self.counted(self.cached(job, step_mask="1"))

    def faster(self, job: Any) -> tuple[Any, float]:
        """The same through TeaCache for MEMO as it comes, at `SPEEDUP`."""
        mode = self.module("nodes.teacache").SPEEDUP
        model = self.nodes.TeaCacheNode.execute(job.model, mode, SPEEDUP, 0.0).args[0]
        return self.counted(replace(job, model=model))

    def counted(self, job: Any) -> tuple[Any, float]:
        """(frames, computed evaluations per clip)."""
        frames, cache = self.run(job)
        totals = cache.report.totals()
        return frames, totals.computed / len({record.clip_index for record in cache.report.records})


def make_rows(host: Host) -> Iterator[dict[str, Any]]:
    """Row after row, averaged over the subjects."""
    references = [
        (host.plain(job)[0], host.plain(replace(job, steps=CONVERGED_STEPS))[0]) for job in host.jobs
    ]
    for sampler in SAMPLERS:
        jobs = [replace(job, sampler_name=sampler) for job in host.jobs]
        few = [replace(job, steps=round(STEPS / SPEEDUP)) for job in jobs]
        runs = {
            f"{STEPS} steps": map(host.plain, jobs),
            f"{STEPS} steps, cache {SPEEDUP:g}x": map(host.faster, jobs),
            f"{STEPS / SPEEDUP:g} steps": map(host.plain, few),
        }
        for name, results in runs.items():
            found = [
                (computed, psnr(frames, same), psnr(frames, right))
                for (frames, computed), (same, right) in zip(results, references, strict=True)
            ]
            means = [sum(values) / len(found) for values in zip(*found, strict=True)]
            yield dict(zip(("evaluations", "psnr", "psnr_converged"), means, strict=True)) | {
                "method": f"{sampler}, {name}"
            }


def card(host: Host) -> str:
    """What was measured, on what."""
    import comfyui_version
    import torch

    return (
        f"{len(host.jobs)} videos of {host.jobs[0].num_frames} frames on the demo model; ComfyUI "
        f"{comfyui_version.__version__}, {platform.machine()}, no GPU, torch {torch.__version__}"
    )


def main() -> None:
    """Print a table row by row, then JSON."""
    parser = argparse.ArgumentParser(description="Compare ComfyUI's samplers under the step cache.")
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each voice")
    options = parser.parse_args()
    import torch

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as user, torch.inference_mode():
        host = Host(options.comfyui, Path(user), options.seconds)
        print(f"{card(host)}\n\n{HEADER}", flush=True)
        for row in make_rows(host):
            rows.append(row)
            same = "-" if row["psnr"] > 100 else f"{row['psnr']:.1f}"
            print(
                f"| {row['method']} | {row['evaluations']:.1f} | {same} | {row['psnr_converged']:.1f} |",
                flush=True,
            )
    print(f"\n{json.dumps({'rows': rows})}")


if __name__ == "__main__":
    main()
