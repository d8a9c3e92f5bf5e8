"""One evaluation of the net for a clip: all branches, in one batch or one after the other; and guidance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..model.context import ClipContext
from ..model.unet3d import UNet3D


class ClipDenoiser:
    """One clip's denoiser: ``denoiser(latents, timestep)`` -> velocity per branch.

    ``latents`` is (1, 4, F, h, w) float32 and ``timestep`` a scalar in 0..1000, best on the CPU: reading it
    there never waits for the device. The parts are offered for callers that watch or cut the net; they work
    on the joint batch of all branches. ``apart`` evaluates one branch after the other, in half the room.
    """

    def __init__(
        self,
        net: UNet3D,
        context: ClipContext,
        branches: tuple[str, ...],
        dtype: torch.dtype,
        *,
        apart: bool = False,
    ) -> None:
        self.net, self.context, self.branches, self.dtype, self.apart = net, context, branches, dtype, apart

    def __call__(self, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        latents, timestep = latents.to(self.dtype), self._moved(timestep)
        if not self.apart:
            return self.split(self.net(latents, timestep, self.context))
        return self.split(torch.cat([self.net(latents, timestep, row) for row in self._rows()]))

    def stem(self, latents: Tensor) -> Tensor:
        """(1, 4, F, h, w) -> (B*F, C, h, w); every branch starts from the same latents."""
        hidden_states = self.net.stem(latents.to(self.dtype))
        return hidden_states.repeat(len(self.branches), 1, 1, 1)

    def temb(self, timestep: Tensor) -> Tensor:
        """Timestep -> (B, T)."""
        return self.net.embed_timestep(self._moved(timestep), len(self.branches), self.dtype)

    def modulated_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The first ResNet's time-modulated activation (F, C, h, w), the same for every branch."""
        temb = self.net.embed_timestep(self._moved(timestep), 1, self.dtype)
        return self.net.modulated_input(self.net.stem(latents.to(self.dtype)), temb)

    def body(self, hidden_states: Tensor, temb: Tensor) -> Tensor:
        """All blocks on the joint batch."""
        if not self.apart:
            return self.net.body(hidden_states, temb, self.context)
        parts = zip(*(x.chunk(len(self.branches)) for x in (hidden_states, temb)), self._rows(), strict=True)
        return torch.cat([self.net.body(*part) for part in parts])

    def head(self, hidden_states: Tensor) -> dict[str, Tensor]:
        """(B*F, C, h, w) -> velocity per branch."""
        return self.split(self.net.head(hidden_states, self.context.frames))

    def split(self, velocity: Tensor) -> dict[str, Tensor]:
        """(B, 4, F, h, w) -> one (1, 4, F, h, w) float32 tensor per branch."""
        return dict(zip(self.branches, velocity.float().split(1), strict=True))

    def _rows(self) -> Iterator[ClipContext]:
        """Each branch's context: made for an evaluation, so that nobody holds the memory between two."""
        return (self.context.row(index) for index in range(len(self.branches)))

    def _moved(self, timestep: Tensor) -> Tensor:
        """The scalar where the net is. From the CPU by a fill: a copy might wait for the device."""
        device = self.context.audio_tokens.device
        if timestep.device.type != "cpu":
            return timestep.to(device)
        return torch.full((), float(timestep), dtype=timestep.dtype, device=device)


def guided(velocities: Mapping[str, Tensor], guidance_scale: float) -> Tensor:
    """Classifier-free guidance: uncond + scale * (cond - uncond), or cond where there is no uncond."""
    if "uncond" not in velocities:
        return velocities["cond"]
    uncond = velocities["uncond"]
    return uncond + guidance_scale * (velocities["cond"] - uncond)
