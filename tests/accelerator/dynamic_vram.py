"""A stand-in for comfy-aimdo, the native library of ComfyUI's dynamic VRAM: its default on NVIDIA.

The library reserves addresses and pages weights in as layers run. Here the weights of a layer are one buffer
on the card that exists while it is resident, and where an allocation does not fit, weights make room. What is
evicted first is simple, so traffic is indicative; no pinned memory, no streams.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch

_signatures = itertools.count(1)
_pools: list[weakref.ref[WeightPool]] = []  # the least wanted first
ALIGNMENT = 512


class WeightPool:
    """One model's weights: by address, those that are resident."""

    def __init__(self, size: int, device: int) -> None:
        self.max_size, self.offset = size, 0
        self.device = torch.device("npu", device)
        self.pages: dict[int, tuple[int, torch.Tensor]] = {}  # address -> signature, buffer
        self.in_use: set[int] = set()
        _pools.append(weakref.ref(self))

    def prioritize(self, _clamp: Any = None) -> None:
        _pools.sort(key=lambda ref: ref() is self)

    def deprioritize(self) -> None:
        _pools.sort(key=lambda ref: ref() is not self)

    def alloc(self, size: int) -> tuple[WeightPool, int, int]:
        address = -(-self.offset // ALIGNMENT) * ALIGNMENT
        self.offset = address + size
        return self, address, size

    def fault(self, address: int, size: int) -> int | None:
        """The signature of what lies there now, paged in where there is room; else None."""
        self.in_use.add(address)
        if address not in self.pages:
            if torch.npu.mem_get_info(self.device)[0] < size:
                return None
            buffer = torch.empty(size, dtype=torch.uint8, device=self.device)
            self.pages[address] = (next(_signatures), buffer)
        return self.pages[address][0]

    def unpin(self, address: int) -> None:
        self.in_use.discard(address)

    def loaded_size(self) -> int:
        return sum(buffer.numel() for _, buffer in self.pages.values())

    def free_memory(self, size: float) -> int:
        """Give back at least `size` bytes, if so many are not in use: the last layers first."""
        freed = 0
        for address in sorted(self.pages, reverse=True):
            if freed >= size:
                break
            if address not in self.in_use:
                _, buffer = self.pages.pop(address)
                freed += buffer.numel()
                buffer.untyped_storage().resize_(0)  # the layers' views stay, as their addresses would
        return freed

    def __del__(self) -> None:
        self.in_use.clear()
        self.free_memory(float("inf"))

    def set_watermark_limit(self, _size: int) -> None: ...

    def set_watermark(self, _size: int) -> None: ...


class NoHostBuffer:
    """Pinned memory that there is none of."""

    size = 0

    def __init__(self, *_sizes: Any) -> None: ...

    def truncate(self, *_rest: Any, **_options: Any) -> None: ...


def pools() -> list[WeightPool]:
    _pools[:] = [ref for ref in _pools if ref() is not None]
    return [pool for ref in _pools if (pool := ref()) is not None]


def make_room(wanted: int) -> None:
    """Weights go where an allocation does not fit."""
    for pool in pools():
        if wanted <= 0:
            return
        if pool.device.index == torch.npu.current_device():
            wanted -= pool.free_memory(wanted)


def enable(host: Any) -> None:
    """What ComfyUI's main.py does where the library works."""
    import comfy.memory_management
    import comfy.model_patcher
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    from comfy.cli_args import args

    args.disable_pinned_memory = True
    library = comfy_aimdo.model_vbar
    library.ModelVBAR = WeightPool
    library.vbar_fault = lambda block: block[0].fault(block[1], block[2])
    library.vbar_unpin = lambda block: None if block is None else block[0].unpin(block[1])
    library.vbar_signature_compare = lambda a, b: a is not None and a == b
    library.vbars_reset_watermark_limits = lambda: None
    library.vbars_analyze = lambda _device=None: sum(pool.loaded_size() for pool in pools())
    comfy_aimdo.host_buffer.HostBuffer = NoHostBuffer
    comfy_aimdo.torch.aimdo_to_tensor = lambda block, _device: block[0].pages[block[1]][1]
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
    host.cards.native.set_make_room(make_room)


def disable(host: Any) -> None:
    """Back to models that are loaded whole or in part."""
    import comfy.memory_management
    import comfy.model_patcher

    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcher
    comfy.memory_management.aimdo_enabled = False
    host.cards.native.set_make_room(None)
