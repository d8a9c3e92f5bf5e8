"""Flow-matching schedule and solvers, as pure functions of tensors.

``denoise(latents, sigma)`` returns the velocity dx/dsigma, where x_sigma = (1 - sigma) * data + sigma *
noise.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
Solver = Callable[[Velocity, Tensor, Tensor], Tensor]
"""``solver(velocity, noise, sigmas)`` -> latents at the last sigma."""

SIGMA_MIN = torch.tensor(0.001, dtype=torch.float32).item()
"""Last sigma before zero of diffusers' FlowMatchEulerDiscreteScheduler by default, hence upstream's."""


def flow_sigmas(steps: int) -> Tensor:
    """Upstream's schedule: ``steps`` values linear from 1 to 0.001, then 0, float32 (steps + 1,)."""
    if steps < 1:
        raise ValueError(
            f"steps must be at least 1 but got {steps} (sampling schedule). Use 20, as upstream does."
        )
    sigmas = torch.linspace(1000.0, SIGMA_MIN * 1000.0, steps, dtype=torch.float64) / 1000.0
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]).float()


def sample_euler(velocity: Velocity, latents: Tensor, sigmas: Tensor) -> Tensor:
    """Euler's method, one evaluation a step: upstream's sampler."""
    for sigma, sigma_next in pairwise(sigmas):
        latents = latents + (sigma_next - sigma) * velocity(latents, sigma)
    return latents


def sample_adams_bashforth(velocity: Velocity, latents: Tensor, sigmas: Tensor) -> Tensor:
    """Second-order Adams-Bashforth for uneven steps, one evaluation a step; the first step is Euler's."""
    previous: tuple[Tensor, Tensor] | None = None  # the step before: its length and velocity
    for sigma, sigma_next in pairwise(sigmas):
        length, current = sigma_next - sigma, velocity(latents, sigma)
        slope = current
        if previous is not None:
            slope = current + (current - previous[1]) * (length / (2 * previous[0]))
        latents = latents + length * slope
        previous = (length, current)
    return latents


SOLVERS: dict[str, Solver] = {"euler": sample_euler, "adams-bashforth": sample_adams_bashforth}
"""By the name that a user gives; euler is upstream's."""
