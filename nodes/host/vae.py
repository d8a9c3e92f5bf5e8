"""A checkpoint's own VAE as the host's VAE, also at sizes that the host's Stable Diffusion VAE does not have.

At the published sizes the host's own class is used. At others (the demo's) this file has the same network on
the host's layers, with diffusers' parameter names, behind the host's VAE object: batching by free memory,
tiling and offloading are the host's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.ops
import comfy.sd
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ...memo_avatar.checkpoint.companions import read_vae
from ...memo_avatar.inputs import VAE_STRIDE
from ...memo_avatar.model.vae import SmallAutoencoder
from .memory import fill, make_patcher

LATENT_CHANNELS = 4
_HOST_SIZES = ([128, 256, 512, 512], 2, 32)


class SmallVAE(comfy.sd.VAE):
    """The host's VAE object around a :class:`SmallAutoencoder`."""

    def __init__(self, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        _quietly(super().__init__, sd={})  # without weights it sets Stable Diffusion's defaults and stops
        self.device = management.vae_device()
        self.vae_dtype = management.vae_dtype(self.device, self.working_dtypes)
        self.output_device = management.intermediate_device()
        offload_device = management.vae_offload_device()
        self.first_stage_model = SmallAutoencoder(
            config,
            attention=optimized_attention,
            operations=comfy.ops.manual_cast,
            dtype=self.vae_dtype,
            device=offload_device,
        )
        self.first_stage_model.eval().requires_grad_(False)
        self.patcher = make_patcher(
            self.first_stage_model, load_device=self.device, offload_device=offload_device
        )
        archive = getattr(management, "archive_model_dtypes", None)
        if archive is not None:
            archive(self.first_stage_model)
        fill(self.patcher, self.first_stage_model, state)
        share = config["block_out_channels"][0] / _HOST_SIZES[0][0]
        encode, decode = self.memory_used_encode, self.memory_used_decode
        self.memory_used_encode = lambda shape, dtype: share * encode(shape, dtype)
        self.memory_used_decode = lambda shape, dtype: share * decode(shape, dtype)
        self.model_size()


def load_vae(folder: Path) -> Any:
    """A diffusers AutoencoderKL folder as a VAE."""
    found = read_vae(folder)
    config = found.config
    sizes = (config["block_out_channels"], config["layers_per_block"], config["norm_num_groups"])
    return comfy.sd.VAE(sd=found.state) if sizes == _HOST_SIZES else SmallVAE(config, found.state)


def check_vae(vae: Any) -> None:
    """Raise unless a host VAE says that its latents are of the kind that MEMO was trained on."""
    channels, dims = getattr(vae, "latent_channels", LATENT_CHANNELS), getattr(vae, "latent_dim", 2)
    stride = getattr(vae, "spacial_compression_encode", lambda: VAE_STRIDE)()
    if (channels, dims, stride) != (LATENT_CHANNELS, 2, VAE_STRIDE):
        raise ValueError(
            f"expected a VAE of Stable Diffusion 1.5 but got one whose latents have {channels} channels "
            "(vae). Connect Load VAE with sd-vae-ft-mse, or no VAE to Load MEMO: MEMO brings its own."
        )


def _quietly(call: Any, **arguments: Any) -> None:
    """Run ``call`` without its log lines: here they would warn of what is meant."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        call(**arguments)
    finally:
        logging.disable(before)
