"""Where the temporal memory lives on the command's device, by what is free beside the loaded weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from memo_avatar.clips.placement import (
    GIB,
    ClipSizes,
    Placement,
    describe_placement,
    fits,
    largest_that_fits,
    place_memory,
)
from memo_avatar.clips.values import SamplingSettings
from memo_avatar.inputs import Portrait
from memo_avatar.model.nets import MemoModels

from .arguments import CommandError
from .progress import note

FOR_KERNELS = GIB // 4
"""Left free: what kernels take for themselves, and what fragments."""


def place(
    models: MemoModels, portraits: Sequence[Portrait], settings: SamplingSettings, setting: str
) -> Placement:
    """As asked for with `--memory`, told in a line. Raises CommandError where no clip fits.

    Where RAM is the device's memory, or nobody knows what is free, there is nothing to choose.
    """
    free = free_bytes(models.device)
    if free is None and setting != "ram":
        return Placement()
    height, width = portraits[0].pixel_values.shape[-2:]
    has_face = any(bool(portrait.face_embedding.any()) for portrait in portraits)
    itemsize = models.dtype.itemsize
    sizes = ClipSizes(models.config, height, width, has_face, settings, itemsize, len(portraits))
    needs, room = sizes.needs(), float("inf") if free is None else free - FOR_KERNELS
    placement = place_memory(needs, room, setting)
    needed = needs.on_device(placement)
    if needed > room:
        raise CommandError(
            f"expected {needed / GIB:.2f} GiB free on {models.device} for a clip of {width}x{height} but got "
            f"{room / GIB:.2f}. {_remedy(sizes, room, setting)}"
        )
    note(describe_placement(needs, placement))
    return placement


def free_bytes(device: torch.device) -> float | None:
    """What can be allocated on a device; None where it has no memory of its own, or does not tell."""
    backend: Any = getattr(torch, device.type, None)
    if device.type in ("cpu", "mps") or not hasattr(backend, "mem_get_info"):
        return None
    free, _ = backend.mem_get_info(device)
    kept = getattr(backend, "memory_reserved", lambda _device: 0)(device)  # by torch, for what comes next
    used = getattr(backend, "memory_allocated", lambda _device: 0)(device)
    return free + max(0, kept - used)


def _remedy(sizes: ClipSizes, room: float, setting: str) -> str:
    """What would fit, in the command's options."""
    unguided = replace(sizes, settings=replace(sizes.settings, guidance_scale=1.0))
    smaller = largest_that_fits(sizes, room, setting)
    ways = [
        "--memory auto" * (setting != "auto" and fits(sizes, room, "auto")),
        "--guidance-scale 1" * fits(unguided, room, setting),
        "" if smaller is None else f"--size {smaller.width}x{smaller.height}",
    ]
    found = " or ".join(filter(None, ways))
    return f"Use {found}." if found else "Use a device with more memory."
