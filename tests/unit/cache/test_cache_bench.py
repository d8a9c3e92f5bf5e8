"""The benchmark's own arithmetic: solvers on a known equation, rivals on traces, fair thresholds."""

import pytest
import torch

from benchmarks.caching_methods import STEPS, uniform_mask
from benchmarks.rivals import (
    Counter,
    EasyCache,
    MagCache,
    Trace,
    fit_threshold,
    play_easycache,
    play_first_block,
    play_magcache,
    sample_dpmpp_2m,
)
from memo_avatar.clips.solvers import flow_sigmas, sample_adams_bashforth, sample_euler
from tests.helpers.toy_denoiser import ToyDenoiser


def error_of(solver, steps: int) -> float:
    """dx/dsigma = 1.5 x from 1 to 0 ends at exp(-1.5)."""
    end = solver(lambda x, sigma: 1.5 * x, torch.ones(1, dtype=torch.float64), flow_sigmas(steps).double())
    return abs(end.item() - torch.tensor(-1.5, dtype=torch.float64).exp().item())


def test_two_step_solvers_are_second_order_and_euler_is_first() -> None:
    assert error_of(sample_euler, 20) / error_of(sample_euler, 40) == pytest.approx(2, rel=0.15)
    assert error_of(sample_adams_bashforth, 20) / error_of(sample_adams_bashforth, 40) > 3
    assert error_of(sample_adams_bashforth, 20) < error_of(sample_euler, 20) / 3
    assert error_of(sample_dpmpp_2m, 20) < error_of(sample_euler, 20)


@pytest.mark.parametrize("solver", [sample_euler, sample_adams_bashforth, sample_dpmpp_2m])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_solvers_are_exact_on_a_straight_path_and_evaluate_once_a_step(solver, steps: int) -> None:
    calls = []

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(float(sigma))
        return torch.full_like(x, 3.0)

    end = solver(velocity, torch.full((2,), 5.0), flow_sigmas(steps))
    assert torch.allclose(end, torch.full((2,), 2.0), atol=1e-5)
    assert len(calls) == steps


@pytest.mark.parametrize("computed", [13, 10, 8])
def test_uniform_masks_have_the_right_cost(computed: int) -> None:
    mask = uniform_mask(computed)
    assert len(mask) == STEPS and mask.count("1") == computed and mask[0] == "1"


def made_trace(seed: int) -> Trace:
    generator = torch.Generator().manual_seed(seed)
    trace, latents, probe = Trace(), torch.randn(4, 8, generator=generator), torch.ones(4, 8)
    for step in range(STEPS):
        bend = 0.02 + 0.05 * torch.rand(1, generator=generator)
        latents = latents * (1 - bend)
        probe = probe * (1 + bend * torch.rand(4, 8, generator=generator))
        trace.latents.append(latents)
        trace.velocities.append({"cond": latents * (1 + 0.03 * step)})
        trace.residual_sizes.append(10.0 * 0.97**step)
        trace.probes.append(probe)
    return trace


@pytest.mark.parametrize("play", [play_easycache, play_magcache, play_first_block])
def test_fitted_thresholds_give_nearly_the_cost_asked_for(play) -> None:
    traces = [made_trace(seed) for seed in range(3)]
    for computed in (13, 10, 8):
        threshold = fit_threshold(play, traces, computed)
        counts = [play(trace, threshold) for trace in traces]
        assert sum(counts) / 3 == pytest.approx(computed, abs=2.5)
    assert play(traces[0], 1e-9) >= STEPS - 4 > play(traces[0], 1e3)


def test_magcache_decides_as_its_play_does_and_reuses_the_residual() -> None:
    trace, net, counter = made_trace(0), ToyDenoiser(branches=("cond",)), Counter()
    cache = MagCache(net, counter, STEPS, 0.2, trace.ratios())  # type: ignore[arg-type]
    outputs = [
        cache(torch.full((1, 1), 10.0 + step), torch.tensor(0.0))["cond"].item() for step in range(STEPS)
    ]
    assert counter.computed == play_magcache(trace, 0.2) < STEPS
    residual = 0.0
    for step, (output, computed) in enumerate(zip(outputs, counter.masks[0], strict=True)):
        residual = 3 * (10.0 + step) if computed == "1" else residual
        assert output == pytest.approx(10.0 + step + residual)


def test_easycache_reuses_output_minus_input_and_never_skips_the_ends() -> None:
    net, counter = ToyDenoiser(branches=("cond",)), Counter()
    cache = EasyCache(net, counter, 5, threshold=9.0)  # type: ignore[arg-type]
    outputs = [cache(torch.full((1, 1), 10.0 + step), torch.tensor(0.0))["cond"].item() for step in range(5)]
    assert counter.masks == ["11001"]
    assert outputs == [40, 44, 45, 46, 56]
