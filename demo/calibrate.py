"""Write demo/checkpoint/calibration.json: what full runs of the shipped model teach a step cache.

python -m demo.calibrate
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from memo_avatar.clips.loop import WrapDenoiser
from memo_avatar.files.disk import replacing
from teacache_core import Fingerprint, StepCache, StepCacheConfig

from .evaluate import CHECKPOINT, OTHERS_FROM, DemoModel, held_out_cases

VIDEOS, CLIPS = 6, 4


def recording_cache(demo: DemoModel) -> StepCache:
    """A cache that skips nothing and learns."""
    return StepCache(
        StepCacheConfig(calibrate=True),
        fingerprint=Fingerprint.of(demo.models.diffusion_net.state_dict()),
        guidance_scale=demo.guidance_scale,
    )


def record_others(demo: DemoModel, videos: int, clips: int, wrap_denoiser: WrapDenoiser) -> None:
    """Full runs of people whom no evaluation measures."""
    cases = held_out_cases(OTHERS_FROM + videos, clips, demo.size)[OTHERS_FROM:]
    for index, case in enumerate(tqdm(cases, desc="videos")):
        demo.talk(case.portrait, case.waveform, case.emotion, seed=1000 + index, wrap_denoiser=wrap_denoiser)


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
    calibration = cache.make_calibration()
    with replacing(options.checkpoint / "calibration.json") as part:
        part.write_text(calibration.to_text(), encoding="utf-8")
    tqdm.write(f"{len(calibration.recordings)} clips, R2 {calibration.r_squared:.2f}")


if __name__ == "__main__":
    main()
