"""The forecasting rivals' arithmetic on velocities that each has to get right, and the plot's choice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.caching_methods import STEPS, uniform_mask
from benchmarks.forecast_rivals import (
    Forecasting,
    HiCache,
    MeanCache,
    Spectrum,
    TaylorSeer,
    Zeus,
    plan_meancache,
    step_lengths,
)
from benchmarks.plot import curves
from benchmarks.rivals import Counter, Trace
from memo_avatar.clips.solvers import flow_sigmas

SIGMAS = flow_sigmas(STEPS)


class Known:
    """A denoiser whose velocity is a function of the step."""

    def __init__(self, velocity: Callable[[float], float]) -> None:
        self.velocity, self.calls = velocity, 0

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"cond": torch.tensor([self.velocity(float(timestep))], dtype=torch.float64)}


def answers(make: Callable[[Known, Counter], Forecasting], velocity: Callable[[float], float]) -> list[float]:
    net, counter = Known(velocity), Counter()
    rival = make(net, counter)
    found = [float(rival(torch.zeros(1), torch.tensor(float(step)))["cond"]) for step in range(STEPS)]
    assert net.calls == counter.computed == counter.masks[0].count("1")
    return found


def line(step: float) -> float:
    return 3.0 - 0.5 * step


def square(step: float) -> float:
    return 0.1 * step * step - step


@pytest.mark.parametrize(("order", "velocity", "first"), [(1, line, 2), (2, square, 4)])
def test_taylorseer_continues_a_polynomial_of_its_order(order: int, velocity, first: int) -> None:
    """The first derivative from differences is that of the gap's middle, so a square leaves a remainder."""
    mask = uniform_mask(10)
    found = answers(lambda net, counter: TaylorSeer(net, counter, STEPS, mask, order), velocity)
    error = max(abs(found[step] - velocity(step)) for step in range(first, STEPS))
    assert error < 1e-9 if order == 1 else error < 0.25
    plain = answers(lambda net, counter: TaylorSeer(net, counter, STEPS, mask, 0), velocity)
    assert error < max(abs(plain[step] - velocity(step)) for step in range(first, STEPS)) / 4


def test_hicaches_polynomials_are_scaled_hermite() -> None:
    cache = HiCache(Known(line), Counter(), STEPS, uniform_mask(10), 2)  # type: ignore[arg-type]
    assert [cache.basis(3.0, degree) for degree in range(3)] == pytest.approx(
        [1.0, 0.5 * 3.0, 0.25 * (9 - 2)]
    )


def test_zeus_extrapolates_once_and_reuses_that() -> None:
    found = answers(lambda net, counter: Zeus(net, counter, STEPS, "1100100" + "1" * 13), line)
    assert found[2] == found[3] == pytest.approx(2 * line(1) - line(0))
    assert found[5] == found[6] == pytest.approx(2 * line(4) - line(1))


def test_spectrum_follows_a_line() -> None:
    found = answers(lambda net, counter: Spectrum(net, counter, STEPS, uniform_mask(10)), line)
    assert max(abs(found[step] - line(step)) for step in range(4, STEPS)) < 0.2


def test_meancache_moves_as_far_as_a_straight_velocity_does() -> None:
    """A velocity linear in sigma: where a window is known, each stretch's answer is its exact average."""
    lengths = step_lengths(STEPS)
    windows = {step: min(step, 2) for step in (0, 1, 2, 5, 9, 14)}

    def velocity(step: float) -> float:
        return 2.0 + 3.0 * float(SIGMAS[int(step)])

    found = answers(lambda net, counter: MeanCache(net, counter, STEPS, windows), velocity)
    for start, end in ((2, 5),):
        moved = sum(lengths[step] * found[step] for step in range(start, end))
        middle = (SIGMAS[start] + SIGMAS[end]) / 2
        assert moved == pytest.approx(sum(lengths[start:end]) * (2 + 3 * float(middle)), rel=2e-2)


def test_meancaches_path_has_the_cost_asked_for_and_dwells_at_the_bend() -> None:
    trace = Trace()
    for sigma in SIGMAS[:-1]:
        trace.velocities.append({"cond": torch.stack([sigma, 4 * (sigma - 0.5).clamp(min=0)])})
    for computed in (4, 6, 10):
        windows = plan_meancache([trace], computed)
        assert len(windows) == computed and 0 in windows
        assert all(0 <= window <= step for step, window in windows.items())


def test_the_plot_shows_the_best_rival_and_the_best_plain_solver_at_each_cost() -> None:
    rows = [
        {"method": f"{name} 10", "evaluations": 10.0, "psnr": value, "psnr_converged": value}
        for name, value in (("this cache, same video", 60.0), ("ZEUS", 40.0), ("Spectrum", 44.0))
    ]
    rows += [
        {"method": f"{name} 10 steps", "evaluations": 10.0, "psnr": value, "psnr_converged": value}
        for name, value in (("Euler", 35.0), ("Adams-Bashforth", 37.0))
    ]
    ours, rival, plain = curves(rows, "psnr", "this cache, same video")
    assert ours.points == ((10.0, 60.0),)
    assert rival.points == ((10.0, 44.0),) and rival.names == ("Spectrum",)
    assert plain.points == ((10.0, 37.0),) and plain.names == ("Adams-Bashforth",)
