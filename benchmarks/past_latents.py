"""What `--past latents` changes: half a minute of the demo, each clip begun from frames or from latents.

    python -m benchmarks.past_latents [--seconds 30]

A held-out person says held-out sentences, with the step cache at `fast` in both. Prints a row for each
stretch of five seconds: how far the two videos are from each other, and of either the lips' agreement with
the voice (1 is perfect), how unlike the person the frames are, and their sharpness. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.fidelity import psnr
from demo.evaluate import CHECKPOINT, FRAMES, Case, DemoModel, held_out_cases
from demo.meters import correlation, identity_error, mouth_opening
from demo.speech import FPS
from memo_avatar.clips.drift import appearance
from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import PASTS, Past, SamplingSettings
from teacache_core import PRESETS, Calibration, StepCache, StepCacheConfig

STRETCH = 5 * FPS
HEADER = (
    "| seconds | PSNR of the two | lips, frames | latents | unlike, frames | latents "
    "| sharpness, frames | latents |\n|---|---|---|---|---|---|---|---|"
)


@torch.inference_mode()
def render(past: Past, clips: int) -> tuple[Case, Tensor]:
    """The video (T, 3, S, S) in 0..1, computed by one thread."""
    torch.set_num_threads(1)
    demo = DemoModel.load()
    (case,) = held_out_cases(1, clips, demo.size)
    portrait, voice = demo.inputs(case.portrait, case.waveform, case.emotion)
    settings = replace(SamplingSettings(guidance_scale=demo.guidance_scale), past=past)
    config = StepCacheConfig(target_speedup=PRESETS["fast"])
    known = Calibration.load(CHECKPOINT / "calibration.json")
    cache = StepCache(config, known, guidance_scale=demo.guidance_scale)
    made = generate_clips(demo.models, demo.vae, portrait, voice, settings, wrap_denoiser=cache.wrap)
    return case, torch.cat([clip.frames for clip in made])


def row(case: Case, start: int, frames: Tensor, latents: Tensor) -> dict[str, Any]:
    """One stretch of both videos."""
    mouth = case.mouth[start : start + len(frames)]
    both = {"frames": frames, "latents": latents}
    return {
        "from": start / FPS,
        "to": (start + len(frames)) / FPS,
        "psnr": psnr(latents, frames),
        "lips": {name: correlation(mouth_opening(video), mouth) for name, video in both.items()},
        "unlike": {name: identity_error(video, case.portrait) for name, video in both.items()},
        "sharpness": {name: appearance(video).sharpness for name, video in both.items()},
    }


def shown(found: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [f"{found[what][past]:.3f}" for what in ("lips", "unlike", "sharpness") for past in PASTS]
    return f"| {found['from']:.0f} to {found['to']:.0f} | {found['psnr']:.1f} | {' | '.join(cells)} |"


def main() -> None:
    """Two processes make the videos."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of the video (default: %(default)g)")
    clips = max(1, round(parser.parse_args().seconds * FPS / FRAMES))
    with multiprocessing.get_context("spawn").Pool(len(PASTS)) as pool:
        (case, frames), (_, latents) = pool.map(partial(render, clips=clips), PASTS)
    print(HEADER)
    rows = []
    for start in range(0, len(frames), STRETCH):
        stretch = slice(start, start + STRETCH)
        rows.append(row(case, start, frames[stretch], latents[stretch]))
        print(shown(rows[-1]))
    print(f"\n{json.dumps({'rows': rows})}")


if __name__ == "__main__":
    main()
