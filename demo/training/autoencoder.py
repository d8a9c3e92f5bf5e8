"""The demo's VAE: a small diffusers `AutoencoderKL`, trained on rendered frames of ever new people.

Latents leave training with about unit deviation after upstream's fixed factor 0.18215: the scale is folded
into the convolutions next to the latents (`fold_latent_scale`), so the config stays Stable Diffusion's.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from ..faces import random_poses, render, sample_people
from .muon import Muon
from .parallel import agree, average_gradients

logger = logging.getLogger(__name__)

SCALING_FACTOR = 0.18215
HELD_OUT_SEED = 900_000


def build_vae() -> AutoencoderKL:
    """Four levels, one ResNet each; 96 x 96 pixels become 4 x 12 x 12 latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=96,
        scaling_factor=SCALING_FACTOR,
    )


def frames_for_vae(count: int, seed: int, size: int = 96) -> Tensor:
    """Rendered frames (count, 3, size, size) in -1..1: everyone another person in another pose."""
    generator = torch.Generator().manual_seed(seed)
    return render(sample_people(count, seed), random_poses(count, generator), size) * 2 - 1


def vae_loss(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """L1 + MSE + a light KL that keeps latents near unit normal; the noise makes the decoder forgiving."""
    posterior = vae.encode(pixels).latent_dist
    latents = posterior.mean + 0.05 * torch.randn_like(posterior.mean)
    decoded = vae.decode(latents).sample
    difference = decoded - pixels
    kl = 0.5 * posterior.mean.square().mean()
    return difference.abs().mean() + 2.0 * difference.square().mean() + 1e-3 * kl


@torch.no_grad()
def vae_psnr(vae: AutoencoderKL, count: int = 64, seed: int = HELD_OUT_SEED) -> float:
    """Mean PSNR in dB of decode(encode(x)) on people never trained on, pixels in 0..1."""
    values = []
    for start in range(0, count, 16):
        pixels = frames_for_vae(16, seed + start).to(vae.device)
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
        error = ((decoded - pixels) / 2).square().mean(dim=(1, 2, 3))
        values.append(-10 * error.log10())
    return torch.cat(values).mean().item()


@torch.no_grad()
def fold_latent_scale(vae: AutoencoderKL, count: int = 128) -> float:
    """Rescale the latents so that SCALING_FACTOR * latents has unit deviation; returns the factor applied."""
    frames = (frames_for_vae(16, i).to(vae.device) for i in range(count // 16))
    latents = torch.cat([vae.encode(pixels).latent_dist.mode() for pixels in frames])
    factor = 1.0 / (SCALING_FACTOR * latents.std().item())
    vae.quant_conv.weight[:4] *= factor
    vae.quant_conv.bias[:4] *= factor
    vae.quant_conv.bias[4:] += 2 * math.log(factor)
    vae.post_quant_conv.weight /= factor
    return factor


def _schedule(step: int, share: float, warm: int) -> float:
    """Warm-up over `warm` steps, then a cosine to a hundredth."""
    return min(1.0, (step + 1) / warm) * (0.505 + 0.495 * math.cos(math.pi * share))


def train_vae(
    rank: int,
    workers: int,
    folder: Path,
    minutes: float,
    seed: int = 0,
    batch: int = 6,
    lr: float = 1e-2,
    device: str = "cpu",
    on_step: Callable[[float, str], None] | None = None,
) -> None:
    """Train for `minutes` of wall clock (the schedule follows the clock) and save to `folder`."""
    torch.manual_seed(seed)
    vae = build_vae().to(device)
    torch.nn.init.zeros_(vae.quant_conv.weight[4:])
    parameters = list(vae.parameters())
    optimizer = Muon(vae.named_parameters(), lr=lr, adam_lr=0.2 * lr)
    start, step, share = time.monotonic(), 0, 0.0
    while share < 1.0:
        share = min(1.0, agree((time.monotonic() - start) / (60 * minutes), workers))
        loss = vae_loss(vae, frames_for_vae(batch, 1_000_000 + step * workers + rank).to(device))
        optimizer.zero_grad()
        loss.backward()
        average_gradients(parameters, workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(_schedule(step, share, 30))
        step += 1
        if rank == 0 and on_step is not None and step % 25 == 0:
            on_step(share, f"vae step {step} loss {loss.item():.4f}")
        if rank == 0 and step % 400 == 0:
            logger.info("vae step %d held-out PSNR %.2f dB", step, vae_psnr(vae, 16))
    if rank == 0:
        fold_latent_scale(vae)
        vae.save_pretrained(folder)
        logger.info("vae done after %d steps: held-out PSNR %.2f dB", step, vae_psnr(vae))


def refine_decoder(
    rank: int,
    workers: int,
    source: Path,
    target: Path,
    minutes: float,
    seed: int = 0,
    batch: int = 6,
    lr: float = 4e-3,
    device: str = "cpu",
    on_step: Callable[[float, str], None] | None = None,
) -> None:
    """Train the decoder on with the encoder frozen, so that latents keep their meaning for the other nets."""
    vae = AutoencoderKL.from_pretrained(source).to(device)
    torch.manual_seed(seed + 7919 * rank + 1)
    decoder = nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})
    parameters = list(decoder.parameters())
    optimizer = Muon(decoder.named_parameters(), lr=lr, adam_lr=0.1 * lr)
    start, step, share = time.monotonic(), 0, 0.0
    while share < 1.0:
        share = min(1.0, agree((time.monotonic() - start) / (60 * minutes), workers))
        pixels = frames_for_vae(batch, 5_000_000 + step * workers + rank).to(device)
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mode()
            noise = 0.03 / SCALING_FACTOR * torch.rand(batch, 1, 1, 1).to(latents)
            latents += noise * torch.randn_like(latents)
        difference = vae.decode(latents).sample - pixels
        loss = 0.5 * difference.abs().mean() + 6.0 * difference.square().mean()
        optimizer.zero_grad()
        loss.backward()
        average_gradients(parameters, workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(_schedule(step, share, 20))
        step += 1
        if rank == 0 and on_step is not None and step % 10 == 0:
            on_step(share, f"decoder step {step} loss {loss.item():.4f}")
    if rank == 0:
        vae.save_pretrained(target)
        logger.info("decoder done after %d steps: held-out PSNR %.2f dB", step, vae_psnr(vae))
