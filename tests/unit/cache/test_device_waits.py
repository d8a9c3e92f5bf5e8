"""Steps do not wait for the device: on torch's meta device, where reading a value raises, they all run; on
the CPU what would wait is counted.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.flops import MetaVAE
from memo_avatar.clips.conditions import VideoConditions
from memo_avatar.clips.denoiser import ClipDenoiser
from memo_avatar.clips.solvers import flow_sigmas, sample_adams_bashforth, sample_euler
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import Portrait
from teacache_core import StepCache, StepCacheConfig, clip_cache
from tests.helpers.tiny_memo import tiny_memo
from tests.helpers.toy_denoiser import SmoothDenoiser

STEPS = 6


@pytest.fixture
def denoiser() -> ClipDenoiser:
    models = tiny_memo()
    for part in ("diffusion_net", "reference_net", "image_proj", "audio_proj"):
        getattr(models, part).to("meta")
    settings = SamplingSettings(frames_per_clip=4, past_frames=4)
    with torch.inference_mode():
        conditions = VideoConditions(
            models, MetaVAE(), Portrait(torch.zeros(1, 3, 32, 32), torch.ones(1, 512)), settings
        )
        context = conditions.clip(None, None, torch.zeros(4, 5, 2, 3, device="meta"), 0)
    return ClipDenoiser(models.diffusion_net, context, settings.branches, models.dtype)


def sample(solver: Callable[..., Tensor], denoise: Callable[..., dict[str, Tensor]]) -> Tensor:
    noise = torch.empty(1, 4, 4, 4, 4, device="meta")
    return solver(lambda x, sigma: denoise(x, sigma * 1000)["cond"], noise, flow_sigmas(STEPS))


@pytest.mark.parametrize("solver", [sample_euler, sample_adams_bashforth])
def test_without_a_cache_nothing_waits(denoiser: ClipDenoiser, solver: Callable[..., Tensor]) -> None:
    with torch.inference_mode():
        assert sample(solver, denoiser).shape == (1, 4, 4, 4, 4)


@pytest.mark.parametrize(
    ("config", "waits"),
    [
        (StepCacheConfig(step_mask="110010"), 0),
        (StepCacheConfig(step_mask="110010", stored="residual"), 0),
        (StepCacheConfig(rel_l1_thresh=0.1), STEPS - 1),
    ],
    ids=["velocity, known schedule", "residual, known schedule", "threshold"],
)
def test_a_cache_waits_once_a_step_at_most(
    denoiser: ClipDenoiser, monkeypatch: pytest.MonkeyPatch, config: StepCacheConfig, waits: int
) -> None:
    """The numbers of the report are fetched once, when the run is over."""
    read: list[Tensor] = []
    fetched: list[int] = []
    monkeypatch.setattr(torch.Tensor, "item", lambda self: read.append(self) or 0.04)
    monkeypatch.setattr(clip_cache, "_fetch", lambda numbers: fetched.append(1) or [0.0] * len(numbers))
    cache = StepCache(config, observe=True)
    with torch.inference_mode(), cache.wrap(denoiser, flow_sigmas(STEPS), 0) as cached:
        sample(sample_euler, cached)
    assert len(read) == waits
    assert len(fetched) <= 1
    assert 0 < cache.report.totals().computed < STEPS


class CountWaits(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts how often a number is read from a tensor: what makes a host wait for its device."""

    waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("config", "most"),
    [
        (StepCacheConfig(rel_l1_thresh=0.2), 19),
        (StepCacheConfig(step_mask="1101"), 0),
        (StepCacheConfig(calibrate=True), 0),
    ],
    ids=["threshold", "known", "recording"],
)
def test_a_step_waits_for_the_device_once_at_most_and_never_with_a_known_schedule(config, most: int) -> None:
    net, latents, sigmas = SmoothDenoiser(), torch.randn(2, 8), flow_sigmas(20).tolist()
    with CountWaits() as counter, StepCache(config).clip(sigmas) as clip:
        for sigma in sigmas[:-1]:
            signal = lambda: net.modulated_input(latents, sigma * 1000)  # noqa: B023, E731
            with clip.evaluation(sigma, like=latents, branches=("cond",), signal=signal) as decision:
                if decision.compute:
                    clip.store("cond", net(latents, torch.tensor(sigma * 1000))["cond"])
                else:
                    clip.replay("cond")
        waits = counter.waits
    assert waits <= most
