"""How far half precision is from float32, at a size at which float32 has room."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from memo_avatar.clips.conditions import VideoConditions
from memo_avatar.clips.denoiser import ClipDenoiser

from .meter import Values
from .workload import Scale, make_nets, make_vae

TIMESTEPS = (1000.0, 500.0, 50.0)


def precision_measurements(scale: Scale, device: torch.device) -> dict[str, Callable[[], Values]]:
    """Per dtype, relative to float32 on the same device, without TF32."""
    exact: list[Tensor] = []

    def compare(dtype: torch.dtype) -> Values:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        if not exact:
            exact.append(velocities(scale, device, torch.float32))
        difference = velocities(scale, device, dtype) - exact[0]
        return {
            "relative_error": float(difference.norm() / exact[0].norm()),
            "size": scale.small_size,
        }

    names = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return {f"{name} against float32": partial(compare, dtype) for name, dtype in names.items()}


@torch.inference_mode()
def velocities(scale: Scale, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Both branches at some timesteps of a first clip, (timesteps, 2, 4, F, h, w) float32 on the CPU."""
    models, vae, settings = make_nets(scale, device, dtype), make_vae(scale, device, dtype), scale.settings()
    conditions = VideoConditions(models, vae, scale.portrait(scale.small_size), settings)
    voice = scale.voice(1)
    context = conditions.clip(None, None, voice.audio_embeddings[:], int(voice.emotions[0]))
    denoiser = ClipDenoiser(models.diffusion_net, context, settings.branches, dtype)
    side = conditions.image_latents.shape[-1]
    shape = (1, 4, scale.frames, side, side)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    found = [denoiser(latents, torch.tensor(timestep)) for timestep in TIMESTEPS]
    return torch.stack([torch.cat(list(branches.values())) for branches in found]).cpu()
