"""What a video takes, before it is made: a refusal after one second instead of a failure after an hour."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import comfy.model_management as management
import torch

from ...memo_avatar.clips.placement import (
    GIB,
    ClipNeeds,
    ClipSizes,
    Placement,
    fits,
    largest_that_fits,
    place_memory,
)
from ...memo_avatar.files.foreign import counted

if TYPE_CHECKING:
    from .job import VideoJob

_BYTES_PER_PIXEL = 3 * 4  # float32 RGB


def check_frames(job: VideoJob, frames: int) -> None:
    """Raise unless so many frames of a job fit into RAM at once."""
    height, width = job.size
    check_room(
        frames,
        width,
        height,
        "MEMO Sampler",
        "Use MEMO Sampler to File, which keeps one clip at a time; or make a shorter part with start and "
        "duration of MEMO Voice, or smaller frames.",
    )


def check_room(frames: int, width: int, height: int, node: str, advice: str) -> None:
    """Raise unless so many frames fit into RAM at once."""
    needed = frames * height * width * _BYTES_PER_PIXEL
    free = management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise MemoryError(
            f"expected {needed / GIB:.1f} GiB of free RAM for {counted(frames, 'frame')} of {width}x{height} "
            f"but got {free / GIB:.1f} GiB ({node}). {advice}"
        )


def sizes_of(job: VideoJob) -> ClipSizes:
    """What decides how much a clip of this job takes."""
    height, width = job.size
    has_face = bool(job.portrait.face_embedding.any())
    itemsize = job.model.model.get_dtype_inference().itemsize
    return ClipSizes(job.memo.config, height, width, has_face, job.settings, itemsize)


def plan_memory(job: VideoJob) -> tuple[ClipNeeds, Placement]:
    """What a clip takes, and where its temporal memory lives for the whole video.

    On the device it leaves room for the diffusion net while steps are computed: weights that do not fit come
    there at every evaluation, as the memory in RAM does. Raises MemoryError unless one clip fits onto the
    device, all weights moved out of the way, and what lives in RAM into RAM.
    """
    device, needs, setting = job.model.load_device, sizes_of(job).needs(), job.memo.memory
    available = available_bytes(device)
    needed = needs.on_device(place_memory(needs, available, setting))
    if needed > available:
        raise MemoryError(
            f"expected {needed / GIB:.2f} GiB on {device} for a clip of {job.size[1]}x{job.size[0]} but got "
            f"{available / GIB:.2f} GiB (MEMO Sampler). {_remedy(job, available)}"
        )
    room = available - management.extra_reserved_memory()
    placement = place_memory(
        needs,
        room - job.model.model_size(),
        setting,
        free_making=room - job.memo.reference_net.model_size(),
    )
    in_ram, free = needs.in_ram(placement), management.get_free_memory(torch.device("cpu"))
    if in_ram > free:
        raise MemoryError(
            f"expected {in_ram / GIB:.1f} GiB of free RAM for the memory of past frames but got "
            f"{free / GIB:.1f} GiB (MEMO Sampler). Use smaller frames (width and height of MEMO Portrait)."
        )
    return needs, placement


def _remedy(job: VideoJob, available: float) -> str:
    """What would fit, in the words of the nodes."""
    sizes, setting = sizes_of(job), job.memo.memory
    unguided = replace(sizes, settings=replace(sizes.settings, guidance_scale=1.0))
    smaller = largest_that_fits(sizes, available, setting)
    ways = [
        "memory auto in Load MEMO" * (setting != "auto" and fits(sizes, available, "auto")),
        "bf16 in Load MEMO" * (sizes.itemsize > 2 and fits(replace(sizes, itemsize=2), available, setting)),
        "cfg 1" * fits(unguided, available, setting),
        "" if smaller is None else f"width {smaller.width} and height {smaller.height} in MEMO Portrait",
    ]
    found = " or ".join(filter(None, ways))
    return f"Use {found}." if found else "Use a device with more memory."


def available_bytes(device: torch.device) -> float:
    """What is free, and on a GPU also what the host's own models take, which it can move out."""
    free = management.get_free_memory(device)
    if management.is_device_cpu(device):
        return free
    loaded = [model for model in management.current_loaded_models if model.device == device]
    return free + sum(model.model_loaded_memory() for model in loaded)
