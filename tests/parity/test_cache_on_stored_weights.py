"""The cache on our own net with the stored weights: exact when off, and memory that no skip can touch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from memo_avatar.clips.loop import generate_clips
from memo_avatar.clips.values import SamplingSettings
from teacache_core import StepCache, StepCacheConfig
from tests.helpers.memo_case import MemoCase, load_case

STEPS = 5
CLIPS = 3


@pytest.fixture(scope="module")
def case(goldens: Path) -> MemoCase:
    return load_case(goldens / "oblong", CLIPS)


class FedVAE:
    """The case's VAE, but the past frames it encodes come from another video: same pasts, another net."""

    def __init__(self, vae, pasts: list[torch.Tensor]) -> None:
        self.vae, self.pasts = vae, list(pasts)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.shape[0] > 1:
            pixels = self.pasts.pop(0) * 2 - 1
        return self.vae.encode(pixels)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents)


def settings_of(case: MemoCase, steps: int, guidance_scale: float | None = None) -> SamplingSettings:
    """The case's settings, at another number of steps."""
    info = case.info
    return SamplingSettings(
        steps=steps,
        guidance_scale=info["guidance_scale"] if guidance_scale is None else guidance_scale,
        frames_per_clip=info["frames_per_clip"],
        past_frames=info["past_frames"],
    )


def video(case: MemoCase, cache: StepCache | None, vae=None, steps: int = STEPS):
    """Every clip, its past frames, and the tensors of its memory."""
    settings = settings_of(case, steps)
    wrap = None if cache is None else cache.wrap
    clips = generate_clips(
        case.models, vae or case.vae, case.portrait, case.voice, settings, seed=3, wrap_denoiser=wrap
    )
    return [(clip.frames, clip.state.past_frames, clip.state.memory.tensors()) for clip in clips]


def test_memory_never_depends_on_a_skipped_step(case: MemoCase) -> None:
    cache = StepCache(StepCacheConfig(step_mask="10100"))
    cached = video(case, cache)
    assert cache.report.totals().computed == 2 * CLIPS
    plain = video(case, None, FedVAE(case.vae, [past for _, past, _ in cached]), steps=1)
    for (_, _, mine), (_, _, other) in zip(cached, plain, strict=True):
        assert all(torch.equal(mine[key], other[key]) for key in mine)
    assert not torch.equal(cached[0][0], plain[0][0])


@pytest.mark.parametrize(
    "config",
    [StepCacheConfig(), StepCacheConfig(step_mask="1"), StepCacheConfig(step_mask="1", stored="residual")],
    ids=["off", "velocity never skipped", "residual never skipped"],
)
def test_nothing_skipped_is_bit_identical(case: MemoCase, config: StepCacheConfig) -> None:
    settings = settings_of(case, steps=2)
    found = []
    for wrap in (None, StepCache(config).wrap):
        clips = generate_clips(case.models, case.vae, case.portrait, case.voice, settings, wrap_denoiser=wrap)
        found.append(next(clips).frames)
    exact = config.stored == "velocity"
    assert torch.allclose(found[0], found[1], rtol=0, atol=0 if exact else 1e-5)


@pytest.mark.parametrize("stored", ["velocity", "residual"])
def test_skipped_steps_really_skip(case: MemoCase, stored: str) -> None:
    calls = []
    hook = case.models.diffusion_net.mid_block.register_forward_hook(lambda *_: calls.append(1))
    settings = settings_of(case, steps=6)
    cache = StepCache(StepCacheConfig(step_mask="110010", stored=stored))
    clips = generate_clips(
        case.models, case.vae, case.portrait, case.voice, settings, wrap_denoiser=cache.wrap
    )
    frames = next(clips).frames
    clips.close()
    hook.remove()
    assert len(calls) == 3 and cache.report.masks() == ("110010",)
    assert torch.isfinite(frames).all()


def test_without_guidance_one_branch_is_cached(case: MemoCase) -> None:
    cache = StepCache(StepCacheConfig(rel_l1_thresh=0.6))
    settings = settings_of(case, steps=6, guidance_scale=1.0)
    clip = next(
        generate_clips(case.models, case.vae, case.portrait, case.voice, settings, wrap_denoiser=cache.wrap)
    )
    assert torch.isfinite(clip.frames).all()
    assert 1 <= cache.report.totals().computed < 6
