"""diffusers' AutoencoderKL as the clip loop's VAE, from a local folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from memo_avatar.checkpoint.companions import read_vae

PIXELS_PER_BATCH = 512 * 512
"""One frame of the trained size at a time bounds the activations; small frames go together."""


class DiffusersVAE:
    """Pixels -1..1 to unscaled latents (the posterior's mean) and back, a few frames at a time."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in -1..1, wherever they are -> (N, 4, H/8, W/8) unscaled, where the VAE is."""
        batches = pixels.split(_batch_size(pixels.shape[-2] * pixels.shape[-1]))
        return torch.cat([self.model.encode(self._cast(batch)).latent_dist.mean for batch in batches])

    def decode(self, latents: Tensor) -> Tensor:
        """(N, 4, h, w) unscaled -> (N, 3, 8h, 8w) in about -1..1, in the dtype and device of `latents`."""
        batches = latents.split(_batch_size(64 * latents.shape[-2] * latents.shape[-1]))
        return torch.cat([self.model.decode(self._cast(batch)).sample.to(latents) for batch in batches])

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.model.device, self.model.dtype)


def load_vae(folder: Path, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> DiffusersVAE:
    """A diffusers folder, such as stabilityai/sd-vae-ft-mse's. What overflows in float16 stays in float32."""
    found = read_vae(folder)
    model: Any = AutoencoderKL(**found.config)
    model.load_state_dict(found.state)
    if dtype is torch.float16 and found.config["force_upcast"]:
        dtype = torch.float32
    # nn.Module's own `to`: diffusers' warns about parts to keep in float32 even where there are none.
    nn.Module.to(model, device=device, dtype=dtype)
    return DiffusersVAE(model.eval().requires_grad_(False))


def _batch_size(pixels_per_frame: int) -> int:
    return max(1, PIXELS_PER_BATCH // pixels_per_frame)
