"""The cache around any denoiser: a callable (latents, timestep) -> {branch: velocity}.

Caching the velocity needs that call alone. Caching the body's residual needs the three parts as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Protocol

from torch import Tensor

from .clip_cache import ClipCache

TIMESTEPS_PER_SIGMA = 1000.0  # of flow-matching nets
_SAME_LEVEL = 1e-4
_JOINT = "joint"


class Denoiser(Protocol):
    """What is called once per evaluation. `branches` names the velocities it returns."""

    @property
    def branches(self) -> Collection[str]: ...

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]: ...


class SignalDenoiser(Denoiser, Protocol):
    """A denoiser that offers a cheap signal: the first layer's timestep-modulated activation."""

    def modulated_input(self, latents: Tensor, timestep: Tensor) -> Tensor: ...


class SplitDenoiser(SignalDenoiser, Protocol):
    """A denoiser in three parts: call == head(body(stem(latents), temb(timestep)))."""

    def stem(self, latents: Tensor) -> Tensor: ...

    def temb(self, timestep: Tensor) -> Tensor: ...

    def body(self, hidden_states: Tensor, temb: Tensor) -> Tensor: ...

    def head(self, hidden_states: Tensor) -> dict[str, Tensor]: ...


class CachedDenoiser:
    """Same call as the denoiser it wraps; some calls are replayed."""

    def __init__(self, clip: ClipCache, denoiser: Denoiser) -> None:
        self.clip = clip
        self.denoiser = denoiser

    @property
    def branches(self) -> Collection[str]:
        """Names of the velocities."""
        return self.denoiser.branches

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        """Velocities by branch, computed or replayed."""
        if self.clip.config.stored == "residual":
            return self._through_residual(latents, timestep)
        branches = tuple(self.denoiser.branches)
        sigma = noise_level(timestep, self.clip.sigmas)
        signal = partial(self._signal, latents, timestep)
        with self.clip.evaluation(sigma, like=latents, branches=branches, signal=signal) as decision:
            if not decision.compute:
                return {branch: self.clip.replay(branch) for branch in branches}
            velocities = self.denoiser(latents, timestep)
            return {branch: self.clip.store(branch, velocities[branch]) for branch in branches}

    def _through_residual(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        net: SplitDenoiser = self.denoiser  # type: ignore[assignment]
        sigma = noise_level(timestep, self.clip.sigmas)
        signal = partial(self._signal, latents, timestep)
        hidden_states, temb = net.stem(latents), net.temb(timestep)
        with self.clip.evaluation(sigma, like=latents, branches=(_JOINT,), signal=signal) as decision:
            if decision.compute:
                output = net.body(hidden_states, temb)
                self.clip.store(_JOINT, output - hidden_states)
            else:
                output = hidden_states + self.clip.replay(_JOINT)
        return net.head(output)

    def _signal(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The modulated input, or the latents of a denoiser that offers nothing better."""
        watch = getattr(self.denoiser, "modulated_input", None)
        return latents if watch is None else watch(latents, timestep)


def noise_level(timestep: Tensor | float, sigmas: Sequence[float]) -> float:
    """The sigma of a timestep, exactly as in the schedule if it is there. Waits for a device's timestep."""
    number = float(timestep.reshape(-1)[0]) if isinstance(timestep, Tensor) else float(timestep)
    sigma = number / TIMESTEPS_PER_SIGMA
    nearest = min(sigmas[:-1], key=lambda level: abs(level - sigma))
    return nearest if abs(nearest - sigma) < _SAME_LEVEL else sigma
