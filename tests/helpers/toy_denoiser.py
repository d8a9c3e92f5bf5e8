"""Denoisers small enough to check by hand, and a sampler loop to drive them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from teacache_core import StepCache


class ToyDenoiser:
    """Doubles its input twice: velocity 4 x, body residual 3 x, for each branch by its own factor.

    With one branch and residual reuse: 10 -> 40, then 11 -> 41 if skipped, 44 if computed.
    """

    def __init__(self, branches: tuple[str, ...] = ("uncond", "cond")) -> None:
        self.branches = branches
        self.computed = 0
        self.watched = 0

    def stem(self, latents: Tensor) -> Tensor:
        return torch.cat([latents * (1 + row) for row in range(len(self.branches))])

    def temb(self, timestep: Tensor) -> Tensor:
        return torch.as_tensor(timestep)

    def body(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        self.computed += 1
        return hidden_states * 2 * 2

    def head(self, hidden_states: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.branches, hidden_states.chunk(len(self.branches)), strict=True))

    def modulated_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        self.watched += 1
        return latents

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        return self.head(self.body(self.stem(latents), self.temb(timestep)))


class SmoothDenoiser:
    """A small nonlinear field of latents and timestep, with everything a real net has but size."""

    branches = ("uncond", "cond")

    def __init__(self, seed: int = 0, bend: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(8, 8, generator=generator) * 0.3
        self.bend = bend
        self.computed = 0

    def modulated_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        time = torch.as_tensor(timestep, dtype=torch.float32) / 1000.0
        return torch.tanh(latents.float() @ self.weight) + torch.cos(3.0 * self.bend * time)

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        self.computed += 1
        signal = self.modulated_input(latents, timestep)
        cond = (torch.sin(signal) @ self.weight.T - 0.3 * latents.float()).to(latents.dtype)
        return {"uncond": 0.5 * cond, "cond": cond + 0.1}


def flow_sigmas(steps: int) -> Tensor:
    return torch.cat([torch.linspace(1.0, 0.001, steps), torch.zeros(1)])


def sample(
    cache: StepCache | None,
    denoiser: Callable[..., dict[str, Tensor]],
    latents: Tensor,
    steps: int = 20,
    clip_index: int = 0,
    stop_at: int | None = None,
) -> Tensor:
    """Euler with guidance 2; `stop_at` raises before that step, as an interrupt does."""
    sigmas = flow_sigmas(steps)
    if cache is None:
        return _euler(denoiser, latents, sigmas, stop_at)
    with cache.wrap(denoiser, sigmas, clip_index) as cached:
        return _euler(cached, latents, sigmas, stop_at)


def _euler(
    denoise: Callable[..., dict[str, Tensor]], latents: Tensor, sigmas: Tensor, stop_at: int | None
) -> Tensor:
    for step in range(len(sigmas) - 1):
        if step == stop_at:
            raise KeyboardInterrupt
        velocity = denoise(latents, sigmas[step] * 1000.0)
        guided = velocity["uncond"] + 2.0 * (velocity["cond"] - velocity["uncond"])
        latents = latents + (sigmas[step + 1] - sigmas[step]) * guided
    return latents
