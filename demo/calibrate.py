"""Write demo/checkpoint/calibration.json: what full runs of the shipped model teach a step cache.

python -m demo.calibrate
"""

import argparse
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from memo_avatar.clips.loop import WrapDenoiser
from memo_avatar.files.disk import replacing
from teacache_core import Calibration, Fingerprint, StepCache, StepCacheConfig

from .evaluate import CHECKPOINT, OTHERS_FROM, DemoModel, held_out_cases

VIDEOS, CLIPS = 6, 4
SKIPPING = StepCacheConfig(target_speedup=3.3, target="converged")
"""Under this, latents leave those of the recordings by much, which shows how the net answers."""


def recording_cache(demo: DemoModel) -> StepCache:
    """A cache that skips nothing and learns."""
    return StepCache(
        StepCacheConfig(calibrate=True),
        fingerprint=Fingerprint.of(demo.models.diffusion_net.state_dict()),
        guidance_scale=demo.guidance_scale,
    )


def record_others(demo: DemoModel, videos: int, clips: int, wrap_denoiser: WrapDenoiser) -> None:
    """Videos of people whom no evaluation measures."""
    cases = held_out_cases(OTHERS_FROM + videos, clips, demo.size)[OTHERS_FROM:]
    for index, case in enumerate(tqdm(cases, desc="videos")):
        demo.talk(case.portrait, case.waveform, case.emotion, seed=1000 + index, wrap_denoiser=wrap_denoiser)


def learn_pull(demo: DemoModel, calibration: Calibration, videos: int, clips: int) -> Calibration:
    """With how strongly the net answers latents that are off, which the same clips show by skipped steps."""
    cache = StepCache(SKIPPING, calibration, guidance_scale=demo.guidance_scale)
    record_others(demo, videos, clips, cache.wrap)
    return replace(calibration, pull=cache.pull)


def main() -> None:
    """Record some people's clips in full."""
    parser = argparse.ArgumentParser(description="Calibrate step caches on the demo model.")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--videos", type=int, default=VIDEOS)
    parser.add_argument("--clips", type=int, default=CLIPS)
    options = parser.parse_args()
    demo = DemoModel.load(options.checkpoint)
    cache = recording_cache(demo)
    record_others(demo, options.videos, options.clips, cache.wrap)
    calibration = learn_pull(demo, cache.make_calibration(), options.videos, options.clips)
    with replacing(options.checkpoint / "calibration.json") as part:
        part.write_text(calibration.to_text(), encoding="utf-8")
    clips, fit, pull = len(calibration.recordings), calibration.r_squared, calibration.pull
    tqdm.write(f"{clips} clips, R2 {fit:.2f}, pull {pull:g}")


if __name__ == "__main__":
    main()
