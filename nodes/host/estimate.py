"""What a video takes, before it is made: a refusal after one second instead of a failure after an hour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.model_management as management
import torch

from ...memo_avatar.model.config import UNet3DConfig

if TYPE_CHECKING:
    from .job import VideoJob

GIB = 2**30
_BYTES_PER_PIXEL = 3 * 4  # float32 RGB


def check_frames(job: VideoJob, frames: int) -> None:
    """Raise unless so many frames fit into RAM at once."""
    height, width = job.size
    needed = frames * height * width * _BYTES_PER_PIXEL
    free = management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise MemoryError(
            f"expected {needed / GIB:.1f} GiB of free RAM for {frames} frames of {width}x{height} but got "
            f"{free / GIB:.1f} GiB (MEMO Sampler). Use MEMO Sampler to File, which keeps one clip at a time; "
            "or make a shorter part with start and duration of MEMO Voice, or smaller frames."
        )


def check_clip(job: VideoJob) -> None:
    """Raise unless one clip fits onto the device, all weights moved out of the way."""
    (height, width), device = job.size, job.model.load_device
    memory, activations = context_bytes(job) // 2, job.model.model.memory_required(job.latent_shape)
    needed, available = memory + max(memory, activations), available_bytes(device)
    if needed > available:
        raise MemoryError(
            f"expected {needed / GIB:.2f} GiB on {device} for one clip of {width}x{height} (the memory of "
            f"past frames {memory / GIB:.2f}, the work on it {max(memory, activations) / GIB:.2f}) but got "
            f"{available / GIB:.2f} GiB (MEMO Sampler). "
            "Use smaller frames (width and height of MEMO Portrait), cfg 1, or bf16 in Load MEMO."
        )


def context_bytes(job: VideoJob) -> int:
    """What a clip's context takes on the device while it is made: the memory before it and after it."""
    item = job.model.model.get_dtype_inference().itemsize
    numbers = temporal_memory_size(job.memo.config.diffusion_net, *job.latent_shape[-2:])
    return 2 * len(job.settings.branches) * numbers * item


def temporal_memory_size(config: UNet3DConfig, height: int, width: int) -> int:
    """Numbers in one branch's temporal memory: per pixel C²/N + C for each linear attention."""
    attentions = config.motion_num_transformer_blocks * config.motion_num_attentions
    total, last = 0, len(config.block_out_channels) - 1
    for level, channels in enumerate(config.block_out_channels):
        pixels = -(-height // 2**level) * -(-width // 2**level)
        layers = 2 * config.layers_per_block + 1 if config.motion_levels[level] else 0
        layers += 1 if level == last else 0  # the middle block's
        numbers = channels * channels // config.motion_num_attention_heads + channels
        total += pixels * layers * attentions * numbers
    return total


def available_bytes(device: torch.device) -> float:
    """What is free, and on a GPU also what the host's own models take, which it can move out."""
    free = management.get_free_memory(device)
    if management.is_device_cpu(device):
        return free
    loaded = [model for model in management.current_loaded_models if model.device == device]
    return free + sum(model.model_loaded_memory() for model in loaded)


def _check_room(frames: int, width: int, height: int) -> None:
    needed = frames * height * width * _BYTES_PER_PIXEL
    free = management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise MemoryError(
            f"expected {needed / GIB:.1f} GiB of free RAM for {frames} frames of {width}x{height} but got "
            f"{free / GIB:.1f} GiB (MEMO Paste Back). Use paste_back of MEMO Sampler to File, which keeps no "
            "frames, or a smaller picture."
        )
